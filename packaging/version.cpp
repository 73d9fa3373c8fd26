#include <lukskeep/version.h>

namespace lukskeep {

std::string_view version() noexcept { return LUKSKEEP_VERSION; }

}  // namespace lukskeep
