#include "luks/noise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstdint>
#include <numbers>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace lukskeep::luks {
namespace {

using Complex = std::complex<double>;

std::vector<Complex> roots_of_unity(std::size_t count) {
  std::vector<Complex> roots(count);
  for (std::size_t i = 0; i < count; ++i) {
    roots[i] =
        std::polar(1.0, 2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(count));
  }
  return roots;
}

// The exact distribution of Q = Σ o_v (o_v - 1) / 2 = (S - n) / 2 for n uniform bytes, modulo
// `period`, which is far more than the values that have any probability to speak of.
//
// With independent Poisson counts k of mean n/256, the pair (Σ k, Q) has the characteristic
// function f(θ, ψ)^256, f = Σ_k p_k exp(i (θ k + ψ k(k-1)/2)). Both are turned back on a grid: at
// Σ k = n for θ (the grid's period is 8 standard deviations at least), and for every Q for ψ.
class PairDistribution {
 public:
  PairDistribution(std::size_t n, std::size_t sums, std::size_t period)
      : n_(n), period_(period), sum_roots_(roots_of_unity(sums)), roots_(roots_of_unity(period)) {
    const double mean = static_cast<double>(n) / 256;
    const int most = static_cast<int>(mean + 20 * std::sqrt(mean) + 10);
    for (int k = 0; k < most; ++k) {
      poisson_.push_back(std::exp(k * std::log(mean) - mean - std::lgamma(k + 1)));
    }
    std::vector<Complex> spectrum(period);
    // The other half are conjugates: the distribution is real.
    for (std::size_t j = 0; j <= period / 2; ++j) {
      spectrum[j] = at_sum_n(j);
      spectrum[(period - j) % period] = std::conj(spectrum[j]);
    }
    invert(spectrum);
  }

  // P(first <= Q <= last), for a range shorter than the period.
  double probability(std::size_t first, std::size_t last) const {
    double sum = 0;
    for (std::size_t q = first; q <= last; ++q) sum += density_[q % period_];
    return sum;
  }

 private:
  // What is left of f^256 at ψ = 2π j / period, where Σ k = n.
  Complex at_sum_n(std::size_t j) const {
    std::vector<Complex> terms(poisson_.size());
    for (std::size_t k = 0; k < terms.size(); ++k) {
      terms[k] = poisson_[k] * roots_[k == 0 ? 0 : j * (k * (k - 1) / 2) % period_];
    }
    Complex sum = 0;
    for (std::size_t t = 0; t < sum_roots_.size(); ++t) {
      Complex f = 0;
      for (std::size_t k = 0; k < terms.size(); ++k) {
        f += terms[k] * sum_roots_[t * k % sum_roots_.size()];
      }
      for (int squaring = 0; squaring < 8; ++squaring) f *= f;
      sum += f * std::conj(sum_roots_[t * n_ % sum_roots_.size()]);
    }
    return sum;
  }

  void invert(const std::vector<Complex>& spectrum) {
    density_.resize(period_);
    double total = 0;
    for (std::size_t q = 0; q < period_; ++q) {
      double sum = 0;
      for (std::size_t j = 0; j < period_; ++j) {
        const Complex root = roots_[j * q % period_];
        sum += spectrum[j].real() * root.real() + spectrum[j].imag() * root.imag();
      }
      density_[q] = sum;
      total += sum;
    }
    for (double& value : density_) value /= total;
  }

