#include "storage/memory_device.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/limits.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

TEST(MemoryDevice, ReadsBackWhatIsWritten) {
  MemoryDevice device(Bytes(100));
  device.write(10, Bytes(5, std::byte{7}));
  Bytes back(7);
  device.read(9, back);
  const Bytes expected = {std::byte{0}, std::byte{7}, std::byte{7}, std::byte{7},
                          std::byte{7}, std::byte{7}, std::byte{0}};
  EXPECT_EQ(back, expected);
  EXPECT_NO_THROW(device.read(100, MutableBytes()));
  EXPECT_EQ(error_of([&] { device.read(94, back); }).code(), Code::kTooSmall);
  EXPECT_EQ(error_of([&] { device.write(UINT64_MAX, back); }).code(), Code::kTooSmall);
}

TEST(MemoryDevice, GrowsWithZeroesAndShrinks) {
  MemoryDevice device(Bytes(4, std::byte{1}));
  device.resize(2);
  device.resize(4);
  const Bytes expected = {std::byte{1}, std::byte{1}, std::byte{0}, std::byte{0}};
  EXPECT_EQ(device.contents(), expected);
  EXPECT_EQ(error_of([&] { device.resize(UINT64_MAX); }).code(), Code::kOutOfMemory);
  EXPECT_EQ(device.size_bytes(), 4U);
}

TEST(MemoryDevice, ReadOnlyRefusesChanges) {
  MemoryDevice device(Bytes(10, std::byte{1}), false);
  EXPECT_FALSE(device.writable());
  EXPECT_EQ(error_of([&] { device.write(0, Bytes(1)); }).code(), Code::kReadOnly);
  EXPECT_EQ(error_of([&] { device.write_zeroes(0, 1, ZeroMode::kAllocate); }).code(),
            Code::kReadOnly);
  EXPECT_EQ(error_of([&] { device.resize(1); }).code(), Code::kReadOnly);
  EXPECT_EQ(device.contents(), Bytes(10, std::byte{1}));
}

TEST(MemoryDevice, MayGrowWhileOthersWrite) {
  MemoryDevice device(Bytes(4096));
  {
    std::vector<std::jthread> writers;
    writers.reserve(4);
    for (unsigned i = 0; i < 4; ++i) {
      writers.emplace_back([&device, i] {
        for (unsigned round = 0; round < 500; ++round) {
          device.write(std::uint64_t{i} * 1024, Bytes(1024, static_cast<std::byte>(i + 1)));
        }
      });
    }
    for (std::size_t size = 8192; size < limits::kMiB; size += 8192) device.resize(size);
  }
  for (std::size_t i = 0; i < 4096; ++i) {
    ASSERT_EQ(device.contents()[i], static_cast<std::byte>(i / 1024 + 1));
  }
}

// The parts of Device that a kind of storage inherits.
TEST(Device, DefaultZeroesAreWrittenInPieces) {
  const std::size_t size = 2 * limits::kMiB + 1000;
  MemoryDevice device(Bytes(size, std::byte{1}));
  device.write_zeroes(1, size - 2, ZeroMode::kPunch);
  Bytes expected(size);
  expected.front() = std::byte{1};
  expected.back() = std::byte{1};
  EXPECT_EQ(device.contents(), expected);
  const Bytes before = device.contents();
  EXPECT_EQ(error_of([&] { device.write_zeroes(0, size + 1, ZeroMode::kPunch); }).code(),
            Code::kTooSmall);
  EXPECT_EQ(device.contents(), before);
}

TEST(Device, DefaultKnowsNoHolesAndNoResizing) {
  MemoryDevice device(Bytes(100));
  const std::vector<Extent> expected = {{10, 20, false}};
  EXPECT_EQ(device.Device::extents(10, 20), expected);
  EXPECT_TRUE(device.Device::extents(10, 0).empty());
  const Error error = error_of([&] { device.Device::resize(1); });
  EXPECT_EQ(error.code(), Code::kUnsupported);
  EXPECT_EQ(error.message(), "cannot resize 'memory'");
}

}  // namespace
}  // namespace lukskeep::storage
