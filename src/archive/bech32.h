// Bech32 (BIP 173) as age uses it: a checked text form of 32 bytes with a readable prefix.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::archive {

// `prefix` in lower case; the result is lower case too.
SecretBytes bech32_encode(std::string_view prefix, ByteView data);

// The bytes of `text`, which is all lower or all upper case and starts with `prefix` in that case.
// Absent if anything is wrong with it, the checksum included.
std::optional<SecretBytes> bech32_decode(std::string_view prefix, std::string_view text);

}  // namespace lukskeep::archive
