#include "luks/guess_rate.h"

#include <array>
#include <cstdint>
#include <string_view>

#include <gtest/gtest.h>

namespace lukskeep::luks {
namespace {

Kdf pbkdf2(std::string_view hash, std::uint32_t iterations) {
  Kdf kdf;
  kdf.type_name = "pbkdf2";
  kdf.hash = hash;
  kdf.iterations = iterations;
  return kdf;
}

Kdf argon2(std::uint32_t time, std::uint32_t memory_kib) {
  Kdf kdf;
  kdf.type = Kdf::Type::kArgon2id;
  kdf.type_name = "argon2id";
  kdf.iterations = time;
  kdf.memory_kib = memory_kib;
  kdf.parallel = 4;
  return kdf;
}

// -1 if it is unknown.
double rate(const Kdf& kdf, std::uint32_t key_size_bytes) {
  return guesses_per_second(kdf, key_size_bytes).value_or(-1);
}

TEST(GuessRate, FollowsFromTheCosts) {
  struct Case {
    std::string_view name;
    Kdf kdf;
    std::uint32_t key_size_bytes;
    double rate;
  };
  const std::array cases = {
      Case{"one block", pbkdf2("sha256", 1000), 32, 11e6},
      Case{"two blocks", pbkdf2("sha256", 1000), 64, 5.5e6},
      Case{"sha1 needs four", pbkdf2("SHA1", 1000), 64, 6.325e6},
      Case{"sha512", pbkdf2("sha512", 1000), 64, 3.75e6},
      Case{"other hashes as sha256", pbkdf2("ripemd160", 1000), 20, 11e6},
      Case{"the largest cost", pbkdf2("sha256", 4294967295), 32, 2.5611},
      Case{"cryptsetup's argon2", argon2(4, 1048576), 64, 117.35},
      Case{"in the cache", argon2(4, 32), 64, 19.226e6},
  };
  for (const Case& tested : cases) {
    EXPECT_NEAR(rate(tested.kdf, tested.key_size_bytes), tested.rate, tested.rate * 1e-3)
        << tested.name;
  }
}

TEST(GuessRate, TakesWhatOwaspAsksForAsEnough) {
  EXPECT_GT(rate(pbkdf2("sha256", 600'000), 32), 18'000);
  EXPECT_GT(rate(argon2(2, 19 * 1024), 64), 12'000);
  EXPECT_LT(rate(pbkdf2("sha256", 600'000), 32), kWeakGuessesPerSecond);
  EXPECT_LT(rate(argon2(2, 19 * 1024), 64), kWeakGuessesPerSecond);
  EXPECT_GT(rate(pbkdf2("sha256", 100'000), 64), kWeakGuessesPerSecond);
}

TEST(GuessRate, IsUnknownForWhatIsUnknown) {
  EXPECT_FALSE(guesses_per_second(pbkdf2("nohash", 1000), 64));
  EXPECT_FALSE(guesses_per_second(pbkdf2("sha256", 0), 64));
  EXPECT_FALSE(guesses_per_second(argon2(4, 0), 64));
  Kdf unknown;
  unknown.type = Kdf::Type::kUnknown;
  unknown.iterations = 1;
  EXPECT_FALSE(guesses_per_second(unknown, 64));
}

// 62^8 / 2 = 1.09e14 guesses.
TEST(GuessRate, TellsHowLongAPassphraseLasts) {
  EXPECT_NEAR(seconds_to_find(8, 1e6), 1.0917e8, 1e4);
  EXPECT_NEAR(seconds_to_find(1, 31), 1, 1e-9);
}

}  // namespace
}  // namespace lukskeep::luks
