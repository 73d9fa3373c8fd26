// What the processor can do and the system lets programs use, as far as the kernels here ask.
#pragma once

#include <cstdint>

namespace lukskeep::crypto {

enum class CpuFeature : std::uint8_t {
  kAesNi,    // AES-NI and SSE4.1
  kAvx2,     // with ymm registers switched on by the system
  kAvx512,   // F, BW, DQ and VL, with zmm registers switched on by the system
  kVaes,     // AES instructions on whole ymm (and, with kAvx512, zmm) registers
  kVpclmul,  // the same for carry-less multiplication
};

// A set of features.
class CpuFeatures {
 public:
  constexpr CpuFeatures() noexcept = default;
  template <typename... Features>
  constexpr explicit CpuFeatures(Features... features) noexcept
      : bits_((0U | ... | (1U << static_cast<unsigned>(features)))) {}

  constexpr bool has(CpuFeature feature) const noexcept {
    return (bits_ >> static_cast<unsigned>(feature) & 1U) != 0;
  }
  constexpr bool has_all(CpuFeatures others) const noexcept {
    return (bits_ & others.bits_) == others.bits_;
  }
  constexpr CpuFeatures with(CpuFeature feature) const noexcept {
    return from_bits(bits_ | 1U << static_cast<unsigned>(feature));
  }
  constexpr CpuFeatures without(CpuFeature feature) const noexcept {
    return from_bits(bits_ & ~(1U << static_cast<unsigned>(feature)));
  }
  constexpr bool operator==(const CpuFeatures&) const noexcept = default;

 private:
  static constexpr CpuFeatures from_bits(unsigned bits) noexcept {
    CpuFeatures features;
    features.bits_ = bits;
    return features;
  }

  unsigned bits_ = 0;
};

// Those of this machine (CPUID and XGETBV, asked once); none on processors other than x86-64.
CpuFeatures cpu_features() noexcept;

}  // namespace lukskeep::crypto
