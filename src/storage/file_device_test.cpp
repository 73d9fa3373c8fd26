#include "storage/file_device.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <future>
#include <memory>
#include <random>

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "base/limits.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

using limits::kKiB;
using limits::kMiB;

constexpr FileOptions kWriter{.access = Access::kReadWrite};

// Memory-backed and disk file systems differ in what they know of holes.
class FileDeviceOn : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!std::filesystem::is_directory(GetParam())) GTEST_SKIP() << "no " << GetParam();
    directory_ = std::make_unique<TemporaryDirectory>(GetParam());
  }
  std::string path(const std::string& name = "x") const { return directory_->path(name); }

 private:
  std::unique_ptr<TemporaryDirectory> directory_;
};
INSTANTIATE_TEST_SUITE_P(Places, FileDeviceOn, testing::Values("/dev/shm", "/var/tmp"));

bool can_punch(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const bool can = ftruncate(fd, 8192) == 0 &&
                   fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0;
  close(fd);
  unlink(path.c_str());
  return can;
}

// Pages of the file that the page cache holds.
std::size_t cached_pages(const std::string& path, std::size_t size_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* map = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  std::vector<unsigned char> pages((size_bytes + 4095) / 4096);
  EXPECT_EQ(mincore(map, size_bytes, pages.data()), 0);
  munmap(map, size_bytes);
  return static_cast<std::size_t>(std::count_if(
      pages.begin(), pages.end(), [](unsigned char page) { return (page & 1U) != 0; }));
}

bool can_bypass_cache(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
  unlink(path.c_str());
  return fd >= 0;
}

TEST_P(FileDeviceOn, DirectRequestsGiveTheSameBytes) {
  constexpr std::size_t kSize = kMiB + 3;
  const auto seed = static_cast<std::uint64_t>(testing::UnitTest::GetInstance()->random_seed());
  SCOPED_TRACE(fmt::format("seed {}", seed));
  Random random(seed);
  Bytes expected(kSize);
  auto pending = std::make_unique<PendingFile>(path(), kSize, false);
  pending->use_direct_io();
  const std::unique_ptr<std::byte[], decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(4096, 2 * kMiB)), &std::free);
  for (int round = 0; round < 200; ++round) {
    const std::size_t grain = std::array<std::size_t, 3>{1, 512, 4096}[random.below(3)];
    const std::size_t offset = random.below(kSize) / grain * grain;
    const std::size_t length = std::min(kSize - offset, random.below(kSize) / grain * grain + 1);
    std::byte* at = memory.get() + random.below(2) * 8;
    const MutableBytes data(at, length);
    std::ranges::copy(random.bytes(length), data.begin());
    std::copy(data.begin(), data.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
    pending->device().write(offset, data);
  }
  MutableBytes back(memory.get(), kSize);
  pending->device().read(0, back);
  EXPECT_TRUE(std::equal(back.begin(), back.end(), expected.begin()));
  pending->commit();
  pending.reset();
  const auto reader = open_file(path(), {.direct = true});
  std::ranges::fill(back, std::byte{0});
  reader->read(0, back);
  EXPECT_TRUE(std::equal(back.begin(), back.end(), expected.begin()));
}

TEST(FileDevice, DirectRequestsLeaveThePageCacheAlone) {
  const TemporaryDirectory directory("/var/tmp");
  if (!can_bypass_cache(directory.path("probe"))) GTEST_SKIP() << "no O_DIRECT here";
  const std::string path = directory.path("x");
  const std::unique_ptr<std::byte[], decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(4096, kMiB)), &std::free);
  const MutableBytes data(memory.get(), kMiB);
  std::ranges::fill(data, std::byte{7});
  auto pending = std::make_unique<PendingFile>(path, kMiB, false);
  pending->use_direct_io();
  pending->device().write(0, data);
  pending->commit();
  pending.reset();
  EXPECT_EQ(cached_pages(path, kMiB), 0U);
  open_file(path, {.direct = true})->read(0, data);
  EXPECT_EQ(cached_pages(path, kMiB), 0U);
  open_file(path, {})->read(0, data);
  EXPECT_GT(cached_pages(path, kMiB), 0U);
}

