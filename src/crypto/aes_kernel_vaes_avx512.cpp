// AES by VAES on 512-bit registers: four blocks in each, 32 (a whole sector of 512 bytes) at a
// time.
#include "crypto/aes_functions.h"

#if defined(LUKSKEEP_SIMD) && defined(__x86_64__)

#include <algorithm>
#include <cstring>

// GCC 12 sees uninitialised values in its own header (its bug 105593).
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <lukskeep/secret_bytes.h>

#define AES_TARGET [[gnu::target("aes,avx2,avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]]
#define AES_INLINE [[gnu::always_inline]] AES_TARGET inline

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kBlockBytes = 16;
constexpr std::size_t kGroup = 8;
constexpr std::size_t kChains = 8;
constexpr std::size_t kLanes = 4;
using Vec = __m512i;

AES_INLINE Vec load(const std::byte* p) { return _mm512_loadu_si512(p); }
AES_INLINE void store(std::byte* p, Vec v) { _mm512_storeu_si512(p, v); }
AES_INLINE Vec broadcast(const std::byte* p) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
AES_INLINE Vec bit_xor(Vec a, Vec b) { return _mm512_xor_si512(a, b); }
AES_INLINE Vec encrypt_round(Vec s, Vec k) { return _mm512_aesenc_epi128(s, k); }
AES_INLINE Vec encrypt_last(Vec s, Vec k) { return _mm512_aesenclast_epi128(s, k); }
AES_INLINE Vec decrypt_round(Vec s, Vec k) { return _mm512_aesdec_epi128(s, k); }
AES_INLINE Vec decrypt_last(Vec s, Vec k) { return _mm512_aesdeclast_epi128(s, k); }
AES_INLINE Vec xor_three(Vec a, Vec b, Vec c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }

// x^128 = x^7 + x^2 + x + 1: what falls out at the top comes back times this.
AES_INLINE Vec reduction() { return _mm512_set_epi64(0, 0x87, 0, 0x87, 0, 0x87, 0, 0x87); }

// Lane j times x^counts[j], of which both words of the lane have the count (below 64).
AES_INLINE Vec times_x_to(Vec t, Vec counts) {
  // NOLINTNEXTLINE(portability-simd-intrinsics): this file is for one instruction set
  const Vec fallen_out = _mm512_srlv_epi64(t, _mm512_sub_epi64(_mm512_set1_epi64(64), counts));
  const Vec into_high = _mm512_bslli_epi128(fallen_out, 8);
  const Vec comes_back = _mm512_clmulepi64_epi128(fallen_out, reduction(), 0x01);
  return xor_three(_mm512_sllv_epi64(t, counts), into_high, comes_back);
}

template <int kBytes>
AES_INLINE Vec times_x_to_bytes(Vec t) {
  const Vec fallen_out = _mm512_bsrli_epi128(t, 16 - kBytes);
  const Vec comes_back = _mm512_clmulepi64_epi128(fallen_out, reduction(), 0x00);
  return bit_xor(_mm512_bslli_epi128(t, kBytes), comes_back);
}

AES_INLINE void first_tweaks(const std::byte* block, Vec* t) {
  const Vec all = broadcast(block);
  t[0] = times_x_to(all, _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0));
  t[1] = times_x_to(all, _mm512_set_epi64(7, 7, 6, 6, 5, 5, 4, 4));
  t[2] = times_x_to_bytes<1>(t[0]);
  t[3] = times_x_to_bytes<1>(t[1]);
  t[4] = times_x_to_bytes<2>(t[0]);
  t[5] = times_x_to_bytes<2>(t[1]);
  t[6] = times_x_to_bytes<3>(t[0]);
  t[7] = times_x_to_bytes<3>(t[1]);
}

AES_INLINE void next_tweaks(Vec* t) {
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kGroup; ++i) t[i] = times_x_to_bytes<4>(t[i]);
}

AES_INLINE Vec shift_in(Vec before, Vec now) { return _mm512_alignr_epi64(now, before, 6); }

AES_INLINE void transpose(Vec* rows) {
  const Vec low01 = _mm512_shuffle_i32x4(rows[0], rows[1], 0x44);
  const Vec low23 = _mm512_shuffle_i32x4(rows[2], rows[3], 0x44);
  const Vec high01 = _mm512_shuffle_i32x4(rows[0], rows[1], 0xee);
  const Vec high23 = _mm512_shuffle_i32x4(rows[2], rows[3], 0xee);
  rows[0] = _mm512_shuffle_i32x4(low01, low23, 0x88);
  rows[1] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
  rows[2] = _mm512_shuffle_i32x4(high01, high23, 0x88);
  rows[3] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
}

#include "crypto/aes_kernel_body.inc"

}  // namespace

const AesFunctions kVaesAvx512Functions = kFunctions;

}  // namespace lukskeep::crypto

#endif
