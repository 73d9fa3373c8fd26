// The implementations of AES that sectors can go through, and which of them this machine uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "crypto/block_key.h"
#include "crypto/cipher_spec.h"
#include "crypto/cpu_features.h"
#include "crypto/mode_cipher.h"

namespace lukskeep::crypto {

// Room for the round keys of AES-256 in both directions; those of decryption are made for the
// equivalent inverse cipher (FIPS 197 section 5.3.5). Round keys are secrets: lives in KeyMemory.
struct AesSchedule {
  static constexpr std::size_t kBytes = std::size_t{15} * 16;
  alignas(64) std::byte encrypt[kBytes];
  alignas(64) std::byte decrypt[kBytes];
  std::uint32_t rounds;  // 10, 12 or 14
};

// Some units of one size, one after the other: as ModeCipher.
struct AesUnits {
  std::byte* data;
  std::size_t unit_bytes;  // a multiple of 16, at most 4096
  std::size_t count;       // at most ModeCipher::kUnitsMax
};

// What one instruction set does. Constant time: no branch and no address depends on a secret.
struct AesFunctions {
  void (*expand_key)(ByteView key, AesSchedule& schedule);
  void (*ecb_encrypt)(const AesSchedule& key, std::byte* blocks, std::size_t count);
  void (*ecb_decrypt)(const AesSchedule& key, std::byte* blocks, std::size_t count);
  // `tweaks`: the first tweak of each unit, 16 bytes each (the encrypted data unit number).
  void (*xts_encrypt)(const AesSchedule& key, const std::byte* tweaks, AesUnits units);
  void (*xts_decrypt)(const AesSchedule& key, const std::byte* tweaks, AesUnits units);
  void (*cbc_encrypt)(const AesSchedule& key, const std::byte* ivs, AesUnits units);
  void (*cbc_decrypt)(const AesSchedule& key, const std::byte* ivs, AesUnits units);
};

struct AesKernel {
  std::string_view name;
  CpuFeatures needed;
  const AesFunctions* functions;  // null: OpenSSL, block by block of a batch
};

// Those that are built in, best first; the last one is "portable" and needs nothing.
std::span<const AesKernel> aes_kernels() noexcept;

// The best that a machine with these features can run.
const AesKernel& pick_aes_kernel(CpuFeatures features) noexcept;

// The one of that name. Throws Error{kUnsupported} if there is none or `features` lack what it
// needs.
const AesKernel& require_aes_kernel(std::string_view name, CpuFeatures features);

// What new ciphers use: the best, or what the environment variable LUKSKEEP_KERNEL names (read at
// each call). Throws as require_aes_kernel.
const AesKernel& aes_kernel_in_force();

// AES in any mode by that kernel, which this machine must be able to run.
std::unique_ptr<BlockKey> make_aes_block_key(const AesKernel& kernel, ByteView key);
// Null if the kernel has no code of its own for the mode: then its block keys serve.
std::unique_ptr<ModeCipher> make_aes_mode_cipher(const AesKernel& kernel, CipherMode mode,
                                                 ByteView key);

}  // namespace lukskeep::crypto
