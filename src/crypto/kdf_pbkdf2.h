// PBKDF2 (RFC 8018 section 5.2). Private to this folder: callers use kdf.h.
#pragma once

#include <cstdint>
#include <string_view>

#include <lukskeep/progress.h>

#include "base/bytes.h"

namespace lukskeep::crypto {

// Fills `out`; its digest-sized blocks are computed on at most `threads` threads. The caller has
// checked that `iterations` is positive and `out` within RFC 8018's bound.
// Throws Error: kUnsupported (hash), kInterrupted.
void pbkdf2(std::string_view hash, std::uint32_t iterations, ByteView passphrase, ByteView salt,
            MutableBytes out, unsigned threads, const CancelToken* cancel);

}  // namespace lukskeep::crypto
