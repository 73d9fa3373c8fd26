#include "crypto/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace lukskeep::crypto {
namespace {

#if defined(__x86_64__)

constexpr bool bit(unsigned value, unsigned number) noexcept { return (value >> number & 1U) != 0; }

// XCR0: which registers the system saves on a context switch (Intel SDM volume 1, section 13.3).
std::uint32_t enabled_register_state() noexcept {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Intel SDM volume 2, CPUID leaves 1 and 7.
CpuFeatures detect() noexcept {
  constexpr std::uint32_t kYmmState = 0x06;  // SSE and AVX
  constexpr std::uint32_t kZmmState = 0xe6;  // and opmask, both halves of the zmm registers
  CpuFeatures found;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return found;
  if (bit(ecx, 25) && bit(ecx, 19)) found = found.with(CpuFeature::kAesNi);
  const bool has_xgetbv = bit(ecx, 27);
  const bool has_avx = bit(ecx, 28);
  if (!has_xgetbv || !has_avx) return found;
  const std::uint32_t state = enabled_register_state();
  if ((state & kYmmState) != kYmmState) return found;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return found;
  if (bit(ebx, 5)) found = found.with(CpuFeature::kAvx2);
  if (bit(ecx, 9)) found = found.with(CpuFeature::kVaes);
  if (bit(ecx, 10)) found = found.with(CpuFeature::kVpclmul);
  const bool has_avx512 = bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31);
  if (has_avx512 && (state & kZmmState) == kZmmState) found = found.with(CpuFeature::kAvx512);
  return found;
}

#else

CpuFeatures detect() noexcept { return {}; }

#endif

}  // namespace

CpuFeatures cpu_features() noexcept {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace lukskeep::crypto
