// --policy: what the header that a command opens may say.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cli/options.h"
#include "luks/header_file.h"
#include "luks/policy.h"

namespace lukskeep::cli {

struct PolicyArgs {
  std::optional<std::string> source;

  // `name`: where --policy is something else.
  void declare(Options& options, std::string_view name = "--policy");
  // Throws Error{kUnsafe} listing what the policy does not allow, and what luks::load_policy
  // throws; does nothing without --policy. To be called before anything is done with `file`.
  void enforce(const luks::HeaderFile& file) const;
};

}  // namespace lukskeep::cli
