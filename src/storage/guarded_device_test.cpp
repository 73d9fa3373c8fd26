#include "storage/guarded_device.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "storage/faulty_device.h"
#include "storage/memory_device.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

TEST(GuardedDevice, PassesEverythingOn) {
  const auto below = std::make_shared<MemoryDevice>(Bytes(100, std::byte{1}));
  const auto device = make_guarded(below);
  EXPECT_EQ(device->name(), below->name());
  EXPECT_EQ(device->block_size_bytes(), below->block_size_bytes());
  EXPECT_TRUE(device->writable());
  device->write(10, Bytes(5, std::byte{2}));
  Bytes scratch(5, std::byte{3});
  device->write_in_place(20, scratch);
  device->write_zeroes(30, 5, ZeroMode::kAllocate);
  device->discard(90, 10);
  device->flush();
  EXPECT_EQ(device->extents(0, 100), below->extents(0, 100));
  Bytes expected(100, std::byte{1});
  std::fill_n(expected.begin() + 10, 5, std::byte{2});
  std::fill_n(expected.begin() + 20, 5, std::byte{3});
  std::fill_n(expected.begin() + 30, 5, std::byte{0});
  std::fill_n(expected.begin() + 90, 10, std::byte{0});
  Bytes back(100);
  device->read(0, back);
  EXPECT_EQ(back, expected);
  device->resize(120);
  EXPECT_EQ(device->size_bytes(), 120U);
}

// A range that is refused, or fails below, leaves nothing locked.
TEST(GuardedDevice, FailuresLeaveNothingLocked) {
  const auto below = std::make_shared<FaultyDevice>(
      Bytes(8192), FaultPlan{.eio_read_offset = 100, .eio_write_offset = 200});
  const auto device = make_guarded(below);
  Bytes byte(1);
  for (const std::uint64_t offset : {std::uint64_t{8192}, UINT64_MAX}) {
    EXPECT_EQ(code_of([&] { device->read(offset, byte); }), Code::kTooSmall);
    EXPECT_EQ(code_of([&] { device->write(offset, byte); }), Code::kTooSmall);
    EXPECT_EQ(code_of([&] { device->discard(offset, 1); }), Code::kTooSmall);
    EXPECT_EQ(code_of([&] { device->write_zeroes(1, offset, ZeroMode::kPunch); }), Code::kTooSmall);
  }
  EXPECT_EQ(code_of([&] { device->read(100, byte); }), Code::kIo);
  EXPECT_EQ(code_of([&] { device->write(200, byte); }), Code::kIo);
  device->write(100, byte);
  device->read(200, byte);
  device->resize(4096);
}

// MemoryDevice copies byte by byte with nothing in between: without the guard readers see halves.
TEST(GuardedDevice, ReadersSeeWholeWrites) {
  constexpr std::size_t kBytes = std::size_t{64} * 1024;
  const auto device = make_guarded(std::make_shared<MemoryDevice>(Bytes(kBytes)));
  std::atomic<bool> stop = false;
  std::atomic<int> torn = 0;
  {
    std::vector<std::jthread> threads;
    for (int writer = 1; writer <= 2; ++writer) {
      threads.emplace_back([&, writer] {
        const Bytes data(kBytes, static_cast<std::byte>(writer));
        while (!stop) device->write(0, data);
      });
    }
    for (int reader = 0; reader < 2; ++reader) {
      threads.emplace_back([&] {
        Bytes seen(kBytes);
        for (int round = 0; round < 500; ++round) {
          device->read(0, seen);
          if (std::adjacent_find(seen.begin(), seen.end(), std::not_equal_to<>()) != seen.end()) {
            ++torn;
          }
        }
      });
    }
    threads[2].join();
    threads[3].join();
    stop = true;
  }
  EXPECT_EQ(torn, 0);
}

}  // namespace
}  // namespace lukskeep::storage
