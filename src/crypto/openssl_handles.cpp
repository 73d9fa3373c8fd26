#include "crypto/openssl_handles.h"

#include <algorithm>
#include <climits>
#include <utility>

#include <lukskeep/error.h>

namespace lukskeep::crypto {
namespace {

const unsigned char* in(const std::byte* p) { return reinterpret_cast<const unsigned char*>(p); }
unsigned char* out(std::byte* p) { return reinterpret_cast<unsigned char*>(p); }

}  // namespace

EvpCipher fetch_evp_cipher(const std::string& name, std::size_t key_bytes) {
  EvpCipher cipher(EVP_CIPHER_fetch(nullptr, name.c_str(), nullptr));
  if (!cipher || static_cast<std::size_t>(EVP_CIPHER_get_key_length(cipher.get())) != key_bytes) {
    return nullptr;
  }
  return cipher;
}

EvpContext make_evp_context(const EVP_CIPHER& cipher, ByteView key, bool encrypting) {
  EvpContext context(EVP_CIPHER_CTX_new());
  if (!context || EVP_CipherInit_ex2(context.get(), &cipher, in(key.data()), nullptr,
                                     encrypting ? 1 : 0, nullptr) != 1) {
    throw Error(Code::kInternal, "OpenSSL does not take the key of a cipher");
  }
  EVP_CIPHER_CTX_set_padding(context.get(), 0);
  return context;
}

void set_evp_iv(EVP_CIPHER_CTX& context, const std::byte* iv) {
  if (EVP_CipherInit_ex2(&context, nullptr, nullptr, in(iv), -1, nullptr) != 1) {
    throw Error(Code::kInternal, "OpenSSL does not take an IV");
  }
}

void apply_evp(EVP_CIPHER_CTX& context, MutableBytes data) {
  // EVP counts in int; a whole number of blocks of every cipher here.
  constexpr std::size_t kPieceBytesMax = std::size_t{1} << 30;
  static_assert(kPieceBytesMax <= INT_MAX);
  while (!data.empty()) {
    const std::size_t size = std::min(data.size(), kPieceBytesMax);
    int written = 0;
    if (EVP_CipherUpdate(&context, out(data.data()), &written, in(data.data()),
                         static_cast<int>(size)) != 1 ||
        static_cast<std::size_t>(written) != size) {
      throw Error(Code::kInternal, "OpenSSL failed to apply a cipher");
    }
    data = data.subspan(size);
  }
}

EvpContexts::EvpContexts(EvpCipher cipher, ByteView key)
    : cipher_(std::move(cipher)), key_(key), pool_([this] { return make(); }) {}

std::unique_ptr<EvpContexts::Pair> EvpContexts::make() const {
  const ByteView key = key_.bytes();
  return std::make_unique<Pair>(
      Pair{make_evp_context(*cipher_, key, true), make_evp_context(*cipher_, key, false)});
}

}  // namespace lukskeep::crypto
