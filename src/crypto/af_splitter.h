// The anti-forensic splitter (LUKS1 §2.4): a key as `stripes` blocks of which all are needed.
#pragma once

#include <cstdint>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::crypto {

// Returns key.size() * stripes bytes. Throws Error{kUnsupported} for an unknown hash and
// kInvalidArgument for 0 stripes or an empty key.
SecretBytes af_split(ByteView key, std::uint32_t stripes, std::string_view hash);

// The inverse; `material.size()` must be a multiple of `stripes`, or kInvalidArgument.
SecretBytes af_merge(ByteView material, std::uint32_t stripes, std::string_view hash);

}  // namespace lukskeep::crypto