TEST_P(FileDeviceOn, NewFileIsEmptyPrivateAndSparse) {
  const auto device = create_file(path(), kMiB);
  EXPECT_EQ(device->size_bytes(), kMiB);
  EXPECT_TRUE(device->writable());
  EXPECT_EQ(device->name(), path());
  Bytes back(kMiB, std::byte{1});
  device->read(0, back);
  EXPECT_TRUE(all_zero(back));
  EXPECT_LT(allocated_bytes(path()), kMiB);
  struct stat status{};
  ASSERT_EQ(stat(path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  EXPECT_EQ(error_of([&] { create_file(path(), 1); }).code(), Code::kExists);
}

// Random requests against the file and a model in memory.
TEST_P(FileDeviceOn, BehavesAsBytesInMemory) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Random random(seed);
  const auto below = [&](std::size_t bound) { return random.below(bound); };
  Bytes model(64 * kKiB);
  const auto device = create_file(path(), model.size());
  for (int step = 0; step < 400; ++step) {
    const std::size_t offset = below(model.size());
    const std::size_t length = below(std::min<std::size_t>(20000, model.size() - offset) + 1);
    const auto place = model.begin() + static_cast<std::ptrdiff_t>(offset);
    const std::size_t what = below(10);
    if (what < 5) {
      const Bytes data(length, static_cast<std::byte>(below(256)));
      device->write(offset, data);
      std::ranges::copy(data, place);
    } else if (what < 8) {
      device->write_zeroes(offset, length, what < 7 ? ZeroMode::kPunch : ZeroMode::kAllocate);
      std::fill_n(place, length, std::byte{0});
    } else if (what == 8) {
      const std::size_t size = 1 + below(128 * kKiB);
      device->resize(size);
      model.resize(size);
    } else {
      Bytes back(length);
      device->read(offset, back);
      ASSERT_TRUE(std::ranges::equal(back, std::span(place, length))) << "step " << step;
    }
    for (const Extent& extent : device->extents(0, device->size_bytes())) {
      if (!extent.zero) continue;
      ASSERT_TRUE(all_zero(ByteView(model).subspan(extent.offset_bytes, extent.length_bytes)))
          << "step " << step;
    }
  }
  device->flush();
  EXPECT_EQ(file_bytes(path()), model);
}

TEST_P(FileDeviceOn, KnowsItsHoles) {
  if (!can_punch(path("probe"))) GTEST_SKIP() << "this file system cannot punch holes";
  const auto device = create_file(path(), kMiB);
  const std::vector<Extent> empty = {{0, kMiB, true}};
  EXPECT_EQ(device->extents(0, kMiB), empty);
  device->write(256 * kKiB, Bytes(128 * kKiB, std::byte{1}));
  device->write(kMiB - 4096, Bytes(4096, std::byte{1}));
  const std::vector<Extent> mapped = {{0, 256 * kKiB, true},
                                      {256 * kKiB, 128 * kKiB, false},
                                      {384 * kKiB, 636 * kKiB, true},
                                      {1020 * kKiB, 4 * kKiB, false}};
  EXPECT_EQ(device->extents(0, kMiB), mapped);
  const std::vector<Extent> part = {{260 * kKiB, 124 * kKiB, false}, {384 * kKiB, 1, true}};
  EXPECT_EQ(device->extents(260 * kKiB, 124 * kKiB + 1), part);
  EXPECT_TRUE(device->extents(5, 0).empty());
  device->write_zeroes(0, kMiB, ZeroMode::kPunch);
  EXPECT_EQ(device->extents(0, kMiB), empty);
  EXPECT_EQ(allocated_bytes(path()), 0U);
}

TEST_P(FileDeviceOn, ZeroingThatKeepsTheSpaceGivesNoneBack) {
  const auto device = create_file(path(), kMiB);
  device->write(0, Bytes(kMiB, std::byte{1}));
  device->flush();
  const std::uint64_t before = allocated_bytes(path());
  device->write_zeroes(0, kMiB, ZeroMode::kAllocate);
  device->flush();
  EXPECT_GE(allocated_bytes(path()), before);
  EXPECT_TRUE(all_zero(file_bytes(path())));
}

TEST_P(FileDeviceOn, RequestsBeyondTheEndDoNothing) {
  const auto device = create_file(path(), 1000);
  device->write(0, Bytes(1000, std::byte{1}));
  Bytes data(10, std::byte{2});
  for (const std::uint64_t offset : {std::uint64_t{991}, std::uint64_t{1001}, UINT64_MAX - 4}) {
    SCOPED_TRACE(offset);
    EXPECT_EQ(error_of([&] { device->read(offset, data); }).code(), Code::kTooSmall);
    EXPECT_EQ(error_of([&] { device->write(offset, data); }).code(), Code::kTooSmall);
    EXPECT_EQ(error_of([&] { device->write_zeroes(offset, 10, ZeroMode::kPunch); }).code(),
              Code::kTooSmall);
    EXPECT_EQ(error_of([&] { static_cast<void>(device->extents(offset, 10)); }).code(),
              Code::kTooSmall);
  }
  EXPECT_EQ(file_bytes(path()), Bytes(1000, std::byte{1}));
  EXPECT_NO_THROW(device->write(1000, {}));
  EXPECT_EQ(error_of([&] { device->read(991, data); }).message(),
            "cannot read 10 bytes at offset 991 of '" + path() + "': it has only 1000 bytes");
}

TEST_P(FileDeviceOn, ReadOnlyMeansReadOnly) {
  put_file(path(), Bytes(1000, std::byte{1}));
  const auto device = open_file(path(), {});
  EXPECT_FALSE(device->writable());
  EXPECT_EQ(error_of([&] { device->write(0, Bytes(1)); }).code(), Code::kReadOnly);
  EXPECT_EQ(error_of([&] { device->write_zeroes(0, 1, ZeroMode::kPunch); }).code(),
            Code::kReadOnly);
  EXPECT_EQ(error_of([&] { device->resize(1); }).code(), Code::kReadOnly);
  EXPECT_NO_THROW(device->flush());
  EXPECT_EQ(file_bytes(path()), Bytes(1000, std::byte{1}));
}

TEST_P(FileDeviceOn, FileCutShortByOthersIsNoticed) {
  const auto device = create_file(path(), 8192);
  ASSERT_EQ(truncate(path().c_str(), 5000), 0);
  Bytes data(8192);
  const Error error = error_of([&] { device->read(0, data); });
  EXPECT_EQ(error.code(), Code::kTooSmall);
  EXPECT_EQ(error.message(),
            "cannot read 3192 bytes at offset 5000 of '" + path() + "': it has become shorter");
}

TEST_P(FileDeviceOn, FileCutShortByOthersHasNoHoleBehindItsEnd) {
  const auto device = create_file(path(), kMiB);
  device->write(0, Bytes(64 * kKiB, std::byte{1}));
  ASSERT_EQ(truncate(path().c_str(), 64 * kKiB), 0);
  for (const std::uint64_t offset : {std::uint64_t{0}, 64 * kKiB, 128 * kKiB}) {
    SCOPED_TRACE(offset);
    const Error error =
        error_of([&] { static_cast<void>(device->extents(offset, kMiB - offset)); });
    EXPECT_EQ(error.code(), Code::kTooSmall);
    EXPECT_EQ(error.message(),
              "cannot map '" + path() + "' up to byte 1048576: it has become shorter, 65536 bytes");
  }
  EXPECT_NO_THROW(static_cast<void>(device->extents(0, 64 * kKiB)));
}

TEST_P(FileDeviceOn, LocksExcludeWriters) {
  create_file(path(), 10).reset();
  {
    const auto reader = open_file(path(), {});
    EXPECT_NO_THROW(open_file(path(), {}));
    EXPECT_EQ(error_of([&] { open_file(path(), kWriter); }).code(), Code::kBusy);
    EXPECT_NO_THROW(open_file(path(), {.access = Access::kReadWrite, .lock = false}));
  }
  const auto writer = open_file(path(), kWriter);
  EXPECT_EQ(error_of([&] { open_file(path(), {}); }).code(), Code::kBusy);
  EXPECT_EQ(error_of([&] { open_file(path(), kWriter); }).code(), Code::kBusy);
  EXPECT_NO_THROW(open_file(path(), {.access = Access::kRead, .lock = false}));
}

TEST_P(FileDeviceOn, LocksWorkBetweenProcessesAndDieWithThem) {
  create_file(path(), 10).reset();
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    try {
      const auto device = open_file(path(), kWriter);
      if (write(ready[1], "x", 1) == 1) pause();
    } catch (const Error& error) {
      _exit(exit_status(error.code()));
    }
    _exit(0);
  }
  close(ready[1]);
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  EXPECT_EQ(error_of([&] { open_file(path(), kWriter); }).code(), Code::kBusy);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_NO_THROW(open_file(path(), kWriter));
}

