// FileDevice on a disk: a loop device, where the system lets us have one.
#include <algorithm>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include "base/limits.h"
#include "storage/file_device.h"
#include "storage/test_files.h"
#include "storage/unique_fd.h"

namespace lukskeep::storage {
namespace {

using limits::kMiB;

// Goes away with its last user.
class LoopDevice {
 public:
  LoopDevice(const std::string& file, bool read_only) {
    const UniqueFd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const int number = control.valid() ? ioctl(control.get(), LOOP_CTL_GET_FREE) : -1;
    if (number < 0) return;
    path_ = "/dev/loop" + std::to_string(number);
    const int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
    const UniqueFd backing(open(file.c_str(), flags));
    device_ = UniqueFd(open(path_.c_str(), flags));
    loop_config config{};
    config.fd = static_cast<__u32>(backing.get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (read_only) config.info.lo_flags |= LO_FLAGS_READ_ONLY;
    if (!device_.valid() || ioctl(device_.get(), LOOP_CONFIGURE, &config) != 0) path_.clear();
  }

  const std::string& path() const { return path_; }  // empty: there is none

 private:
  UniqueFd device_;
  std::string path_;
};

class BlockDevice : public testing::Test {
 protected:
  void attach(bool read_only = false) {
    if (!std::filesystem::exists(file_)) create_file(file_, kMiB).reset();
    loop_ = std::make_unique<LoopDevice>(file_, read_only);
  }
  std::unique_ptr<Device> open_writer() {
    return open_file(loop_->path(), {.access = Access::kReadWrite});
  }

  TemporaryDirectory directory_;
  std::string file_ = directory_.path("disk");
  std::unique_ptr<LoopDevice> loop_;
};

#define ATTACH_OR_SKIP(...) \
  attach(__VA_ARGS__);      \
  if (loop_->path().empty()) GTEST_SKIP() << "loop devices are not to be had here"

TEST_F(BlockDevice, HasTheSizeOfTheDiskAndKeepsIt) {
  ATTACH_OR_SKIP();
  const auto device = open_writer();
  EXPECT_EQ(device->size_bytes(), kMiB);
  EXPECT_EQ(device->block_size_bytes(), 512U);
  EXPECT_EQ(error_of([&] { device->resize(2 * kMiB); }).code(), Code::kUnsupported);
  EXPECT_EQ(error_of([&] { device->write(kMiB - 1, Bytes(2)); }).code(), Code::kTooSmall);
}

TEST_F(BlockDevice, WritesAndZeroesAtAnyPlace) {
  ATTACH_OR_SKIP();
  for (const ZeroMode mode : {ZeroMode::kAllocate, ZeroMode::kPunch}) {
    const auto device = open_writer();
    Bytes expected(kMiB, std::byte{7});
    device->write(0, expected);
    // Unaligned at both ends, inside one sector, aligned, across a sector boundary.
    const std::vector<Extent> places = {
        {1000, 100'000}, {200'001, 10}, {262'144, 131'072}, {511'990, 20}};
    for (const Extent& place : places) {
      device->write_zeroes(place.offset_bytes, place.length_bytes, mode);
      std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(place.offset_bytes),
                  place.length_bytes, std::byte{0});
    }
    device->flush();
    Bytes back(kMiB);
    device->read(0, back);
    EXPECT_EQ(back, expected);
    EXPECT_EQ(file_bytes(file_), expected);
  }
}

TEST_F(BlockDevice, PunchingGivesSpaceBack) {
  ATTACH_OR_SKIP();
  const auto device = open_writer();
  device->write(0, Bytes(kMiB, std::byte{7}));
  device->flush();
  const std::uint64_t before = allocated_bytes(file_);
  device->write_zeroes(100, kMiB - 200, ZeroMode::kPunch);
  device->flush();
  EXPECT_LT(allocated_bytes(file_), before / 4);
}

TEST_F(BlockDevice, OneWriterAtATime) {
  ATTACH_OR_SKIP();
  const auto writer = open_writer();
  const Error error = error_of([&] { open_writer(); });
  EXPECT_EQ(error.code(), Code::kBusy);
  EXPECT_NO_THROW(open_file(loop_->path(), {}));
  EXPECT_NO_THROW(open_file(loop_->path(), {.access = Access::kReadWrite, .lock = false}));
}

TEST_F(BlockDevice, WriteProtectedDiskIsRefusedOnOpening) {
  ATTACH_OR_SKIP(true);
  EXPECT_EQ(error_of([&] { open_writer(); }).code(), Code::kReadOnly);
  const auto reader = open_file(loop_->path(), {});
  EXPECT_EQ(error_of([&] { reader->write(0, Bytes(512)); }).code(), Code::kReadOnly);
}

}  // namespace
}  // namespace lukskeep::storage
