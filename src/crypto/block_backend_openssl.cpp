// ECB by OpenSSL's EVP: its AES works on eight blocks at a time.
#include <algorithm>
#include <cassert>
#include <climits>
#include <utility>

#include <fmt/format.h>
#include <lukskeep/error.h>
#include <openssl/evp.h>

#include "crypto/block_key.h"
#include "crypto/context_pool.h"
#include "crypto/key_memory.h"
#include "crypto/openssl_handles.h"

namespace lukskeep::crypto {
namespace {

struct Contexts {
  EvpContext encrypt;
  EvpContext decrypt;
};

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
      return {};
  }
}

EvpContext make_context(const EVP_CIPHER* cipher, ByteView key, bool encrypting) {
  EvpContext context(EVP_CIPHER_CTX_new());
  if (!context || EVP_CipherInit_ex2(context.get(), cipher, evp_in(key.data()), nullptr,
                                     encrypting ? 1 : 0, nullptr) != 1) {
    throw Error(Code::kInternal, "OpenSSL does not take the key of a cipher");
  }
  EVP_CIPHER_CTX_set_padding(context.get(), 0);
  return context;
}

void update(EVP_CIPHER_CTX* context, MutableBytes blocks) {
  // EVP counts in int; a whole number of blocks of every cipher here.
  constexpr std::size_t kPieceBytesMax = std::size_t{1} << 30;
  static_assert(kPieceBytesMax <= INT_MAX);
  while (!blocks.empty()) {
    const std::size_t size = std::min(blocks.size(), kPieceBytesMax);
    int written = 0;
    if (EVP_CipherUpdate(context, evp_out(blocks.data()), &written, evp_in(blocks.data()),
                         static_cast<int>(size)) != 1 ||
        static_cast<std::size_t>(written) != size) {
      throw Error(Code::kInternal, "OpenSSL failed to apply a cipher");
    }
    blocks = blocks.subspan(size);
  }
}

class OpensslBlockKey final : public BlockKey {
 public:
  OpensslBlockKey(EvpCipher cipher, ByteView key)
      : BlockKey(static_cast<std::size_t>(EVP_CIPHER_get_block_size(cipher.get()))),
        cipher_(std::move(cipher)),
        key_(key),
        contexts_([this] { return make(); }) {}

  void encrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    update(contexts_.lease()->encrypt.get(), blocks);
  }
  void decrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    update(contexts_.lease()->decrypt.get(), blocks);
  }
  std::string_view kernel() const noexcept override { return "openssl"; }

 private:
  std::unique_ptr<Contexts> make() const {
    const ByteView key = key_.bytes();
    return std::make_unique<Contexts>(
        Contexts{make_context(cipher_.get(), key, true), make_context(cipher_.get(), key, false)});
  }

  EvpCipher cipher_;
  KeyMemory key_;
  mutable ContextPool<Contexts> contexts_;
};

}  // namespace

std::unique_ptr<BlockKey> make_openssl_block_key(BlockCipher cipher, ByteView key) {
  const std::string name = evp_name(cipher, key.size());
  EvpCipher evp(name.empty() ? nullptr : EVP_CIPHER_fetch(nullptr, name.c_str(), nullptr));
  if (!evp || static_cast<std::size_t>(EVP_CIPHER_get_key_length(evp.get())) != key.size()) {
    throw Error(Code::kUnsupported,
                fmt::format("this OpenSSL has no cipher '{}' with keys of {} bits",
                            block_cipher_name(cipher), key.size() * 8));
  }
  return std::make_unique<OpensslBlockKey>(std::move(evp), key);
}

}  // namespace lukskeep::crypto
