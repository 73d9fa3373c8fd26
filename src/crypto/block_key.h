// One expanded key of a block cipher: encrypts and decrypts many independent blocks per call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "crypto/cipher_spec.h"

namespace lukskeep::crypto {

// All calls are const and may run concurrently.
class BlockKey {
 public:
  virtual ~BlockKey() = default;
  BlockKey(const BlockKey&) = delete;
  BlockKey& operator=(const BlockKey&) = delete;

  // In place, each block for itself. blocks.size() must be a multiple of block_bytes() (asserted)
  // and may be 0; any alignment. Throw Error{kInternal} if the library underneath fails.
  virtual void encrypt(MutableBytes blocks) const = 0;
  virtual void decrypt(MutableBytes blocks) const = 0;

  std::size_t block_bytes() const noexcept { return block_bytes_; }
  // The implementation that does the work, as SectorCipher::kernel().
  virtual std::string_view kernel() const noexcept = 0;

 protected:
  explicit BlockKey(std::size_t block_bytes) noexcept : block_bytes_(block_bytes) {}

 private:
  std::size_t block_bytes_;
};

// AES, Camellia, ARIA, SM4; the key has one of the cipher's sizes.
// Throws Error{kUnsupported} if the library lacks the cipher.
std::unique_ptr<BlockKey> make_openssl_block_key(BlockCipher cipher, ByteView key);

// Twofish with a key of 24 bytes.
std::unique_ptr<BlockKey> make_nettle_twofish_key(ByteView key);

// Serpent (any key up to 32 bytes), Twofish, Camellia, SM4, CAST5.
// Throws Error{kUnsupported} if the library lacks the cipher.
std::unique_ptr<BlockKey> make_gcrypt_block_key(BlockCipher cipher, ByteView key);

struct AesKernel;

// The fastest of the above; AES by `kernel` (see aes_kernel.h). Throws Error{kUnsupported} if there
// is none or if the cipher does not take a key of this size.
std::unique_ptr<BlockKey> make_block_key(BlockCipher cipher, ByteView key, const AesKernel& kernel);

}  // namespace lukskeep::crypto
