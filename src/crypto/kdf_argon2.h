// Argon2 (RFC 9106) through libargon2. Private to this folder: callers use kdf.h.
#pragma once

#include "base/bytes.h"
#include "crypto/kdf.h"

namespace lukskeep::crypto {

// Fills `out`, with the lanes of `cost` on at most `threads` threads. The caller has checked that
// cost and sizes are within the RFC's bounds.
// Throws Error{kOutOfMemory}.
void argon2(const KdfCost& cost, ByteView passphrase, ByteView salt, MutableBytes out,
            unsigned threads);

}  // namespace lukskeep::crypto
