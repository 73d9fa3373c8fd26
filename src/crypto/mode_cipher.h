// Block cipher modes over many units (sectors) at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "crypto/block_key.h"
#include "crypto/cipher_spec.h"

namespace lukskeep::crypto {

// A unit is a message of its own with its own IV: a sector. All calls are const and may run
// concurrently.
class ModeCipher {
 public:
  // More units than this are handed over in several calls: IVs fit on the stack.
  static constexpr std::size_t kUnitsMax = 64;
  static constexpr std::size_t kBlockBytesMax = 16;

  virtual ~ModeCipher() = default;
  ModeCipher(const ModeCipher&) = delete;
  ModeCipher& operator=(const ModeCipher&) = delete;

  // In place. `data` is ivs.size() / block_bytes() units (at most kUnitsMax) of one size, a
  // multiple of block_bytes() up to 4096; the IV of each is block_bytes() bytes of `ivs`, which
  // serves as scratch space and holds nothing useful afterwards.
  virtual void encrypt(MutableBytes ivs, MutableBytes data) const = 0;
  virtual void decrypt(MutableBytes ivs, MutableBytes data) const = 0;

  std::size_t block_bytes() const noexcept { return block_bytes_; }
  virtual std::string_view kernel() const noexcept = 0;

 protected:
  explicit ModeCipher(std::size_t block_bytes) noexcept : block_bytes_(block_bytes) {}

 private:
  std::size_t block_bytes_;
};

// Any cipher but kNull in any mode that it has; `key` has one of the sizes of key_sizes_bytes();
// AES goes through `kernel`.
std::unique_ptr<ModeCipher> make_mode_cipher(const CipherSpec& spec, ByteView key,
                                             const AesKernel& kernel);

}  // namespace lukskeep::crypto
