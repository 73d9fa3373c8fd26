// Encrypts and decrypts batches of sectors, as dm-crypt does, without the kernel.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "crypto/cipher_spec.h"

namespace lukskeep::crypto {

// One key, one cipher, one sector size. All calls are const and may run concurrently on different
// data: an object holds only round keys (secret, wiped on destruction).
//
// `first_iv_sector` numbers the first sector in units of 512 bytes, as LUKS does whatever the
// sector size: the next sector of s bytes has first_iv_sector + s / 512. Numbers wrap at 2^64.
class SectorCipher {
 public:
  virtual ~SectorCipher() = default;
  SectorCipher(const SectorCipher&) = delete;
  SectorCipher& operator=(const SectorCipher&) = delete;

  // In place. data.size() must be a multiple of sector_size_bytes() (asserted). Any alignment.
  virtual void encrypt(std::uint64_t first_iv_sector, MutableBytes data) const = 0;
  virtual void decrypt(std::uint64_t first_iv_sector, MutableBytes data) const = 0;

  std::uint32_t sector_size_bytes() const noexcept { return sector_size_bytes_; }
  // The implementation that does the work, e.g. "vaes-avx512", "aesni", "portable", "gcrypt".
  virtual std::string_view kernel() const noexcept = 0;

 protected:
  explicit SectorCipher(std::uint32_t sector_size_bytes) noexcept
      : sector_size_bytes_(sector_size_bytes) {}

 private:
  std::uint32_t sector_size_bytes_;
};

// `sector_size_bytes` is a multiple of 512 from 512 to 4096, a power of two. Throws Error:
// kUnsupported (key size, cipher or hash not to be had), kInvalidArgument (sector size). An XTS key
// whose halves are equal is accepted: old volumes may have it. AES goes through the fastest kernel
// of this machine, or the one that the environment variable LUKSKEEP_KERNEL names (kUnsupported if
// that is unknown or needs a better processor, whatever the cipher).
std::unique_ptr<SectorCipher> make_sector_cipher(const CipherSpec& spec, ByteView key,
                                                 std::uint32_t sector_size_bytes);

// The same with AES by `kernel` (see aes_kernel.h), which this machine must be able to run.
struct AesKernel;
std::unique_ptr<SectorCipher> make_sector_cipher_on(const AesKernel& kernel, const CipherSpec& spec,
                                                    ByteView key, std::uint32_t sector_size_bytes);

}  // namespace lukskeep::crypto
