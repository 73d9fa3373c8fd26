// ECB by OpenSSL's EVP: its AES works on eight blocks at a time.
#include <cassert>
#include <utility>

#include <fmt/format.h>
#include <lukskeep/error.h>

#include "crypto/block_key.h"
#include "crypto/openssl_handles.h"

namespace lukskeep::crypto {
namespace {

std::string evp_name(BlockCipher cipher, std::size_t key_bytes) {
  switch (cipher) {
    case BlockCipher::kAes:
      return fmt::format("AES-{}-ECB", key_bytes * 8);
    case BlockCipher::kCamellia:
      return fmt::format("CAMELLIA-{}-ECB", key_bytes * 8);
    case BlockCipher::kAria:
      return fmt::format("ARIA-{}-ECB", key_bytes * 8);
    case BlockCipher::kSm4:
      return "SM4-ECB";
    default:
      return "none";
  }
}

class OpensslBlockKey final : public BlockKey {
 public:
  OpensslBlockKey(EvpCipher cipher, ByteView key)
      : BlockKey(static_cast<std::size_t>(EVP_CIPHER_get_block_size(cipher.get()))),
        contexts_(std::move(cipher), key) {}

  void encrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    apply_evp(*contexts_.lease()->encrypt, blocks);
  }
  void decrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    apply_evp(*contexts_.lease()->decrypt, blocks);
  }
  std::string_view kernel() const noexcept override { return "openssl"; }

 private:
  EvpContexts contexts_;
};

}  // namespace

std::unique_ptr<BlockKey> make_openssl_block_key(BlockCipher cipher, ByteView key) {
  EvpCipher evp = fetch_evp_cipher(evp_name(cipher, key.size()), key.size());
  if (!evp) {
    throw Error(Code::kUnsupported,
                fmt::format("this OpenSSL has no cipher '{}' with keys of {} bits",
                            block_cipher_name(cipher), key.size() * 8));
  }
  return std::make_unique<OpensslBlockKey>(std::move(evp), key);
}

}  // namespace lukskeep::crypto
