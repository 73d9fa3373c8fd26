#include "storage/window_device.h"

#include <gtest/gtest.h>

#include "base/limits.h"
#include "storage/file_device.h"
#include "storage/memory_device.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

std::shared_ptr<MemoryDevice> memory(std::size_t size) {
  return std::make_shared<MemoryDevice>(Bytes(size, std::byte{1}));
}

TEST(WindowDevice, ShowsAPart) {
  const auto below = memory(1000);
  const auto window = make_window(below, {.offset_bytes = 100, .size_bytes = 50});
  EXPECT_EQ(window->size_bytes(), 50U);
  EXPECT_EQ(window->name(), "window on 'memory' at 100");
  window->write(0, Bytes(50, std::byte{2}));
  window->write_zeroes(10, 5, ZeroMode::kAllocate);
  Bytes scratch(3, std::byte{4});
  window->write_in_place(47, scratch);
  Bytes expected(1000, std::byte{1});
  std::fill_n(expected.begin() + 100, 50, std::byte{2});
  std::fill_n(expected.begin() + 110, 5, std::byte{0});
  std::fill_n(expected.begin() + 147, 3, std::byte{4});
  EXPECT_EQ(below->contents(), expected);
  Bytes back(3);
  window->read(47, back);
  EXPECT_EQ(back, scratch);
}

TEST(WindowDevice, NothingBeyondItsEdgesIsTouched) {
  const auto below = memory(1000);
  const auto window = make_window(below, {.offset_bytes = 100, .size_bytes = 50});
  Bytes data(2);
  for (const std::uint64_t offset : {std::uint64_t{49}, std::uint64_t{50}, UINT64_MAX - 1}) {
    SCOPED_TRACE(offset);
    EXPECT_EQ(error_of([&] { window->read(offset, data); }).code(), Code::kTooSmall);
    EXPECT_EQ(error_of([&] { window->write(offset, data); }).code(), Code::kTooSmall);
    EXPECT_EQ(error_of([&] { window->write_in_place(offset, data); }).code(), Code::kTooSmall);
    EXPECT_EQ(error_of([&] { window->write_zeroes(offset, 2, ZeroMode::kPunch); }).code(),
              Code::kTooSmall);
    EXPECT_EQ(error_of([&] { static_cast<void>(window->extents(offset, 2)); }).code(),
              Code::kTooSmall);
  }
  EXPECT_EQ(below->contents(), Bytes(1000, std::byte{1}));
}

TEST(WindowDevice, MustFit) {
  const auto below = memory(1000);
  EXPECT_NO_THROW(make_window(below, {.offset_bytes = 1000}));
  EXPECT_NO_THROW(make_window(below, {.offset_bytes = 0, .size_bytes = 1000}));
  for (const WindowBounds& bounds :
       {WindowBounds{.offset_bytes = 1001}, WindowBounds{.offset_bytes = 1, .size_bytes = 1000},
        WindowBounds{.offset_bytes = 2, .size_bytes = UINT64_MAX}}) {
    EXPECT_EQ(error_of([&] { make_window(below, bounds); }).code(), Code::kTooSmall);
  }
}

TEST(WindowDevice, OpenEndMovesWithTheDeviceBelow) {
  const auto below = memory(1000);
  const auto open = make_window(below, {.offset_bytes = 900});
  const auto fixed = make_window(below, {.offset_bytes = 900, .size_bytes = 50});
  EXPECT_EQ(open->size_bytes(), 100U);
  open->resize(300);
  EXPECT_EQ(below->size_bytes(), 1200U);
  EXPECT_EQ(open->size_bytes(), 300U);
  EXPECT_EQ(error_of([&] { fixed->resize(60); }).code(), Code::kUnsupported);
  EXPECT_EQ(error_of([&] { open->resize(UINT64_MAX); }).code(), Code::kInvalidArgument);
  below->resize(920);
  EXPECT_EQ(fixed->size_bytes(), 20U);
  below->resize(10);
  EXPECT_EQ(open->size_bytes(), 0U);
}

TEST(WindowDevice, OfAWindow) {
  const auto below = memory(1000);
  const std::shared_ptr<Device> outer = make_window(below, {.offset_bytes = 100});
  const auto inner = make_window(outer, {.offset_bytes = 10, .size_bytes = 5});
  inner->write(0, Bytes(5, std::byte{9}));
  EXPECT_EQ(below->contents()[109], std::byte{1});
  EXPECT_EQ(below->contents()[110], std::byte{9});
  EXPECT_EQ(below->contents()[115], std::byte{1});
}

TEST(WindowDevice, ReadOnlyBelowIsReadOnly) {
  const auto window =
      make_window(std::make_shared<MemoryDevice>(Bytes(10), false), {.offset_bytes = 5});
  EXPECT_FALSE(window->writable());
  EXPECT_EQ(error_of([&] { window->write(0, Bytes(1)); }).code(), Code::kReadOnly);
  EXPECT_EQ(error_of([&] { window->write_zeroes(0, 1, ZeroMode::kPunch); }).code(),
            Code::kReadOnly);
  EXPECT_EQ(error_of([&] { window->resize(1); }).code(), Code::kReadOnly);
}

TEST(WindowDevice, MapsHolesInItsOwnOffsetsAndAlignsToItsStart) {
  const TemporaryDirectory directory("/dev/shm");
  const std::shared_ptr<Device> file = create_file(directory.path("x"), limits::kMiB);
  file->write(65536, Bytes(4096, std::byte{1}));
  const auto window = make_window(file, {.offset_bytes = 4096});
  const std::vector<Extent> expected = {{0, 61440, true}, {61440, 4096, false}, {65536, 100, true}};
  EXPECT_EQ(window->extents(0, 65636), expected);
  EXPECT_EQ(window->block_size_bytes(), 4096U);
  EXPECT_EQ(make_window(file, {.offset_bytes = 1024})->block_size_bytes(), 1024U);
  EXPECT_EQ(make_window(file, {.offset_bytes = 100})->block_size_bytes(), 512U);
}

}  // namespace
}  // namespace lukskeep::storage
