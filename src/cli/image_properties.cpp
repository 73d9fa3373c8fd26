#include "cli/image_properties.h"

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "keys/key_source.h"

namespace lukskeep::cli {

void PropertyArgs::declare(Options& options) {
  options.add({.name = "--key-id",
               .value = "ID",
               .help = "the secret that opens the image, as its key manager calls it"},
              key_id);
  options.flag({.name = "--compressed", .help = "the image will be uploaded compressed by gzip"},
               compressed);
  declare_output(options);
}

void PropertyArgs::declare_output(Options& options) {
  options.add({.name = "--key-deletion",
               .value = "POLICY",
               .help = "what becomes of the secret when the image is deleted: delete or keep",
               .choices = {"delete", "keep"}},
              [this](const std::string& value) { delete_key = value == "delete"; });
  options.add({.name = "--style",
               .value = "STYLE",
               .help = "whose properties to write: spec (default), cinder or nova",
               .choices = {"spec", "cinder", "nova"}},
              [this](const std::string& value) { style = image::parse_style(value); });
}

void PropertyArgs::apply(image::Description& description) const {
  // Barbican's clients print references: https://HOST/v1/secrets/UUID.
  if (key_id) {
    const bool reference = key_id->starts_with("https://") || key_id->starts_with("http://");
    description.key_id = reference ? key_id->substr(key_id->rfind('/') + 1) : *key_id;
  }
  if (delete_key) description.delete_key = delete_key;
}

image::Properties read_property_set(const Session& session, const std::string& path) {
  const SecretBytes text =
      keys::read_key({.kind = keys::KeySource::Kind::kFile, .path = path}, {}, {}, session.cancel);
  const std::string what = fmt::format("'{}'", printable(path, 256));
  if (text.size() > limits::kImagePropertiesBytesMax) {
    throw Error(Code::kInvalidArgument, fmt::format("{} is no set of properties", what));
  }
  return image::parse_properties(as_string_view(text.span()), what);
}

void warn_of(const std::vector<image::PropertyProblem>& problems) {
  for (const image::PropertyProblem& problem : problems) {
    warn(fmt::format("{}: {}{}; {}", problem.name,
                     problem.property.empty() ? "" : problem.property + ": ", problem.what,
                     problem.remedy));
  }
}

OrderedJson problems_json(const std::vector<image::PropertyProblem>& problems) {
  OrderedJson list = OrderedJson::array();
  for (const image::PropertyProblem& problem : problems) {
    list.push_back({{"name", problem.name},
                    {"error", problem.error},
                    {"property", problem.property},
                    {"what", problem.what},
                    {"remedy", problem.remedy}});
  }
  return list;
}

}  // namespace lukskeep::cli
