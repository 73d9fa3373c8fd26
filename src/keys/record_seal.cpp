#include "keys/record_seal.h"

#include <algorithm>
#include <array>

#include <openssl/evp.h>

#include <lukskeep/error.h>

#include "crypto/openssl_handles.h"
#include "crypto/random.h"

namespace lukskeep::keys {
namespace {

using crypto::evp_bytes;

constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;

void require(bool good) {
  if (!good) throw Error(Code::kInternal, "OpenSSL cannot use AES-256-GCM");
}

}  // namespace

Bytes seal_record(ByteView key, ByteView plain, ByteView bound) {
  Bytes sealed(plain.size() + kSealOverheadBytes);
  const MutableBytes all(sealed);
  crypto::random_fill(all.first(kNonceBytes));
  const crypto::EvpContext context(EVP_CIPHER_CTX_new());
  int size = 0;
  require(context != nullptr && key.size() == kSealKeyBytes &&
          EVP_EncryptInit_ex2(context.get(), EVP_aes_256_gcm(), evp_bytes(key),
                              evp_bytes(all.first(kNonceBytes)), nullptr) == 1 &&
          EVP_EncryptUpdate(context.get(), nullptr, &size, evp_bytes(bound),
                            static_cast<int>(bound.size())) == 1 &&
          EVP_EncryptUpdate(context.get(), evp_bytes(all.subspan(kNonceBytes)), &size,
                            evp_bytes(plain), static_cast<int>(plain.size())) == 1 &&
          EVP_EncryptFinal_ex(context.get(), evp_bytes(all.last(kTagBytes)), &size) == 1 &&
          EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes,
                              evp_bytes(all.last(kTagBytes))) == 1);
  return sealed;
}

std::optional<SecretBytes> open_record(ByteView key, ByteView sealed, ByteView bound) {
  if (sealed.size() < kSealOverheadBytes) return std::nullopt;
  const ByteView body = sealed.subspan(kNonceBytes, sealed.size() - kSealOverheadBytes);
  std::array<std::byte, kTagBytes> tag;
  std::ranges::copy(sealed.last(kTagBytes), tag.begin());
  SecretBytes plain(body.size());
  const crypto::EvpContext context(EVP_CIPHER_CTX_new());
  int size = 0;
  require(context != nullptr && key.size() == kSealKeyBytes &&
          EVP_DecryptInit_ex2(context.get(), EVP_aes_256_gcm(), evp_bytes(key),
                              evp_bytes(sealed.first(kNonceBytes)), nullptr) == 1);
  const bool good = EVP_DecryptUpdate(context.get(), nullptr, &size, evp_bytes(bound),
                                      static_cast<int>(bound.size())) == 1 &&
                    EVP_DecryptUpdate(context.get(), evp_bytes(plain.span()), &size,
                                      evp_bytes(body), static_cast<int>(body.size())) == 1 &&
                    EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes,
                                        evp_bytes(MutableBytes(tag))) == 1 &&
                    EVP_DecryptFinal_ex(context.get(), evp_bytes(MutableBytes(tag)), &size) == 1;
  if (!good) return std::nullopt;
  return plain;
}

}  // namespace lukskeep::keys
