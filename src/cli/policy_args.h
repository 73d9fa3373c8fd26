// --policy: what the header that a command opens may say.
#pragma once

#include <optional>
#include <string>

#include "cli/options.h"
#include "luks/header_file.h"
#include "luks/policy.h"

namespace lukskeep::cli {

struct PolicyArgs {
  std::optional<std::string> source;

  void declare(Options& options);
  // Throws Error{kUnsafe} listing what the policy does not allow, and what luks::load_policy
  // throws; does nothing without --policy. To be called before anything is done with `file`.
  void enforce(const luks::HeaderFile& file) const;
};

}  // namespace lukskeep::cli
