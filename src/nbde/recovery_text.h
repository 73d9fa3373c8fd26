// Bytes as text that people read to each other and type: lines of 25 characters of Crockford's
// base32 in groups of five, with their number in front and two check characters behind.
//
//   01  0K1Q3 5T8AB CDEFG HJKMN PQRST  4X
//
// One wrong character, or two neighbours in the wrong order, never pass. And one line of it for QR
// codes, which check themselves. Pure; all functions may be called from any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"

namespace lukskeep::nbde {

std::string to_base32(ByteView bytes);

// With `title` as a line above.
std::string to_spoken_lines(ByteView bytes, std::string_view title);
// "LUKSKEEP:" and base32: characters that QR codes hold in 5.5 bits.
std::string to_qr_text(ByteView bytes);

// Reads both, in upper or lower case; O is 0, I and L are 1; blanks and hyphens within a line,
// empty lines and titles mean nothing. Throws Error{kInvalidArgument}
// naming `what` and the line that is wrong or missing.
Bytes parse_recovery_text(std::string_view text, std::string_view what);

}  // namespace lukskeep::nbde
