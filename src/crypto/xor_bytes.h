// The XOR of byte strings, eight bytes at a time; the compiler makes vectors of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lukskeep::crypto {

// target[i] ^= source[i]. The two may not overlap; any alignment.
inline void xor_bytes(std::byte* __restrict target, const std::byte* __restrict source,
                      std::size_t size_bytes) noexcept {
  std::size_t i = 0;
  for (; i + sizeof(std::uint64_t) <= size_bytes; i += sizeof(std::uint64_t)) {
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    std::memcpy(&a, target + i, sizeof(a));
    std::memcpy(&b, source + i, sizeof(b));
    a ^= b;
    std::memcpy(target + i, &a, sizeof(a));
  }
  for (; i < size_bytes; ++i) target[i] ^= source[i];
}

}  // namespace lukskeep::crypto
