#include "crypto/block_key.h"

#include <fmt/format.h>
#include <lukskeep/error.h>

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kBytes192 = 24;

}  // namespace

std::unique_ptr<BlockKey> make_block_key(BlockCipher cipher, ByteView key) {
  switch (cipher) {
    case BlockCipher::kAes:
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