TEST(FileDevice, OpensOnlyFilesAndDisks) {
  const TemporaryDirectory directory;
  ASSERT_EQ(mkfifo(directory.path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { open_file(directory.path("none"), {}); }).code(), Code::kNotFound);
  for (const FileOptions& options : {FileOptions{}, kWriter}) {
    const Error pipe = error_of([&] { open_file(directory.path("pipe"), options); });
    EXPECT_EQ(pipe.code(), Code::kUnsupported);
    EXPECT_EQ(pipe.message(), "cannot open '" + directory.path("pipe") + "': it is a pipe");
    EXPECT_EQ(error_of([&] { open_file(directory.path(""), options); }).code(), Code::kUnsupported);
    EXPECT_EQ(error_of([&] { open_file("/dev/null", options); }).code(), Code::kUnsupported);
  }
}

TEST(FileDevice, NamesInMessagesArePrintable) {
  const TemporaryDirectory directory;
  const auto device = create_file(directory.path("a\n\x1b[31m'"), 1);
  EXPECT_EQ(device->name(), directory.path("a\\x0a\\x1b[31m\\x27"));
}

TEST(FileDevice, NoPermissionIsSaid) {
  const TemporaryDirectory directory;
  create_file(directory.path("x"), 1).reset();
  ASSERT_EQ(chmod(directory.path("x").c_str(), 0), 0);
  ASSERT_EQ(chmod(directory.path("").c_str(), 0755), 0);
  const int status = in_child([&] {
    // Root may read anything: become somebody else.
    if (geteuid() == 0 && seteuid(65534) != 0) return kChildSkipped;
    return error_of([&] { open_file(directory.path("x"), {}); }).code() == Code::kPermissionDenied
               ? 0
               : 1;
  });
  if (status == kChildSkipped) GTEST_SKIP() << "cannot change identity";
  EXPECT_EQ(status, 0);
}

