// CRC-32 of GPT (ISO 3309) and CRC-32C of VHDX (Castagnoli), both reflected.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace lukskeep::image {

inline constexpr std::uint32_t kCrc32Polynomial = 0xedb88320;
inline constexpr std::uint32_t kCrc32cPolynomial = 0x82f63b78;

template <std::uint32_t kPolynomial>
class Crc {
 public:
  void add(ByteView bytes) noexcept {
    for (const std::byte byte : bytes) {
      state_ = kTable[(state_ ^ std::to_integer<std::uint32_t>(byte)) & 0xff] ^ (state_ >> 8);
    }
  }
  std::uint32_t value() const noexcept { return ~state_; }

 private:
  static constexpr std::array<std::uint32_t, 256> make_table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) * kPolynomial);
      table[i] = value;
    }
    return table;
  }
  static constexpr std::array<std::uint32_t, 256> kTable = make_table();

  std::uint32_t state_ = 0xffffffff;
};

// Of `bytes` with the four bytes at `hole` taken for zero: where such structures keep their own.
template <std::uint32_t kPolynomial>
std::uint32_t crc_with_hole(ByteView bytes, std::size_t hole) {
  constexpr std::array<std::byte, 4> kZeroes{};
  Crc<kPolynomial> crc;
  crc.add(bytes.first(hole));
  crc.add(kZeroes);
  crc.add(bytes.subspan(hole + kZeroes.size()));
  return crc.value();
}

}  // namespace lukskeep::image
