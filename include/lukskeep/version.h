// Which liblukskeep a program runs with.
#pragma once

#include <string_view>

#include <lukskeep/export.h>

namespace lukskeep {

// MAJOR.MINOR.PATCH, e.g. "0.1.0".
LUKSKEEP_API std::string_view version() noexcept;

}  // namespace lukskeep