TEST(FileDevice, FileTooLargeForTheLimitIsNoSpace) {
  const TemporaryDirectory directory;
  EXPECT_EQ(in_child([&] {
              static_cast<void>(std::signal(SIGXFSZ, SIG_IGN));
              const auto device = create_file(directory.path("x"), 100'000);
              const rlimit limit{.rlim_cur = 50'000, .rlim_max = 50'000};
              if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
              const Error error = error_of([&] { device->write(0, Bytes(100'000)); });
              if (error.code() != Code::kNoSpace) return 2;
              if (error.message() != "cannot write 50000 bytes at offset 50000 of '" +
                                         device->name() + "': file too large") {
                return 3;
              }
              if (error_of([&] { device->resize(200'000); }).code() != Code::kNoSpace) return 4;
              return device->size_bytes() == 100'000 ? 0 : 5;
            }),
            0);
}

// cryptsetup reads and writes the metadata of a file under flock on the file.
TEST(FileDevice, MetadataIsLockedAgainstOtherPrograms) {
  const TemporaryDirectory directory;
  const std::string path = directory.path("x");
  const auto device = create_file(path, kMiB);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  {
    const auto lock = device->lock_metadata();
    ASSERT_TRUE(lock);
    EXPECT_NE(flock(fd, LOCK_SH | LOCK_NB), 0);
    EXPECT_TRUE(is_metadata_locked(path));
  }
  EXPECT_FALSE(is_metadata_locked(path));
  EXPECT_FALSE(is_metadata_locked(directory.path("absent")));
  ASSERT_EQ(flock(fd, LOCK_SH | LOCK_NB), 0);
  auto locked = std::async(std::launch::async, [&] { return device->lock_metadata(); });
  EXPECT_FALSE(is_metadata_locked(path));  // readers share it
  EXPECT_EQ(locked.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  flock(fd, LOCK_UN);
  EXPECT_TRUE(locked.get());
  close(fd);
}

TEST(FileDevice, FullDiskIsNoSpaceAndReadOnlyMountIsReadOnly) {
  const TemporaryDirectory directory;
  const int status = in_child([&] {
    if (!enter_mount_namespace()) return kChildSkipped;
    const std::string mount_point = directory.path("");
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=256k") != 0) {
      return kChildSkipped;
    }
    {
      const auto device = create_file(directory.path("x"), kMiB);
      const Error error = error_of([&] { device->write(0, Bytes(kMiB, std::byte{1})); });
      if (error.code() != Code::kNoSpace) return 1;
      if (!error.message().ends_with("no space left on device")) return 2;
    }
    if (mount("none", mount_point.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) return 3;
    if (error_of([&] { open_file(directory.path("x"), kWriter); }).code() != Code::kReadOnly) {
      return 4;
    }
    if (error_of([&] { create_file(directory.path("y"), 1); }).code() != Code::kReadOnly) return 5;
    return 0;
  });
  if (status == kChildSkipped) GTEST_SKIP() << "mount namespaces are not allowed here";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace lukskeep::storage
