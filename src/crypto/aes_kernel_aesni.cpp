// AES by AES-NI: one block in a register, eight of them at a time.
#include "crypto/aes_functions.h"

#if defined(LUKSKEEP_SIMD) && defined(__x86_64__)

#include <algorithm>
#include <bit>
#include <cstring>

#include <immintrin.h>
#include <lukskeep/secret_bytes.h>

#define AES_TARGET [[gnu::target("aes,sse4.1")]]
#define AES_INLINE [[gnu::always_inline]] AES_TARGET inline

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kBlockBytes = 16;
constexpr std::size_t kGroup = 8;
constexpr std::size_t kChains = 8;
constexpr std::size_t kLanes = 1;
using Vec = __m128i;

AES_INLINE Vec load(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
AES_INLINE void store(std::byte* p, Vec v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
AES_INLINE Vec broadcast(const std::byte* p) { return load(p); }
AES_INLINE Vec bit_xor(Vec a, Vec b) { return _mm_xor_si128(a, b); }
AES_INLINE Vec encrypt_round(Vec s, Vec k) { return _mm_aesenc_si128(s, k); }
AES_INLINE Vec encrypt_last(Vec s, Vec k) { return _mm_aesenclast_si128(s, k); }
AES_INLINE Vec decrypt_round(Vec s, Vec k) { return _mm_aesdec_si128(s, k); }
AES_INLINE Vec decrypt_last(Vec s, Vec k) { return _mm_aesdeclast_si128(s, k); }

// Times x modulo x^128 + x^7 + x^2 + x + 1: both halves shift, and what falls out of one goes into
// the other, or comes back as 0x87.
AES_INLINE Vec times_x(Vec t) {
  const Vec fallen_out = _mm_srai_epi32(_mm_shuffle_epi32(t, 0x13), 31);
  const Vec comes_back = _mm_and_si128(fallen_out, _mm_set_epi32(0, 1, 0, 0x87));
  return _mm_xor_si128(_mm_slli_epi64(t, 1), comes_back);
}

AES_INLINE void first_tweaks(const std::byte* block, Vec* t) {
  t[0] = load(block);
#pragma GCC unroll 8
  for (std::size_t i = 1; i < kGroup; ++i) t[i] = times_x(t[i - 1]);
}

AES_INLINE void next_tweaks(Vec* t) {
  t[0] = times_x(t[kGroup - 1]);
#pragma GCC unroll 8
  for (std::size_t i = 1; i < kGroup; ++i) t[i] = times_x(t[i - 1]);
}

AES_INLINE Vec shift_in(Vec before, Vec /*now*/) { return before; }
AES_INLINE void transpose(Vec* /*rows*/) {}

#include "crypto/aes_kernel_body.inc"

// FIPS 197 SubWord, by the instruction and so without a table.
AES_INLINE std::uint32_t sub_word(std::uint32_t word) {
  const Vec at_one = _mm_set_epi32(0, 0, static_cast<int>(word), 0);
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_aeskeygenassist_si128(at_one, 0)));
}

}  // namespace

AES_TARGET void aesni_expand_key(ByteView key, AesSchedule& schedule) {
  const std::size_t key_words = key.size() / 4;
  schedule.rounds = static_cast<std::uint32_t>(key_words + 6);
  const std::size_t words = 4 * (schedule.rounds + std::size_t{1});
  std::ranges::copy(key, schedule.encrypt);
  std::uint32_t round_constant = 1;
  for (std::size_t i = key_words; i < words; ++i) {
    std::uint32_t word = 0;
    std::memcpy(&word, schedule.encrypt + 4 * (i - 1), sizeof(word));
    if (i % key_words == 0) {
      word = std::rotr(sub_word(word), 8) ^ round_constant;
      round_constant = round_constant << 1 ^ (round_constant >> 7) * 0x11b;
    } else if (key_words == 8 && i % key_words == 4) {
      word = sub_word(word);
    }
    std::uint32_t before = 0;
    std::memcpy(&before, schedule.encrypt + 4 * (i - key_words), sizeof(before));
    word ^= before;
    std::memcpy(schedule.encrypt + 4 * i, &word, sizeof(word));
  }
  const std::byte* const last = schedule.encrypt + schedule.rounds * kBlockBytes;
  store(schedule.decrypt, load(last));
  for (std::size_t i = 1; i < schedule.rounds; ++i) {
    store(schedule.decrypt + i * kBlockBytes, _mm_aesimc_si128(load(last - i * kBlockBytes)));
  }
  store(schedule.decrypt + schedule.rounds * kBlockBytes, load(schedule.encrypt));
}

const AesFunctions kAesNiFunctions = kFunctions;

}  // namespace lukskeep::crypto

#endif