  std::size_t n_;
  std::size_t period_;
  std::vector<Complex> sum_roots_;
  std::vector<Complex> roots_;
  std::vector<double> poisson_;
  std::vector<double> density_;
};

struct Tails {
  double low = 0;
  double high = 0;
};

// Exact probabilities that a random block of `n` bytes is taken for no noise.
Tails false_alarms(std::size_t n, std::size_t sums, std::size_t period) {
  const PairDistribution pairs(n, sums, period);
  const NoiseBounds bounds = noise_bounds(n);
  const std::size_t mean = n * (n - 1) / 512;
  const std::size_t begin = mean - std::min(mean, period / 2);
  // S has the parity of n, which is even.
  const std::size_t low = (bounds.min - 1 - n) / 2;
  const std::size_t high = (bounds.max + 1 - n) / 2;
  return {.low = pairs.probability(begin, low),
          .high = pairs.probability(high, begin + period - 1)};
}

TEST(Noise, HasTheFalseAlarmsThatTheHeaderStates) {
  const Tails small = false_alarms(kNoiseBlockBytes, 256, 1024);
  EXPECT_NEAR(small.high, 4.265e-10, 0.005e-10);
  EXPECT_NEAR(small.low, 4.367e-10, 0.005e-10);
  const Tails large = false_alarms(kNoiseLargeBlockBytes, 512, 4096);
  EXPECT_NEAR(large.high, 4.920e-10, 0.005e-10);
  EXPECT_NEAR(large.low, 4.769e-10, 0.005e-10);
  const double run = std::pow(2.0, -56);
  const double area =
      512 * (small.low + small.high) + 64 * (large.low + large.high) + std::pow(2.0, 18) * run;
  EXPECT_LT(area, 1e-6);
  EXPECT_EQ(kNoiseRunBytes, 8U);
}

// The distribution above against what small cases can be counted to be: of two bytes, S is 4 if
// they are equal (1 in 256), else 2.
TEST(Noise, CountsSquares) {
  EXPECT_EQ(sum_of_squared_counts(Bytes{}), 0U);
  EXPECT_EQ(sum_of_squared_counts(as_byte_view("ab")), 2U);
  EXPECT_EQ(sum_of_squared_counts(as_byte_view("aa")), 4U);
  EXPECT_EQ(sum_of_squared_counts(Bytes(512)), 512U * 512U);
  const PairDistribution two(2, 64, 64);
  EXPECT_NEAR(two.probability(0, 0), 255.0 / 256, 1e-12);
  EXPECT_NEAR(two.probability(1, 1), 1.0 / 256, 1e-12);
}

// Random bytes that are the same each time.
Bytes seeded(std::size_t size, std::uint32_t seed) {
  std::mt19937 generator(seed);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(generator() >> 13);
  return bytes;
}

TEST(Noise, AcceptsRandomBytes) {
  const Bytes bytes = seeded(std::size_t{1} << 20, 4);
  for (std::size_t at = 0; at < bytes.size(); at += kNoiseLargeBlockBytes) {
    const ByteView large = ByteView(bytes).subspan(at, kNoiseLargeBlockBytes);
    EXPECT_TRUE(has_random_counts(large)) << sum_of_squared_counts(large);
    EXPECT_FALSE(has_long_run(large));
    for (std::size_t i = 0; i < large.size(); i += kNoiseBlockBytes) {
      const ByteView small = large.subspan(i, kNoiseBlockBytes);
      EXPECT_TRUE(has_random_counts(small)) << sum_of_squared_counts(small);
    }
  }
}

TEST(Noise, FindsWhatOverwritesKeyMaterial) {
  Bytes counter(kNoiseBlockBytes);
  for (std::size_t i = 0; i < counter.size(); ++i) counter[i] = static_cast<std::byte>(i);
  Bytes text(kNoiseBlockBytes, std::byte{'x'});
  const std::string_view words = "the quick brown fox jumps over the lazy dog\n";
  for (std::size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<std::byte>(words[i % words.size()]);
  }
  Bytes superblock(kNoiseBlockBytes);
  superblock[0x38] = std::byte{0x53};
  superblock[0x39] = std::byte{0xef};
  superblock[0x100] = std::byte{0x80};
  Bytes half = seeded(kNoiseBlockBytes, 1);
  std::fill(half.begin() + 100, half.begin() + 140, std::byte{0});
  struct Case {
    Bytes block;
    std::string_view is;
  };
  const std::array cases = {
      Case{Bytes(kNoiseBlockBytes), "zeroes"},
      Case{Bytes(kNoiseBlockBytes, std::byte{0xff}), "bytes 0xff"},
      Case{text, "text"},
      Case{superblock, "an ext superblock"},
      Case{counter, "data that is not random"},
      Case{half, "data that is not random"},
  };
  for (const Case& tested : cases) {
    EXPECT_FALSE(has_random_counts(tested.block)) << tested.is;
    EXPECT_EQ(describe_no_noise(tested.block), tested.is);
  }
}

// Four bits of eight bytes in a hundred: too little for a block of 512.
TEST(Noise, FindsASlightBiasInLargeBlocks) {
  Bytes block = seeded(kNoiseLargeBlockBytes, 2);
  for (std::size_t i = 0; i < block.size(); i += 12) block[i] &= std::byte{0x0f};
  for (std::size_t i = 0; i < block.size(); i += kNoiseBlockBytes) {
    EXPECT_TRUE(has_random_counts(ByteView(block).subspan(i, kNoiseBlockBytes)));
  }
  EXPECT_FALSE(has_random_counts(block)) << sum_of_squared_counts(block);
}

TEST(Noise, FindsRuns) {
  EXPECT_FALSE(has_long_run(Bytes(7)));
  EXPECT_TRUE(has_long_run(Bytes(8)));
  Bytes block = seeded(kNoiseBlockBytes, 3);
  EXPECT_FALSE(has_long_run(block));
  std::fill(block.end() - 8, block.end(), std::byte{7});
  EXPECT_TRUE(has_long_run(block));
  EXPECT_FALSE(has_long_run(ByteView(block).first(block.size() - 1)));
}

}  // namespace
}  // namespace lukskeep::luks
