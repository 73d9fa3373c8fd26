// Stores of words, for loops that run once for every block.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lukskeep::crypto {

// As store_le and store_be of base/bytes.h, in one instruction each.
inline void put_le64(std::byte* p, std::uint64_t value) noexcept {
  if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value);
  std::memcpy(p, &value, sizeof(value));
}
inline void put_be64(std::byte* p, std::uint64_t value) noexcept {
  if constexpr (std::endian::native == std::endian::little) value = __builtin_bswap64(value);
  std::memcpy(p, &value, sizeof(value));
}

}  // namespace lukskeep::crypto
