#include <algorithm>
#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "storage/copy.h"
#include "storage/faulty_device.h"
#include "storage/file_device.h"
#include "storage/memory_device.h"
#include "storage/test_files.h"
#include "storage/unique_fd.h"
#include "storage/window_device.h"

namespace lukskeep::storage {
namespace {

using limits::kKiB;
using limits::kMiB;

struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    out = UniqueFd(ends[0]);
    in = UniqueFd(ends[1]);
  }
  UniqueFd out;  // to read from
  UniqueFd in;   // to write to
};

// Feeds `data` into `fd` in pieces of odd sizes, and closes it.
std::jthread feed(UniqueFd fd, const Bytes& data, std::uint64_t seed) {
  return std::jthread([fd = std::move(fd), &data, seed] {
    Random random(seed);
    for (std::size_t at = 0; at < data.size();) {
      const std::size_t piece = std::min<std::size_t>(data.size() - at, 1 + random.below(100'000));
      const ssize_t put = write(fd.get(), data.data() + at, piece);
      if (put <= 0) return;
      at += static_cast<std::size_t>(put);
    }
  });
}

std::jthread drain(UniqueFd fd, Bytes& into, std::uint64_t seed) {
  return std::jthread([fd = std::move(fd), &into, seed] {
    Random random(seed);
    Bytes piece(100'000);
    while (true) {
      const ssize_t got = read(fd.get(), piece.data(), 1 + random.below(piece.size()));
      if (got <= 0) return;
      into.insert(into.end(), piece.begin(), piece.begin() + got);
    }
  });
}

class Stream : public testing::Test {
 protected:
  void SetUp() override { previous_ = std::signal(SIGPIPE, SIG_IGN); }
  void TearDown() override { static_cast<void>(std::signal(SIGPIPE, previous_)); }

 private:
  void (*previous_)(int) = SIG_DFL;
};

TEST_F(Stream, PipeFillsADestinationThatGrowsToExactlyThePaddedSize) {
  for (const std::size_t size : {0UL, 1UL, 511UL, 512UL, 513UL, 65536UL, 65537UL, 1'000'003UL}) {
    for (const unsigned threads : {1U, 2U, 5U}) {
      for (const std::size_t initial : {std::size_t{0}, std::size_t{3'000'000}}) {
        SCOPED_TRACE(testing::Message() << size << " bytes, " << threads << " threads");
        const Bytes data = random_bytes(size, 1);
        MemoryDevice destination{Bytes(initial, std::byte{9})};
        Pipe pipe;
        const auto feeder = feed(std::move(pipe.in), data, 2);
        EXPECT_EQ(copy_from_fd(pipe.out.get(), destination, UINT64_MAX, 512,
                               {.threads = threads, .chunk_bytes = 64 * kKiB}),
                  size);
        Bytes expected = data;
        expected.resize((size + 511) / 512 * 512);
        EXPECT_EQ(destination.contents(), expected);
      }
    }
  }
}

TEST_F(Stream, ReadsAFileFromWhereItStandsAndNoFurtherThanAsked) {
  const TemporaryDirectory directory;
  const Bytes data = random_bytes(500'000, 3);
  put_file(directory.path("x"), data);
  const UniqueFd file(open(directory.path("x").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(lseek(file.get(), 1000, SEEK_SET), 1000);
  MemoryDevice destination({});
  EXPECT_EQ(copy_from_fd(file.get(), destination, 300'001, 1, {.chunk_bytes = 4096}), 300'001U);
  EXPECT_EQ(destination.contents(), Bytes(data.begin() + 1000, data.begin() + 301'001));
  EXPECT_EQ(lseek(file.get(), 0, SEEK_CUR), 301'001);
}

TEST_F(Stream, ZeroesOfAPipeBecomeHoles) {
  const TemporaryDirectory directory("/dev/shm");
  Bytes data(4 * kMiB);
  std::fill_n(data.begin() + kMiB, kMiB, std::byte{1});
  const auto destination = create_file(directory.path("x"), 0);
  Pipe pipe;
  const auto feeder = feed(std::move(pipe.in), data, 4);
  copy_from_fd(pipe.out.get(), *destination, UINT64_MAX, 512, {.holes = Holes::kKeep});
  EXPECT_EQ(file_bytes(directory.path("x")), data);
  EXPECT_EQ(allocated_bytes(directory.path("x")), kMiB);
}

TEST_F(Stream, InputLongerThanADiskIsRefusedAndShorterLeavesTheRest) {
  const auto below = std::make_shared<MemoryDevice>(Bytes(100'000, std::byte{9}));
  const auto disk = make_window(below, {.offset_bytes = 0, .size_bytes = 100'000});
  const Bytes data = random_bytes(200'000, 5);
  {
    Pipe pipe;
    const auto feeder = feed(std::move(pipe.in), data, 6);
    const Error error = error_of(
        [&] { copy_from_fd(pipe.out.get(), *disk, UINT64_MAX, 512, {.chunk_bytes = 8192}); });
    pipe.out = UniqueFd();
    EXPECT_EQ(error.code(), Code::kTooSmall);
    EXPECT_EQ(error.message(),
              "the input is longer than the 100000 bytes of 'window on 'memory' at 0'");
  }
  below->write(0, Bytes(100'000, std::byte{9}));
  Pipe pipe;
  const Bytes little(1000, std::byte{1});
  const auto feeder = feed(std::move(pipe.in), little, 7);
  EXPECT_EQ(copy_from_fd(pipe.out.get(), *disk, UINT64_MAX, 512, {}), 1000U);
  Bytes expected = little;
  expected.resize(1024);
  expected.resize(100'000, std::byte{9});
  EXPECT_EQ(below->contents(), expected);
}

TEST_F(Stream, DestinationMayFillUpToTheLastByte) {
  // Growing in big steps must not fail where the data itself fits.
  const Bytes data = random_bytes(1'000'448, 8);
  for (const std::uint64_t room : {data.size(), data.size() - 1}) {
    FaultyDevice destination({}, {.no_space_at_bytes = room});
    Pipe pipe;
    const auto feeder = feed(std::move(pipe.in), data, 9);
    const auto run = [&] {
      copy_from_fd(pipe.out.get(), destination, UINT64_MAX, 512, {.chunk_bytes = 64 * kKiB});
    };
    if (room == data.size()) {
      run();
      EXPECT_EQ(destination.after_crash(), data);
    } else {
      EXPECT_EQ(error_of(run).code(), Code::kNoSpace);
    }
    pipe.out = UniqueFd();
  }
}

TEST_F(Stream, UnreadableInputNamesTheOffset) {
  const TemporaryDirectory directory;
  const UniqueFd write_only(
      open(directory.path("x").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  MemoryDevice destination({});
  EXPECT_EQ(
      error_of([&] { copy_from_fd(write_only.get(), destination, UINT64_MAX, 512, {}); }).message(),
      "cannot read from the input at offset 0: bad file descriptor");
  EXPECT_EQ(error_of([&] { copy_from_fd(write_only.get(), destination, 1, 12288, {}); }).code(),
            Code::kInvalidArgument);
  MemoryDevice read_only({}, false);
  EXPECT_EQ(error_of([&] { copy_from_fd(0, read_only, 1, 512, {}); }).code(), Code::kReadOnly);
}

TEST_F(Stream, PipeGetsEveryByteInOrder) {
  for (const std::size_t size : {0UL, 1UL, 65536UL, 65537UL, 3'000'017UL}) {
    for (const unsigned threads : {1U, 2U, 7U}) {
      SCOPED_TRACE(testing::Message() << size << " bytes, " << threads << " threads");
      const MemoryDevice source(random_bytes(size + 10, 10));
      Bytes got;
      {
        Pipe pipe;
        const auto drainer = drain(std::move(pipe.out), got, 11);
        copy_to_fd(source, pipe.in.get(), size, {.threads = threads, .chunk_bytes = 64 * kKiB});
        EXPECT_EQ(fcntl(pipe.in.get(), F_GETFL) & O_NONBLOCK, 0);
        pipe.in = UniqueFd();
      }
      EXPECT_EQ(got, Bytes(source.contents().begin(),
                           source.contents().begin() + static_cast<std::ptrdiff_t>(size)));
    }
  }
}

TEST_F(Stream, WritesToAFileFromWhereItStands) {
  const TemporaryDirectory directory;
  const UniqueFd file(open(directory.path("x").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(write(file.get(), "ab", 2), 2);
  const MemoryDevice source{Bytes(100'000, std::byte{'c'})};
  copy_to_fd(source, file.get(), 100'000, {.chunk_bytes = 4096});
  const Bytes found = file_bytes(directory.path("x"));
  EXPECT_EQ(found.size(), 100'002U);
  EXPECT_EQ(found[1], std::byte{'b'});
  EXPECT_TRUE(std::ranges::all_of(ByteView(found).subspan(2),
                                  [](std::byte b) { return b == std::byte{'c'}; }));
}

TEST_F(Stream, ClosedPipeNamesTheOffset) {
  const MemoryDevice source{Bytes(10 * kMiB)};
  Pipe pipe;
  std::jthread reader([&] {
    Bytes some(300'000);
    for (std::size_t got = 0; got < some.size();) {
      const ssize_t count = read(pipe.out.get(), some.data(), some.size() - got);
      if (count <= 0) break;
      got += static_cast<std::size_t>(count);
    }
    pipe.out = UniqueFd();
  });
  const Error error =
      error_of([&] { copy_to_fd(source, pipe.in.get(), 10 * kMiB, {.threads = 3}); });
  EXPECT_EQ(error.code(), Code::kIo);
  constexpr std::string_view start = "cannot write to the output at offset ";
  ASSERT_TRUE(error.message().starts_with(start)) << error.message();
  EXPECT_TRUE(error.message().ends_with(": broken pipe")) << error.message();
  EXPECT_GE(std::stoull(error.message().substr(start.size())), 300'000U);
}

TEST_F(Stream, BadPlaceInTheSourceStopsTheStream) {
  const FaultyDevice source(Bytes(kMiB), {.eio_read_offset = 700'000});
  Bytes got;
  {
    Pipe pipe;
    const auto drainer = drain(std::move(pipe.out), got, 12);
    const Error error = error_of(
        [&] { copy_to_fd(source, pipe.in.get(), kMiB, {.threads = 3, .chunk_bytes = 64 * kKiB}); });
    EXPECT_EQ(error.code(), Code::kIo);
    EXPECT_EQ(error.message(),
              "cannot read 65536 bytes at offset 655360 of 'faulty device': medium error");
    pipe.in = UniqueFd();
  }
  EXPECT_LE(got.size(), 655'360U);
}

// Nobody reads, nobody writes: the copy must still be stoppable.
TEST_F(Stream, StalledPipesCanBeCancelled) {
  using std::chrono::milliseconds;
  const auto start = std::chrono::steady_clock::now();
  {
    Pipe pipe;
    CancelToken cancel;
    std::jthread killer([&] {
      std::this_thread::sleep_for(milliseconds(150));
      cancel.cancel();
    });
    const MemoryDevice source{Bytes(10 * kMiB)};
    EXPECT_EQ(error_of([&] {
                copy_to_fd(source, pipe.in.get(), 10 * kMiB, {.threads = 3, .cancel = &cancel});
              }).code(),
              Code::kInterrupted);
  }
  {
    Pipe pipe;
    ASSERT_EQ(write(pipe.in.get(), "some", 4), 4);
    CancelToken cancel;
    std::jthread killer([&] {
      std::this_thread::sleep_for(milliseconds(150));
      cancel.cancel();
    });
    MemoryDevice destination({});
    EXPECT_EQ(error_of([&] {
                copy_from_fd(pipe.out.get(), destination, UINT64_MAX, 512,
                             {.threads = 3, .cancel = &cancel});
              }).code(),
              Code::kInterrupted);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST_F(Stream, ProgressOfAPipeHasNoTotal) {
  const Bytes data(100'000);
  MemoryDevice destination({});
  Pipe pipe;
  const auto feeder = feed(std::move(pipe.in), data, 13);
  ProgressEvent last;
  copy_from_fd(pipe.out.get(), destination, UINT64_MAX, 512,
               {.progress = [&](const ProgressEvent& event) { last = event; }});
  EXPECT_EQ(last.done_bytes, 100'000U);
  EXPECT_FALSE(last.total_bytes.has_value());
}

TEST_F(Stream, RandomSizesAndSpeedsComeOutTheSame) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Random random(seed);
  for (int round = 0; round < 20; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    const Bytes data = random.bytes(random.below(2'000'000));
    const CopyOptions options{.threads = static_cast<unsigned>(random.below(6)),
                              .chunk_bytes = random.below(300'000)};
    MemoryDevice middle({});
    {
      Pipe pipe;
      const auto feeder = feed(std::move(pipe.in), data, random.seed());
      ASSERT_EQ(copy_from_fd(pipe.out.get(), middle, UINT64_MAX, 1, options), data.size());
    }
    Bytes got;
    {
      Pipe pipe;
      const auto drainer = drain(std::move(pipe.out), got, random.seed());
      copy_to_fd(middle, pipe.in.get(), data.size(), options);
      pipe.in = UniqueFd();
    }
    ASSERT_EQ(got, data);
  }
}

}  // namespace
}  // namespace lukskeep::storage
