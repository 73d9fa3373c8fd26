#include "crypto/random.h"

#include <algorithm>
#include <array>

#include <gtest/gtest.h>

namespace lukskeep::crypto {
namespace {

TEST(Random, FillsEveryByteOfLongRequests) {
  // Longer than what getrandom() promises to give in one piece (256 bytes).
  Bytes bytes(1 << 20);
  random_fill(bytes);
  std::array<std::size_t, 256> counts{};
  for (const std::byte b : bytes) ++counts[std::to_integer<std::size_t>(b)];
  // 4096 of each value are expected; the standard deviation is 64.
  EXPECT_GT(*std::min_element(counts.begin(), counts.end()), 4096U - 12 * 64);
  EXPECT_LT(*std::max_element(counts.begin(), counts.end()), 4096U + 12 * 64);
}

TEST(Random, GivesWhatWasAskedForAndNeverTheSame) {
  EXPECT_TRUE(random_bytes(0).empty());
  EXPECT_EQ(random_bytes(33).size(), 33U);
  EXPECT_NE(random_bytes(32), random_bytes(32));
  const SecretBytes a = random_secret(64);
  const SecretBytes b = random_secret(64);
  EXPECT_EQ(a.size(), 64U);
  EXPECT_FALSE(equal_constant_time(a.span(), b.span()));
  EXPECT_TRUE(random_secret(0).empty());
}

}  // namespace
}  // namespace lukskeep::crypto
