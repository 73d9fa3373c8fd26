#include "luks/key_material_check.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <string_view>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/faulty_device.h"
#include "storage/memory_device.h"

namespace lukskeep::luks {
namespace {

constexpr std::uint64_t kStart = 4096;
constexpr std::uint64_t kSize = 256'000;  // 500 blocks, as for a key of 64 bytes

// Random bytes, the same each time, between zeroes that do not belong to the area.
Bytes noise(std::uint32_t seed = 5) {
  std::mt19937 generator(seed);
  Bytes bytes(kStart + kSize + 4096);
  for (std::size_t i = kStart; i < kStart + kSize; ++i) {
    bytes[i] = static_cast<std::byte>(generator() >> 13);
  }
  return bytes;
}

MaterialCheck check(const Device& device) {
  return check_material(device, {.offset_bytes = kStart, .size_bytes = kSize}, nullptr);
}

TEST(KeyMaterialCheck, FindsNothingInNoise) {
  const MaterialCheck found = check(storage::MemoryDevice(noise()));
  EXPECT_TRUE(found.ranges.empty());
  EXPECT_EQ(found.blocks, 500U);
  EXPECT_EQ(found.bad_blocks, 0U);
}

TEST(KeyMaterialCheck, NamesThePlace) {
  struct Case {
    std::uint64_t offset_bytes;  // of what is overwritten, in the area
    std::uint64_t size_bytes;
    std::uint64_t first_bytes;  // of what is found
    std::uint64_t found_bytes;
    std::string_view is;
  };
  const std::array cases = {
      Case{0, 512, 0, 512, "zeroes"},
      Case{255'488, 512, 255'488, 512, "zeroes"},
      // Over the border of two pieces, and of two blocks.
      Case{limits::kCheckPieceBytes - 512, 1024, limits::kCheckPieceBytes - 512, 1024, "zeroes"},
      Case{10'000, 512, 9728, 1024, "data that is not random"},
      Case{20'000, 8, 19'968, 512, "data that is not random"},
      Case{0, kSize, 0, kSize, "zeroes"},
  };
  for (const Case& tested : cases) {
    Bytes bytes = noise();
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(kStart + tested.offset_bytes),
                tested.size_bytes, std::byte{0});
    const MaterialCheck found = check(storage::MemoryDevice(std::move(bytes)));
    ASSERT_EQ(found.ranges.size(), 1U) << tested.offset_bytes;
    EXPECT_EQ(found.ranges[0].offset_bytes, kStart + tested.first_bytes);
    EXPECT_EQ(found.ranges[0].size_bytes, tested.found_bytes);
    EXPECT_EQ(found.ranges[0].is, tested.is);
    EXPECT_FALSE(found.ranges[0].unreadable);
    EXPECT_EQ(found.bad_blocks, tested.found_bytes / 512);
  }
}

// Too little for any block of 512, enough for one of 4096: the whole of that is named.
TEST(KeyMaterialCheck, FindsASlightBias) {
  Bytes bytes = noise();
  for (std::size_t i = 8192; i < 12288; i += 12) bytes[kStart + i] &= std::byte{0x0f};
  const MaterialCheck found = check(storage::MemoryDevice(std::move(bytes)));
  ASSERT_EQ(found.ranges.size(), 1U);
  EXPECT_EQ(found.ranges[0].offset_bytes, kStart + 8192);
  EXPECT_EQ(found.ranges[0].size_bytes, 4096U);
}

TEST(KeyMaterialCheck, GoesOnAfterWhatCannotBeRead) {
  Bytes bytes = noise();
  std::fill_n(bytes.begin() + kStart + 200'192, 512, std::byte{'a'});
  const storage::FaultyDevice device(std::move(bytes), {.eio_read_offset = kStart + 70'000});
  const MaterialCheck found = check(device);
  ASSERT_EQ(found.ranges.size(), 2U);
  EXPECT_TRUE(found.ranges[0].unreadable);
  EXPECT_EQ(found.ranges[0].offset_bytes, kStart + 69'632);
  EXPECT_EQ(found.ranges[0].size_bytes, 4096U);
  EXPECT_FALSE(found.ranges[1].unreadable);
  EXPECT_EQ(found.ranges[1].offset_bytes, kStart + 200'192);
  EXPECT_EQ(found.ranges[1].is, "bytes 0x61");
  EXPECT_EQ(found.blocks, 500U);
  EXPECT_EQ(found.bad_blocks, 9U);
}

TEST(KeyMaterialCheck, CanBeCancelled) {
  CancelToken cancel;
  cancel.cancel();
  const storage::MemoryDevice device(noise());
  try {
    check_material(device, {.offset_bytes = kStart, .size_bytes = kSize}, &cancel);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInterrupted);
  }
}

}  // namespace
}  // namespace lukskeep::luks
