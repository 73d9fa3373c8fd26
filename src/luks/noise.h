// Whether bytes that should look random do: how damage to key material shows without any key.
//
// Split and encrypted key material cannot be told from uniform random bytes. What overwrites it
// (zeroes, text, metadata of a file system) can. Three tests, none of which knows what is there:
//
// 1. Chi-squared over byte values, per block. Of n uniform bytes each value is expected e = n/256
//    times; with o_v the times that value v occurs,
//
//        X² = Σ_v (o_v - e)² / e = 256/n Σ_v o_v² - n
//
//    has mean 255 and variance about 510. For n = 512, e is 2, too few for the chi-squared
//    distribution to hold where it matters, far out. So the bounds are not taken from it. S = Σ
//    o_v² is a whole number whose exact distribution is known: the counts are 256 independent
//    Poisson variables on condition that their sum is n, and the sum over all outcomes is a
//    coefficient of the 256th power of one generating function. noise_test.cpp computes it and
//    checks:
//
//        n = 512    P(S >= 1890)  = 4.27e-10  (X² >= 433.0)   P(S <= 1308)  = 4.37e-10  (X² <=
//        142.0) n = 4096   P(S >= 72252) = 4.92e-10  (X² >= 419.8)   P(S <= 67782) = 4.77e-10  (X²
//        <= 140.4)
//
//    Low values count too: bytes that are spread too evenly (a counter, a table) are no noise.
// 2. The same over blocks of 4096 bytes, for a bias that is too slight for 512.
// 3. A run of at least 8 equal bytes, which a small overwrite leaves. Such a run starts at a given
//    byte with probability 256^-7 = 1.4e-17.
//
// A false alarm somewhere in an area of 256 KiB (512 small blocks, 64 large ones, 2^18 starts of
// runs) has a probability of at most
//
//        512 * 8.64e-10 + 64 * 9.69e-10 + 2^18 * 1.4e-17 = 5.1e-7 < 1e-6.
//
// What is found: 24 equal bytes or more anywhere in a random block of 512 as a rule (o_v rises from
// 2 to about 26, X² by about 280), a run of 8 always. What is not: other noise, such as key
// material of another volume, or compressed data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace lukskeep::luks {

inline constexpr std::size_t kNoiseBlockBytes = 512;
inline constexpr std::size_t kNoiseLargeBlockBytes = 4096;
inline constexpr std::size_t kNoiseRunBytes = 8;

// Of S: random from `min` to `max`.
struct NoiseBounds {
  std::uint64_t min = 0;
  std::uint64_t max = 0;
};
// `block_bytes` is one of the two above.
NoiseBounds noise_bounds(std::size_t block_bytes) noexcept;

// Σ o_v².
std::uint64_t sum_of_squared_counts(ByteView bytes) noexcept;

// Tests 1 or 2. `block` has kNoiseBlockBytes or kNoiseLargeBlockBytes.
bool has_random_counts(ByteView block) noexcept;
// Test 3; any size.
bool has_long_run(ByteView bytes) noexcept;

// What stands where noise should, for messages: "zeroes", "bytes 0xff", "text", "an ext
// superblock", or "data that is not random".
std::string describe_no_noise(ByteView block);

}  // namespace lukskeep::luks
