// What the tests of ciphers share.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "crypto/aes_kernel.h"

namespace lukskeep::crypto {

// Hex digits, blanks between them allowed.
inline Bytes hex(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c != ' ') digits += c;
  }
  const std::optional<Bytes> bytes = from_hex(digits);
  if (!bytes) throw std::invalid_argument("not hex: " + digits);
  return *bytes;
}

// Bytes that look random and are the same in every run.
inline Bytes pattern(std::size_t size_bytes, std::uint64_t seed) {
  Bytes bytes(size_bytes);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15U + 1;
  for (std::byte& b : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    b = static_cast<std::byte>(state >> 32);
  }
  return bytes;
}

inline std::vector<const AesKernel*> usable_kernels() {
  std::vector<const AesKernel*> usable;
  for (const AesKernel& kernel : aes_kernels()) {
    if (cpu_features().has_all(kernel.needed)) usable.push_back(&kernel);
  }
  return usable;
}

inline const AesKernel& portable_kernel() { return aes_kernels().back(); }

}  // namespace lukskeep::crypto
