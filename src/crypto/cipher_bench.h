// Measures sector ciphers: what `lukskeep bench ciphers` prints.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <lukskeep/progress.h>

#include "crypto/cipher_spec.h"

namespace lukskeep::crypto {

struct CipherBenchCase {
  CipherSpec spec;
  std::uint32_t key_size_bytes = 0;
  std::uint32_t sector_size_bytes = 512;
};

struct CipherBenchRow {
  std::string cipher;  // to_string of the spec
  std::uint32_t key_bits = 0;
  std::uint32_t sector_bytes = 0;
  std::string direction;  // "encrypt" or "decrypt"
  std::string kernel;     // SectorCipher::kernel(), or "openssl-per-sector" for the baseline
  double bytes_per_second = 0;

  double nanoseconds_per_sector() const noexcept { return sector_bytes * 1e9 / bytes_per_second; }
};

// What people use: AES-XTS with 256 and 512 bits, AES-CBC-ESSIV, Serpent, Twofish and the others in
// XTS with their largest key; each with sectors of 512 and 4096 bytes.
std::vector<CipherBenchCase> default_cipher_bench_cases();

// Both directions of every kernel of this machine that can do `test_case`, best last, with buffers
// of 1 MiB on the calling thread, about `per_row` for each row; the rate is for the CPU time of
// that thread. For AES-XTS and AES-CBC-ESSIV the first rows are those of the kernel
// "openssl-per-sector": one EVP call with a fresh IV for each sector (OpenSSL has no AES-XTS with
// 192 bits: then they are missing). The rows of a case are measured in turns, so that all of them
// see the same moods of the machine; the result is the median of the turns. LUKSKEEP_KERNEL is
// ignored. Throws as make_sector_cipher; Error{kInterrupted} between turns if `cancel` (may be
// null) asks.
std::vector<CipherBenchRow> bench_cipher(const CipherBenchCase& test_case,
                                         std::chrono::milliseconds per_row,
                                         const CancelToken* cancel = nullptr);

}  // namespace lukskeep::crypto
