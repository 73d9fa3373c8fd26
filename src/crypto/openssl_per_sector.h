// AES sector encryption the obvious way, one EVP call with a fresh IV for each sector: the
// baseline that `bench ciphers` compares with, and a second opinion in tests.
#pragma once

#include <memory>

#include "crypto/sector_cipher.h"

namespace lukskeep::crypto {

// AES-XTS (keys of 32 and 64 bytes) and AES-CBC, with plain64 or essiv IVs; null for anything
// else that `spec` says, and for XTS keys with equal halves, which OpenSSL refuses.
// Not thread-safe: one context serves all calls.
std::unique_ptr<SectorCipher> make_openssl_per_sector(const CipherSpec& spec, ByteView key,
                                                      std::uint32_t sector_size_bytes);

}  // namespace lukskeep::crypto
