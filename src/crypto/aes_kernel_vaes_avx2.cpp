// AES by VAES on 256-bit registers: two blocks in each, sixteen at a time.
#include "crypto/aes_functions.h"

#if defined(LUKSKEEP_SIMD) && defined(__x86_64__)

#include <algorithm>
#include <cstring>

#include <immintrin.h>
#include <lukskeep/secret_bytes.h>

#define AES_TARGET [[gnu::target("aes,avx2,vaes,vpclmulqdq")]]
#define AES_INLINE [[gnu::always_inline]] AES_TARGET inline

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kBlockBytes = 16;
constexpr std::size_t kGroup = 8;
constexpr std::size_t kChains = 8;
constexpr std::size_t kLanes = 2;
using Vec = __m256i;

AES_INLINE Vec load(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
AES_INLINE void store(std::byte* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
AES_INLINE Vec broadcast(const std::byte* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
AES_INLINE Vec bit_xor(Vec a, Vec b) { return _mm256_xor_si256(a, b); }
AES_INLINE Vec encrypt_round(Vec s, Vec k) { return _mm256_aesenc_epi128(s, k); }
AES_INLINE Vec encrypt_last(Vec s, Vec k) { return _mm256_aesenclast_epi128(s, k); }
AES_INLINE Vec decrypt_round(Vec s, Vec k) { return _mm256_aesdec_epi128(s, k); }
AES_INLINE Vec decrypt_last(Vec s, Vec k) { return _mm256_aesdeclast_epi128(s, k); }

// x^128 = x^7 + x^2 + x + 1: what falls out at the top comes back times this.
AES_INLINE Vec reduction() { return _mm256_set_epi64x(0, 0x87, 0, 0x87); }

// Lane j times x^counts[j], of which the low half has the count (below 64) in both words.
AES_INLINE Vec times_x_to(Vec t, Vec counts) {
  // NOLINTNEXTLINE(portability-simd-intrinsics): this file is for one instruction set
  const Vec fallen_out = _mm256_srlv_epi64(t, _mm256_sub_epi64(_mm256_set1_epi64x(64), counts));
  const Vec into_high = _mm256_bslli_epi128(fallen_out, 8);
  const Vec comes_back = _mm256_clmulepi64_epi128(fallen_out, reduction(), 0x01);
  return bit_xor(bit_xor(_mm256_sllv_epi64(t, counts), into_high), comes_back);
}

template <int kBytes>
AES_INLINE Vec times_x_to_bytes(Vec t) {
  const Vec fallen_out = _mm256_bsrli_epi128(t, 16 - kBytes);
  const Vec comes_back = _mm256_clmulepi64_epi128(fallen_out, reduction(), 0x00);
  return bit_xor(_mm256_bslli_epi128(t, kBytes), comes_back);
}

AES_INLINE void first_tweaks(const std::byte* block, Vec* t) {
  const Vec all = broadcast(block);
  t[0] = times_x_to(all, _mm256_set_epi64x(1, 1, 0, 0));
  t[1] = times_x_to(all, _mm256_set_epi64x(3, 3, 2, 2));
  t[2] = times_x_to(all, _mm256_set_epi64x(5, 5, 4, 4));
  t[3] = times_x_to(all, _mm256_set_epi64x(7, 7, 6, 6));
#pragma GCC unroll 4
  for (std::size_t i = 4; i < kGroup; ++i) t[i] = times_x_to_bytes<1>(t[i - 4]);
}

AES_INLINE void next_tweaks(Vec* t) {
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kGroup; ++i) t[i] = times_x_to_bytes<2>(t[i]);
}

AES_INLINE Vec shift_in(Vec before, Vec now) {
  return _mm256_permute2x128_si256(before, now, 0x21);
}

AES_INLINE void transpose(Vec* rows) {
  const Vec first = _mm256_permute2x128_si256(rows[0], rows[1], 0x20);
  rows[1] = _mm256_permute2x128_si256(rows[0], rows[1], 0x31);
  rows[0] = first;
}

#include "crypto/aes_kernel_body.inc"

}  // namespace

const AesFunctions kVaesAvx2Functions = kFunctions;

}  // namespace lukskeep::crypto

#endif
