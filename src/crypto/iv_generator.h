// The IV of each sector, as dm-crypt makes it (Linux drivers/md/dm-crypt.c, crypt_iv_*_ops).
#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "crypto/block_key.h"
#include "crypto/cipher_spec.h"
#include "crypto/mode_cipher.h"

namespace lukskeep::crypto {

// Thread-safe.
class IvSource {
 public:
  // `mode` must outlive the object; `key` is the whole key of the construction (ESSIV hashes it;
  // its AES goes through `kernel`).
  // Throws Error{kUnsupported} if ESSIV's digest is no key for the cipher.
  IvSource(const CipherSpec& spec, ByteView key, std::uint32_t sector_size_bytes,
           const ModeCipher& mode, const AesKernel& kernel);

  // Writes the IVs of ivs.size() / block size sectors, of which the first has the number
  // `first_iv_sector` and the next ones sector_size_bytes / 512 more each (at most
  // ModeCipher::kUnitsMax of them).
  void fill(std::uint64_t first_iv_sector, MutableBytes ivs) const;

 private:
  void write_numbers(std::uint64_t iv_sector, MutableBytes ivs) const noexcept;
  void encrypt_eboiv(MutableBytes ivs) const;

  IvGenerator generator_;
  std::size_t iv_bytes_;
  std::uint32_t sector_size_bytes_;
  unsigned benbi_shift_ = 0;
  const ModeCipher* mode_;
  std::unique_ptr<BlockKey> essiv_;
};

}  // namespace lukskeep::crypto
