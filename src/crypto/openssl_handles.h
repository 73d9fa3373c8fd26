// OpenSSL's objects: owning handles; of ciphers also calls that throw, and contexts for many
// threads.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include <openssl/bio.h>
#include <openssl/evp.h>

#include "base/bytes.h"
#include "crypto/context_pool.h"
#include "crypto/key_memory.h"

namespace lukskeep::crypto {

struct EvpFree {
  void operator()(EVP_CIPHER* cipher) const noexcept { EVP_CIPHER_free(cipher); }
  void operator()(EVP_CIPHER_CTX* context) const noexcept { EVP_CIPHER_CTX_free(context); }
  void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  void operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
  void operator()(EVP_PKEY_CTX* context) const noexcept { EVP_PKEY_CTX_free(context); }
  void operator()(BIO* bio) const noexcept { BIO_free(bio); }
};
using EvpCipher = std::unique_ptr<EVP_CIPHER, EvpFree>;
using EvpContext = std::unique_ptr<EVP_CIPHER_CTX, EvpFree>;
using EvpDigestContext = std::unique_ptr<EVP_MD_CTX, EvpFree>;
using EvpKey = std::unique_ptr<EVP_PKEY, EvpFree>;
using EvpKeyContext = std::unique_ptr<EVP_PKEY_CTX, EvpFree>;
using OpensslText = std::unique_ptr<BIO, EvpFree>;

// Bytes as OpenSSL takes them.
inline const unsigned char* evp_bytes(ByteView bytes) noexcept {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
inline unsigned char* evp_bytes(MutableBytes bytes) noexcept {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

// Null if this OpenSSL lacks the cipher or it takes keys of another size.
EvpCipher fetch_evp_cipher(const std::string& name, std::size_t key_bytes);

// Without padding. Throws Error{kInternal} if OpenSSL does not take the key.
EvpContext make_evp_context(const EVP_CIPHER& cipher, ByteView key, bool encrypting);

// `iv` has the size that the cipher wants. Both throw Error{kInternal} if OpenSSL fails.
void set_evp_iv(EVP_CIPHER_CTX& context, const std::byte* iv);
// In place; a whole number of blocks.
void apply_evp(EVP_CIPHER_CTX& context, MutableBytes data);

// Contexts of one key in both directions.
class EvpContexts {
 public:
  struct Pair {
    EvpContext encrypt;
    EvpContext decrypt;
  };

  EvpContexts(EvpCipher cipher, ByteView key);

  // Thread-safe.
  ContextPool<Pair>::Lease lease() const { return pool_.lease(); }
  const EVP_CIPHER* cipher() const noexcept { return cipher_.get(); }

 private:
  std::unique_ptr<Pair> make() const;

  EvpCipher cipher_;
  KeyMemory key_;
  mutable ContextPool<Pair> pool_;
};

}  // namespace lukskeep::crypto
