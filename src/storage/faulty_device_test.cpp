#include "storage/faulty_device.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

constexpr std::size_t kSector = 512;

Bytes filled(std::size_t sectors, unsigned value) {
  Bytes bytes(sectors * kSector, static_cast<std::byte>(value));
  return bytes;
}

TEST(FaultyDevice, WithoutFaultsIsAPlainDevice) {
  FaultyDevice device(filled(4, 0), {});
  device.write(100, filled(1, 7));
  Bytes back(kSector);
  device.read(100, back);
  EXPECT_EQ(back, filled(1, 7));
  device.write_zeroes(100, 412, ZeroMode::kPunch);
  device.resize(5 * kSector);
  device.flush();
  EXPECT_EQ(device.operations(), 4U);
  EXPECT_FALSE(device.crashed());
  Bytes expected = filled(5, 0);
  std::fill_n(expected.begin() + 512, 100, std::byte{7});
  EXPECT_EQ(device.after_crash(), expected);
  EXPECT_EQ(code_of([&] { device.write(5 * kSector, Bytes(1)); }), Code::kTooSmall);
}

TEST(FaultyDevice, PowerFailsAtTheChosenRequestAndStaysAway) {
  FaultyDevice device(filled(4, 0), {.crash_at_operation = 2});
  device.write(0, filled(1, 1));
  device.flush();
  EXPECT_EQ(code_of([&] { device.write(kSector, filled(1, 2)); }), Code::kIo);
  EXPECT_TRUE(device.crashed());
  Bytes back(kSector);
  EXPECT_EQ(code_of([&] { device.read(0, back); }), Code::kIo);
  EXPECT_EQ(code_of([&] { device.flush(); }), Code::kIo);
  EXPECT_EQ(code_of([&] { device.resize(1); }), Code::kIo);
  Bytes expected = filled(4, 0);
  std::fill_n(expected.begin(), kSector, std::byte{1});
  EXPECT_EQ(device.after_crash(), expected);
}

// Which of four unflushed sectors survive, over many seeds: every subset must come up, and what
// was flushed before must never be lost.
TEST(FaultyDevice, UnflushedWritesSurviveInEverySubset) {
  std::set<unsigned> subsets;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    FaultyDevice device(filled(5, 0),
                        {.seed = seed, .crash_at_operation = 6, .reorder_unflushed = true});
    device.write(4 * kSector, filled(1, 9));
    device.flush();
    for (std::size_t i = 0; i < 4; ++i) device.write(i * kSector, filled(1, 1));
    EXPECT_THROW(device.flush(), Error);
    const Bytes medium = device.after_crash();
    EXPECT_EQ(medium, device.after_crash()) << "not repeatable";
    EXPECT_EQ(medium[4 * kSector], std::byte{9});
    unsigned subset = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      if (medium[i * kSector] == std::byte{1}) subset |= 1U << i;
    }
    subsets.insert(subset);
  }
  EXPECT_EQ(subsets.size(), 16U);
}

TEST(FaultyDevice, UnflushedWritesToOnePlaceComeInEitherOrder) {
  std::set<std::byte> seen;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    FaultyDevice device(filled(1, 0), {.seed = seed, .reorder_unflushed = true});
    device.write(0, filled(1, 1));
    device.write(0, filled(1, 2));
    seen.insert(device.after_crash()[0]);
  }
  EXPECT_EQ(seen, (std::set<std::byte>{std::byte{0}, std::byte{1}, std::byte{2}}));
}

TEST(FaultyDevice, WithoutReorderingAllWritesBeforeTheCrashSurvive) {
  FaultyDevice device(filled(2, 0), {.crash_at_operation = 2});
  device.write(0, filled(1, 1));
  device.write(kSector, filled(1, 2));
  EXPECT_THROW(device.write(0, filled(2, 3)), Error);
  Bytes expected = filled(2, 1);
  std::fill_n(expected.begin() + kSector, kSector, std::byte{2});
  EXPECT_EQ(device.after_crash(), expected);
}

TEST(FaultyDevice, TornWriteKeepsSectorsWhole) {
  std::set<Bytes> media;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    FaultyDevice device(filled(4, 0), {.seed = seed, .crash_at_operation = 0, .torn_writes = true});
    // Starts inside sector 0 and ends inside sector 3.
    EXPECT_THROW(device.write(100, Bytes(1500, std::byte{5})), Error);
    const Bytes medium = device.after_crash();
    for (std::size_t sector = 0; sector < 4; ++sector) {
      const std::size_t start = std::max<std::size_t>(100, sector * kSector);
      const std::size_t end = std::min<std::size_t>(1600, (sector + 1) * kSector);
      for (std::size_t i = start; i < end; ++i) ASSERT_EQ(medium[i], medium[start]);
    }
    EXPECT_EQ(medium[99], std::byte{0});
    EXPECT_EQ(medium[1600], std::byte{0});
    media.insert(medium);
  }
  EXPECT_EQ(media.size(), 16U);
}

TEST(FaultyDevice, LostFlushLeavesWritesInTheCache) {
  bool lost = false;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    FaultyDevice device(filled(1, 0),
                        {.seed = seed, .reorder_unflushed = true, .lose_flush = true});
    device.write(0, filled(1, 1));
    device.flush();
    lost = lost || device.after_crash() == filled(1, 0);
  }
  EXPECT_TRUE(lost);
}

TEST(FaultyDevice, ResizesSurviveInOrder) {
  std::set<std::size_t> sizes;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    FaultyDevice device(filled(1, 1), {.seed = seed, .reorder_unflushed = true});
    device.resize(3 * kSector);
    device.write(2 * kSector, filled(1, 3));
    device.resize(2 * kSector);
    const Bytes medium = device.after_crash();
    sizes.insert(medium.size() / kSector);
    if (medium.size() == 2 * kSector) {
      EXPECT_EQ(medium[kSector], std::byte{0});
    }
  }
  EXPECT_EQ(sizes, (std::set<std::size_t>{1, 2, 3}));
}

TEST(FaultyDevice, BadPlacesAndFullDiskNameTheOffset) {
  FaultyDevice device(
      filled(4, 0), {.eio_read_offset = 700, .eio_write_offset = 1024, .no_space_at_bytes = 1536});
  Bytes back(kSector);
  EXPECT_NO_THROW(device.read(0, back));
  EXPECT_NO_THROW(device.read(1024, back));
  EXPECT_EQ(code_of([&] { device.read(512, back); }), Code::kIo);
  EXPECT_NO_THROW(device.write(512, back));
  EXPECT_EQ(code_of([&] { device.write_zeroes(513, 512, ZeroMode::kAllocate); }), Code::kIo);
  EXPECT_EQ(code_of([&] { device.write(1100, back); }), Code::kNoSpace);
  EXPECT_EQ(code_of([&] { device.resize(4096); }), Code::kNoSpace);
  try {
    device.read(512, back);
  } catch (const Error& error) {
    EXPECT_EQ(error.message(),
              "cannot read 512 bytes at offset 512 of 'faulty device': medium error");
  }
}

}  // namespace
}  // namespace lukskeep::storage
