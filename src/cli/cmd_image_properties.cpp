// image properties: what services are to be told of an encrypted image.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/cmd_image.h"
#include "cli/image_properties.h"
#include "cli/image_service.h"
#include "cli/volume_access.h"
#include "image/inspect_device.h"
#include "image/properties.h"

namespace lukskeep::cli {
namespace {

using image::Description;
using image::Properties;
using image::PropertyProblem;
using image::Report;

class ImageProperties final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional(
        {.name = "FILE", .help = "the image; without one a set is read and translated only"},
        path_);
    args_.declare(options);
    options.add({.name = "--properties",
                 .value = "SET",
                 .help = "a set that is there, in JSON, as 'openstack image show -f json' prints "
                         "it: read, compared with FILE, translated; - is standard input"},
                set_path_);
    options.flag({.name = "--openstack", .help = "print options for 'openstack image create'"},
                 openstack_);
    options.add({.name = "--apply",
                 .value = "IMAGE",
                 .help = "set the properties of this image in Glance, and remove those of other "
                         "styles"},
                apply_);
    service_.declare(options);
  }

  void run(const Session& session) override {
    if (path_.empty() && !set_path_) {
      throw Error(Code::kUsage, "there is neither an image nor a set of properties",
                  "name FILE, or --properties");
    }
    std::optional<image::ReadProperties> read;
    if (set_path_) read = image::read_properties(read_property_set(session, *set_path_));
    std::optional<Report> report;
    if (!path_.empty()) {
      report = image::inspect(open_to_look(path_), {.cancel = session.cancel});
    }
    std::vector<PropertyProblem> problems;
    if (read) problems = read->problems;
    Description description = merged(read, report);
    if (report) {
      for (auto& problem : check(read ? read->description : description, *report))
        problems.push_back(std::move(problem));
    }
    if (image::has_error(problems)) session.outcome->exit_status = exit_status(Code::kUsage);
    const Properties set = write(description);
    if (!apply_.empty()) {
      refuse_ambiguous(problems, report.has_value());
      refuse_contradicted(set, problems, report);
      apply(session, set, report);
    }
    finish(session, set, problems);
  }

 private:
  // The file says what it is, the set and the options what cannot be seen from it.
  Description merged(const std::optional<image::ReadProperties>& read,
                     const std::optional<Report>& report) const {
    Description description;
    if (report && !is_plain(read, *report)) {
      description = image::describe(*report, args_.compressed);
    } else if (read) {
      description = read->description;
    }
    if (read) {
      description.key_id = read->description.key_id;
      description.delete_key = read->description.delete_key;
    }
    description.styles = {args_.style};
    args_.apply(description);
    return description;
  }

  // What is not encrypted, by a set that does not say otherwise, has nothing to be written of; what
  // is compressed cannot be looked into.
  static bool is_plain(const std::optional<image::ReadProperties>& read, const Report& report) {
    return read && (!report.encrypted || read->description.container_format == "compressed");
  }

  // Nothing for an image that is not encrypted.
  Properties write(const Description& description) const {
    if (description.encryption == image::Encryption::kNone) return {};
    return image::write_properties(description, {.style = args_.style, .disk_formats = {}});
  }

  // With --compressed the file is what it is before that.
  std::vector<PropertyProblem> check(Description description, const Report& report) const {
    if (args_.compressed) description.container_format = "bare";
    return image::check_properties(description, report);
  }

  // What is wrong with a set that is there is what --apply mends, where the file or the user says
  // how.
  void refuse_ambiguous(const std::vector<PropertyProblem>& problems, bool with_file) const {
    for (const PropertyProblem& problem : problems) {
      const bool key = problem.name == "key-id-conflict";
      if (!problem.error || (key ? args_.key_id.has_value() : with_file)) continue;
      warn_of(problems);
      throw Error(
          Code::kInvalidArgument, "the set of properties contradicts itself",
          key ? "--key-id says which secret opens the image" : "name FILE: it says what is right");
    }
  }

  // A set without a key is none.
  void refuse_contradicted(const Properties& set, const std::vector<PropertyProblem>& problems,
                           const std::optional<Report>& report) const {
    const image::ReadProperties written = image::read_properties(set);
    if (set.empty() || written.description.key_id.empty()) {
      warn_of(problems);
      throw Error(Code::kInvalidArgument, "there is no whole set to apply",
                  "name the encrypted image, and its secret with --key-id");
    }
    std::vector<PropertyProblem> wrong = written.problems;
    if (report) {
      for (auto& problem : check(written.description, *report)) wrong.push_back(std::move(problem));
    }
    if (!image::has_error(wrong)) return;
    warn_of(wrong);
    throw Error(Code::kInvalidArgument,
                "the properties are not what the file is, and were not applied",
                "name the file that the image was made of");
  }

  void refuse_other_size(const image::Glance& glance, const image::GlanceImage& image,
                         const Report& report) const {
    if (args_.compressed || !image.size_bytes || *image.size_bytes == report.size_bytes) return;
    throw Error(Code::kConflict,
                fmt::format("image '{}' in {} has {} bytes, and the file {}", printable(image.id),
                            glance.name(), *image.size_bytes, report.size_bytes),
                "name the file that it was made of, and --compressed if it was compressed then");
  }

  void apply(const Session& session, const Properties& set,
             const std::optional<Report>& report) const {
    const image::Services services = service_.services(session, session.cancel, false);
    const image::GlanceImage image = services.glance->get(apply_);
    if (report) refuse_other_size(*services.glance, image, *report);
    std::vector<std::string> unwanted;
    for (const auto& [name, value] : image.properties) {
      if (image::is_encryption_property(name) && !set.contains(name)) unwanted.push_back(name);
    }
    if (!session.dry_run) services.glance->change(image, set, unwanted);
    for (const char* name : {"disk_format", "container_format"}) {
      const auto found = image.properties.find(name);
      if (image.status == "queued" ||
          (found != image.properties.end() && found->second == set.at(name))) {
        continue;
      }
      warn(fmt::format("the {} of an image with data cannot be changed: it stays '{}', not '{}'",
                       name, found == image.properties.end() ? "" : printable(found->second),
                       set.at(name)));
    }
  }

  void finish(const Session& session, const Properties& set,
              const std::vector<PropertyProblem>& problems) const {
    if (!session.json) warn_of(problems);
    std::string text;
    if (openstack_ && !set.empty()) {
      text = image::openstack_options(set) + "\n";
    } else {
      for (const auto& [name, value] : set) {
        text += fmt::format("{}={}\n", name, printable(value, 256));
      }
    }
    show(session,
         {{"file", path_.empty() ? OrderedJson() : OrderedJson(path_)},
          {"style", image::style_name(args_.style)},
          {"good", !image::has_error(problems)},
          {"properties", set},
          {"problems", problems_json(problems)},
          {"dry_run", session.dry_run}},
         text);
  }

  std::string path_;
  PropertyArgs args_;
  std::optional<std::string> set_path_;
  bool openstack_ = false;
  std::string apply_;
  ImageServiceArgs service_;
};

}  // namespace

std::unique_ptr<Command> make_image_properties() { return std::make_unique<ImageProperties>(); }

}  // namespace lukskeep::cli
