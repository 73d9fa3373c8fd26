// Base64 with the URL-safe alphabet and without padding (RFC 4648 section 5, RFC 7515 appendix C),
// as JOSE writes all its bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep {

// Not for secrets.
std::string to_base64url(ByteView bytes);
// Absent unless `text` is exactly what to_base64url writes for some bytes: no padding, no other
// alphabet, no white space, no bits set below the last byte.
std::optional<Bytes> from_base64url(std::string_view text);

// The same for secrets: the bytes never are in other memory.
SecretBytes secret_to_base64url(ByteView bytes);
std::optional<SecretBytes> secret_from_base64url(std::string_view text);

}  // namespace lukskeep
