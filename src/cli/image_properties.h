// Property sets on the command line: where they come from, and how their problems are told.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "cli/options.h"
#include "cli/session.h"
#include "image/properties.h"

namespace lukskeep::cli {

// --key-id, --key-deletion, --style, --compressed.
struct PropertyArgs {
  std::optional<std::string> key_id;
  std::optional<bool> delete_key;
  image::Style style = image::Style::kSpec;
  bool compressed = false;

  // All of them.
  void declare(Options& options);
  // --key-deletion and --style: where the rest is known.
  void declare_output(Options& options);
  // What the user said goes before what a set says.
  void apply(image::Description& description) const;
};

// A file, or standard input for "-".
image::Properties read_property_set(const Session& session, const std::string& path);

void warn_of(const std::vector<image::PropertyProblem>& problems);
OrderedJson problems_json(const std::vector<image::PropertyProblem>& problems);

}  // namespace lukskeep::cli
