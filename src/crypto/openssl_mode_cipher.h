// AES in the modes that OpenSSL has itself: faster than batches of blocks for long units.
#pragma once

#include <memory>

#include "crypto/mode_cipher.h"

namespace lukskeep::crypto {

// A cipher that gives each of a few long units to OpenSSL's own AES-XTS or AES-CBC, and everything
// else to `batch`, which must be the same construction. It is `batch` itself if OpenSSL does not
// have the mode or refuses the key (192 bits in XTS, equal halves).
std::unique_ptr<ModeCipher> add_openssl_modes(CipherMode mode, ByteView key,
                                              std::unique_ptr<ModeCipher> batch);

}  // namespace lukskeep::crypto
