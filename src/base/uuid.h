// Random UUIDs (RFC 4122 version 4) and the check of their text form.
#pragma once

#include <string>
#include <string_view>

namespace lukskeep {

// 36 characters, lower case, from the kernel's random generator. Throws Error{kIo}.
std::string random_uuid();

// Whether `text` has the 8-4-4-4-12 form; upper and lower case are accepted.
bool is_uuid(std::string_view text) noexcept;

}  // namespace lukskeep
