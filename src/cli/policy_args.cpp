#include "cli/policy_args.h"

namespace lukskeep::cli {

void PolicyArgs::declare(Options& options, std::string_view name) {
  options.add({.name = name,
               .value = "NAME|FILE",
               .help = "refuse a header that this policy does not allow: untrusted, or a file"},
              source);
}

void PolicyArgs::enforce(const luks::HeaderFile& file) const {
  if (source) luks::enforce(luks::load_policy(*source), file);
}

}  // namespace lukskeep::cli
