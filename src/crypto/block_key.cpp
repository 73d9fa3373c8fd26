#include "crypto/block_key.h"

#include <fmt/format.h>
#include <lukskeep/error.h>

#include "crypto/aes_kernel.h"

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kBytes192 = 24;

}  // namespace

std::unique_ptr<BlockKey> make_block_key(BlockCipher cipher, ByteView key,
                                         const AesKernel& kernel) {
  switch (cipher) {
    case BlockCipher::kAes:
      return make_aes_block_key(kernel, key);
    case BlockCipher::kAria:
      return make_openssl_block_key(cipher, key);
    case BlockCipher::kTwofish:
      if (key.size() == kBytes192) return make_nettle_twofish_key(key);
      return make_gcrypt_block_key(cipher, key);
    case BlockCipher::kSerpent:
    case BlockCipher::kCamellia:
    case BlockCipher::kSm4:
    case BlockCipher::kCast5:
      return make_gcrypt_block_key(cipher, key);
    case BlockCipher::kNull:
      break;
  }
  throw Error(Code::kUnsupported,
              fmt::format("'{}' is no block cipher", block_cipher_name(cipher)));
}

}  // namespace lukskeep::crypto
