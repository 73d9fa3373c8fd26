#include "storage/copy.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "storage/faulty_device.h"
#include "storage/file_device.h"
#include "storage/memory_device.h"
#include "storage/test_files.h"
#include "storage/window_device.h"

namespace lukskeep::storage {
namespace {

using limits::kKiB;
using limits::kMiB;

// Memory that notes how it is used, and scratches what it is given to write in place.
class WatchedDevice : public Device {
 public:
  explicit WatchedDevice(Bytes contents) : memory_(std::move(contents)) {}

  const Bytes& contents() const { return memory_.contents(); }
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> zeroed_bytes{0};
  std::atomic<std::uint64_t> largest_request_bytes{0};

  std::string name() const override { return "watched"; }
  std::uint64_t size_bytes() const override { return memory_.size_bytes(); }
  bool writable() const override { return true; }
  std::uint32_t block_size_bytes() const override { return 512; }
  void read(std::uint64_t offset, MutableBytes out) const override { memory_.read(offset, out); }
  void write(std::uint64_t, ByteView) override { FAIL() << "not in place"; }
  void write_in_place(std::uint64_t offset, MutableBytes data) override {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data.data()) % 512, 0U);
    memory_.write(offset, data);
    written_bytes += data.size();
    for (auto seen = largest_request_bytes.load();
         seen < data.size() && !largest_request_bytes.compare_exchange_weak(seen, data.size());) {
    }
    std::ranges::fill(data, std::byte{0xee});
  }
  void write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroMode mode) override {
    EXPECT_EQ(mode, ZeroMode::kPunch);
    memory_.write_zeroes(offset, length, mode);
    zeroed_bytes += length;
  }
  void flush() override { FAIL() << "copying does not flush"; }

 private:
  MemoryDevice memory_;
};

struct Shape {
  std::size_t length_bytes;
  std::size_t chunk_bytes;
  unsigned threads;
};

class CopyShape : public testing::TestWithParam<Shape> {};

