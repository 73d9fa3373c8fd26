#include "cli/units.h"

#include <array>
#include <string_view>
#include <utility>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep::cli {
namespace {

TEST(Units, SizesWithAndWithoutUnit) {
  constexpr std::array<std::pair<std::string_view, std::uint64_t>, 16> cases = {{
      {"0", 0},
      {"512", 512},
      {"512B", 512},
      {"4KiB", 4096},
      {"4K", 4096},
      {"4k", 4096},
      {"4kb", 4000},
      {"1M", 1048576},
      {"1MB", 1000000},
      {"10G", 10737418240},
      {"10gib", 10737418240},
      {"3T", 3298534883328},
      {"1P", 1125899906842624},
      {"7E", 8070450532247928832},
      {"9223372036854775807", 9223372036854775807},
      {"007", 7},
  }};
  for (const auto& [text, bytes] : cases) EXPECT_EQ(parse_size(text), bytes) << text;
}

TEST(Units, RefusesWhatIsNoSize) {
  for (const std::string_view text :
       {"", "K", "1.5G", "-1", "+1", "1 G", "1X", "1KiBs", "1GG", "8E", "9223372036854775808",
        "99999999999999999999", "0x10"}) {
    EXPECT_THROW(parse_size(text), Error) << text;
  }
}

TEST(Units, MemoryIsKibUnlessSaid) {
  EXPECT_EQ(parse_memory_kib("1048576"), 1048576U);
  EXPECT_EQ(parse_memory_kib("1GiB"), 1048576U);
  EXPECT_EQ(parse_memory_kib("32K"), 32U);
  EXPECT_THROW(parse_memory_kib("4294967296"), Error);
  EXPECT_THROW(parse_memory_kib("lots"), Error);
}

TEST(Units, NumbersFit32Bits) {
  EXPECT_EQ(parse_number("4294967295"), 4294967295U);
  for (const std::string_view text : {"", "4294967296", "-1", "1k", " 1"}) {
    EXPECT_THROW(parse_number(text), Error) << text;
  }
}

TEST(Units, KdfLimits) {
  const crypto::KdfLimit defaults;
  EXPECT_EQ(parse_kdf_limit("10s").seconds_max, 10U);
  EXPECT_EQ(parse_kdf_limit("10s").memory_kib_max, defaults.memory_kib_max);
  EXPECT_EQ(parse_kdf_limit("1GiB").memory_kib_max, 1048576U);
  EXPECT_EQ(parse_kdf_limit("1GiB").seconds_max, defaults.seconds_max);
  EXPECT_EQ(parse_kdf_limit("2M,7s").memory_kib_max, 2048U);
  EXPECT_EQ(parse_kdf_limit("2M,7s").seconds_max, 7U);
  for (const std::string_view text : {"", ",", "10", "10s,", "s", "10m5s", "1G,5"}) {
    EXPECT_THROW(parse_kdf_limit(text), Error) << text;
  }
}

TEST(Units, SizesForPeople) {
  EXPECT_EQ(human_size(0), "0 bytes");
  EXPECT_EQ(human_size(1), "1 byte");
  EXPECT_EQ(human_size(1023), "1023 bytes");
  EXPECT_EQ(human_size(1024), "1 KiB");
  EXPECT_EQ(human_size(1536), "1.5 KiB");
  EXPECT_EQ(human_size(1048575), "1023 KiB");
  EXPECT_EQ(human_size(10737418240), "10 GiB");
  EXPECT_EQ(human_size(10737418239), "9.9 GiB");
  EXPECT_EQ(human_size(18446744073709551615ULL), "15.9 EiB");
  EXPECT_EQ(exact_size(100), "100 bytes");
  EXPECT_EQ(exact_size(4096), "4 KiB (4096 bytes)");
}

TEST(Units, Durations) {
  EXPECT_EQ(human_duration(0), "0:00");
  EXPECT_EQ(human_duration(67), "1:07");
  EXPECT_EQ(human_duration(3600 * 25 + 61), "25:01:01");
}

}  // namespace
}  // namespace lukskeep::cli
