// Owning handles of OpenSSL's cipher objects.
#pragma once

#include <cstddef>
#include <memory>

#include <openssl/evp.h>

namespace lukskeep::crypto {

struct EvpFree {
  void operator()(EVP_CIPHER* cipher) const noexcept { EVP_CIPHER_free(cipher); }
  void operator()(EVP_CIPHER_CTX* context) const noexcept { EVP_CIPHER_CTX_free(context); }
};
using EvpCipher = std::unique_ptr<EVP_CIPHER, EvpFree>;
using EvpContext = std::unique_ptr<EVP_CIPHER_CTX, EvpFree>;

inline const unsigned char* evp_in(const std::byte* p) noexcept {
  return reinterpret_cast<const unsigned char*>(p);
}
inline unsigned char* evp_out(std::byte* p) noexcept { return reinterpret_cast<unsigned char*>(p); }

}  // namespace lukskeep::crypto