TEST_P(CopyShape, CopiesExactlyTheBytesAskedFor) {
  const auto [length, chunk, threads] = GetParam();
  for (const Holes holes : {Holes::kFill, Holes::kKeep}) {
    const MemoryDevice source(random_bytes(length + 100, 1));
    WatchedDevice destination{Bytes(length + 50, std::byte{7})};
    copy(source, destination, length, {.holes = holes, .threads = threads, .chunk_bytes = chunk});
    Bytes expected(source.contents().begin(),
                   source.contents().begin() + static_cast<std::ptrdiff_t>(length));
    expected.resize(length + 50, std::byte{7});
    EXPECT_EQ(destination.contents(), expected);
    EXPECT_EQ(destination.written_bytes, length);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CopyShape,
                         testing::Values(Shape{0, kMiB, 2}, Shape{1, kMiB, 2}, Shape{511, kMiB, 1},
                                         Shape{4096, 4096, 2}, Shape{4097, 4096, 3},
                                         Shape{100'001, 4096, 4}, Shape{196'608, 65536, 0},
                                         Shape{3'000'017, 256 * kKiB, 2}, Shape{3'000'017, 0, 8},
                                         Shape{1'000'003, 5000, 2}));

TEST(Copy, KeepsHolesOfTheSourceAndMakesThemOfZeroes) {
  const TemporaryDirectory directory("/dev/shm");
  const auto source = create_file(directory.path("source"), 8 * kMiB);
  const Bytes data = random_bytes(kMiB, 2);
  source->write(kMiB, data);
  source->write(5 * kMiB, Bytes(kMiB));  // zeroes, but allocated
  source->write(8 * kMiB - 5, ByteView(data).first(5));
  const auto destination = create_file(directory.path("destination"), 8 * kMiB);
  destination->write(0, Bytes(8 * kMiB, std::byte{1}));
  copy(*source, *destination, 8 * kMiB, {.holes = Holes::kKeep});
  EXPECT_EQ(file_bytes(directory.path("destination")), file_bytes(directory.path("source")));
  EXPECT_LE(allocated_bytes(directory.path("destination")), kMiB + 128 * kKiB);
  destination->write(0, Bytes(8 * kMiB, std::byte{1}));
  copy(*source, *destination, 8 * kMiB, {.holes = Holes::kFill});
  EXPECT_EQ(file_bytes(directory.path("destination")), file_bytes(directory.path("source")));
  EXPECT_EQ(allocated_bytes(directory.path("destination")), 8 * kMiB);
}

TEST(Copy, LeavesHolesAloneWhereTheDestinationIsZero) {
  const TemporaryDirectory directory("/dev/shm");
  const auto source = create_file(directory.path("source"), 4 * kMiB);
  source->write(kMiB, Bytes(kMiB, std::byte{1}));
  for (const bool is_zero : {false, true}) {
    WatchedDevice destination{Bytes(4 * kMiB)};
    copy(*source, destination, 4 * kMiB, {.holes = Holes::kKeep, .destination_is_zero = is_zero});
    EXPECT_EQ(destination.written_bytes, kMiB);
    EXPECT_EQ(destination.zeroed_bytes, is_zero ? 0 : 3 * kMiB);
    EXPECT_EQ(destination.contents(), file_bytes(directory.path("source")));
  }
}

// Sparse files of random shape, random chunks and threads.
TEST(Copy, RandomSparseFilesComeOutTheSame) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Random random(seed);
  const auto below = [&](std::size_t bound) { return random.below(bound); };
  for (int round = 0; round < 30; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    const TemporaryDirectory directory("/dev/shm");
    const std::size_t size = 1 + below(2 * kMiB);
    const auto source = create_file(directory.path("source"), size);
    for (std::size_t i = below(12); i > 0; --i) {
      const std::size_t at = below(size);
      const std::size_t length = 1 + below(std::min<std::size_t>(size - at, 300'000));
      source->write(at, below(4) == 0 ? Bytes(length) : random.bytes(length));
    }
    const std::size_t length = below(2) == 0 ? size : below(size + 1);
    MemoryDevice destination{Bytes(size, std::byte{0x55})};
    copy(*source, destination, length,
         {.holes = below(2) == 0 ? Holes::kKeep : Holes::kFill,
          .threads = static_cast<unsigned>(below(5)),
          .chunk_bytes = below(500'000)});
    Bytes expected = file_bytes(directory.path("source"));
    std::fill(expected.begin() + static_cast<std::ptrdiff_t>(length), expected.end(),
              std::byte{0x55});
    ASSERT_EQ(destination.contents(), expected);
  }
}

TEST(Copy, TooSmallIsFoundBeforeTheFirstWrite) {
  const MemoryDevice source{Bytes(1000)};
  FaultyDevice destination(Bytes(999), {});
  EXPECT_EQ(error_of([&] { copy(source, destination, 1000, {}); }).message(),
            "cannot write 1000 bytes at offset 0 of 'faulty device': it has only 999 bytes");
  EXPECT_EQ(error_of([&] { copy(source, destination, 1001, {}); }).code(), Code::kTooSmall);
  EXPECT_EQ(destination.operations(), 0U);
  MemoryDevice read_only(Bytes(1000), false);
  EXPECT_EQ(error_of([&] { copy(source, read_only, 1000, {}); }).code(), Code::kReadOnly);
}

TEST(Copy, FaultsInTheMiddleNameTheOffset) {
  const Bytes data = random_bytes(kMiB, 3);
  for (const unsigned threads : {1U, 2U, 8U}) {
    const CopyOptions options{.threads = threads, .chunk_bytes = 64 * kKiB};
    const FaultyDevice bad_source(data, {.eio_read_offset = 500'000});
    MemoryDevice sink(Bytes(data.size()));
    const Error read_error = error_of([&] { copy(bad_source, sink, data.size(), options); });
    EXPECT_EQ(read_error.code(), Code::kIo);
    EXPECT_EQ(read_error.message(),
              "cannot read 65536 bytes at offset 458752 of 'faulty device': medium error");

    const MemoryDevice source(data);
    FaultyDevice bad_sink(Bytes(data.size()), {.eio_write_offset = 500'000});
    EXPECT_EQ(error_of([&] { copy(source, bad_sink, data.size(), options); }).message(),
              "cannot write 65536 bytes at offset 458752 of 'faulty device': medium error");

    FaultyDevice full(Bytes(data.size()), {.no_space_at_bytes = 500'000});
    EXPECT_EQ(error_of([&] { copy(source, full, data.size(), options); }).code(), Code::kNoSpace);
    // The others stop soon: nobody starts a chunk once an error is known.
    EXPECT_LE(full.operations(), 500'000 / (64 * kKiB) + std::uint64_t{2} * threads);
  }
}

TEST(Copy, StopsWhenCancelled) {
  const MemoryDevice source{Bytes(4 * kMiB)};
  WatchedDevice destination{Bytes(4 * kMiB)};
  CancelToken cancel;
  const CopyOptions options{.threads = 2,
                            .chunk_bytes = 4096,
                            .progress = [&](const ProgressEvent&) { cancel.cancel(); },
                            .cancel = &cancel};
  EXPECT_EQ(error_of([&] { copy(source, destination, 4 * kMiB, options); }).code(),
            Code::kInterrupted);
  EXPECT_LT(destination.written_bytes, 4 * kMiB);
  // Cancelled from the start: nothing at all.
  WatchedDevice untouched{Bytes(kMiB)};
  EXPECT_EQ(error_of([&] { copy(source, untouched, kMiB, options); }).code(), Code::kInterrupted);
  EXPECT_EQ(untouched.written_bytes, 0U);
}

TEST(Copy, ProgressRisesToTheEndOneCallAtATime) {
  const MemoryDevice source{Bytes(2 * kMiB + 5)};
  MemoryDevice destination{Bytes(2 * kMiB + 5)};
  std::atomic<int> inside{0};
  std::vector<std::uint64_t> seen;
  const auto start = std::chrono::steady_clock::now();
  copy(source, destination, 2 * kMiB + 5,
       {.phase = "encrypt",
        .threads = 4,
        .chunk_bytes = 4096,
        .rate_limit_bytes = 8 * kMiB,
        .progress = [&](const ProgressEvent& event) {
          EXPECT_EQ(inside.fetch_add(1), 0);
          EXPECT_EQ(event.phase, "encrypt");
          EXPECT_EQ(event.total_bytes, 2 * kMiB + 5);
          seen.push_back(event.done_bytes);
          inside.fetch_sub(1);
        }});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  ASSERT_FALSE(seen.empty());
  EXPECT_TRUE(std::ranges::is_sorted(seen));
  EXPECT_EQ(seen.back(), 2 * kMiB + 5);
  EXPECT_LE(static_cast<double>(seen.size()), took.count() * 10 + 2);
  EXPECT_GE(took.count(), 0.2);  // 2 MiB at 8 MiB a second: 0.25 s but for the last chunk
}

TEST(Copy, ExceptionsOfTheCallbackReachTheCaller) {
  const MemoryDevice source{Bytes(kMiB)};
  MemoryDevice destination{Bytes(kMiB)};
  EXPECT_THROW(copy(source, destination, kMiB,
                    {.progress = [](const ProgressEvent&) { throw std::runtime_error("stop"); }}),
               std::runtime_error);
}

TEST(Copy, MemoryIsBounded) {
  const MemoryDevice source{Bytes(40 * kMiB)};
  WatchedDevice destination{Bytes(40 * kMiB)};
  copy(source, destination, 40 * kMiB, {.threads = 2, .chunk_bytes = std::size_t{1} << 40U});
  EXPECT_LE(destination.largest_request_bytes, limits::kCopyMemoryBytesMax);
  EXPECT_EQ(destination.written_bytes, 40 * kMiB);
}

// Reads wait until as many are under way as there are threads.
class MeetingDevice : public WatchedDevice {
 public:
  MeetingDevice(Bytes contents, unsigned meeting_size)
      : WatchedDevice(std::move(contents)), meeting_size_(meeting_size) {}

  void read(std::uint64_t offset, MutableBytes out) const override {
    {
      std::unique_lock lock(mutex_);
      ++present_;
      arrived_.notify_all();
      met_ = arrived_.wait_for(lock, std::chrono::seconds(20), [&] {
        return present_ >= meeting_size_;
      }) && met_;
    }
    WatchedDevice::read(offset, out);
  }
  bool met() const { return met_; }

 private:
  const unsigned meeting_size_;
  mutable std::mutex mutex_;
  mutable std::condition_variable arrived_;
  mutable unsigned present_ = 0;
  mutable bool met_ = true;
};

TEST(Copy, ChunksAreUnderWayTogether) {
  const MeetingDevice source(random_bytes(kMiB, 5), 6);
  MemoryDevice destination{Bytes(kMiB)};
  copy(source, destination, kMiB, {.threads = 6, .chunk_bytes = 64 * kKiB});
  EXPECT_TRUE(source.met());
  EXPECT_EQ(destination.contents(), source.contents());
}

TEST(Copy, SourceThatShrinksMeanwhileIsNamed) {
  const TemporaryDirectory directory;
  const auto source = create_file(directory.path("source"), kMiB);
  MemoryDevice destination{Bytes(kMiB)};
  ASSERT_EQ(truncate(directory.path("source").c_str(), 300'000), 0);
  const Error error = error_of([&] { copy(*source, destination, kMiB, {.threads = 1}); });
  EXPECT_EQ(error.code(), Code::kTooSmall);
  EXPECT_EQ(error.message(), "cannot read 748576 bytes at offset 300000 of '" +
                                 directory.path("source") + "': it has become shorter");
}

}  // namespace
}  // namespace lukskeep::storage
