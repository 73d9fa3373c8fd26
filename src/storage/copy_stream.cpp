// Copies between a device and a pipe, socket or file that has no places, only an order.
#include <algorithm>
#include <cerrno>
#include <mutex>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "storage/copy.h"
#include "storage/copy_job.h"
#include "storage/request.h"
#include "storage/unique_fd.h"

namespace lukskeep::storage {
namespace {

constexpr int kPollMs = 100;
constexpr int kPipeBytes = static_cast<int>(limits::kMiB);
// How a destination grows whose final size is not known.
constexpr std::uint64_t kGrowthBytesMin = 16 * limits::kMiB;
constexpr std::uint64_t kGrowthBytesMax = limits::kGiB;

bool is_pipe(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
}

// One end of a stream. Waits are short, so that a stalled peer does not keep us from stopping.
class Stream {
 public:
  enum class End : std::uint8_t { kInput, kOutput };

  Stream(int fd, End end, const CopyJob& job) : fd_(fd), end_(end), job_(job) {
    if (!is_pipe(fd)) return;
    // Best effort: the usual 64 KiB make both sides wait for each other all the time.
    if (fcntl(fd, F_GETPIPE_SZ) < kPipeBytes) fcntl(fd, F_SETPIPE_SZ, kPipeBytes);
    if (end == End::kInput) return;
    // A description of our own can be non-blocking without the caller's becoming so.
    own_ = UniqueFd(
        open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    if (own_.valid()) fd_ = own_.get();
  }

  // Fills `out` unless the stream ends; returns the bytes got. Short too if the job stops.
  std::size_t read(MutableBytes out) {
    std::size_t done = 0;
    while (done < out.size() && wait()) {
      // One worker at a time reads, under a mutex: that is what keeps the order.
      // NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection)
      const ssize_t got = ::read(fd_, out.data() + done, out.size() - done);
      if (got == 0) break;
      if (got < 0 && !is_transient(errno)) fail("read from the input", errno);
      if (got > 0) advance(done, got);
    }
    return done;
  }

  // False if the job stopped.
  bool write(ByteView data) {
    while (!data.empty()) {
      if (!wait()) return false;
      const ssize_t put = ::write(fd_, data.data(), data.size());
      if (put < 0 && !is_transient(errno)) fail("write to the output", errno);
      std::size_t done = 0;
      if (put > 0) advance(done, put);
      data = data.subspan(done);
    }
    return true;
  }

  std::uint64_t offset_bytes() const { return offset_bytes_; }

 private:
  static bool is_transient(int error) {
    return error == EINTR || error == EAGAIN || error == EWOULDBLOCK;
  }

  // Until there is something to do; false if the job stopped.
  bool wait() const {
    pollfd poll_fd{.fd = fd_,
                   .events = static_cast<short>(end_ == End::kInput ? POLLIN : POLLOUT),
                   .revents = 0};
    while (job_.goes_on()) {
      const int ready = poll(&poll_fd, 1, kPollMs);
      if (ready > 0 || (ready < 0 && errno != EINTR)) return true;  // read or write says what
    }
    return false;
  }

  void advance(std::size_t& done, ssize_t count) {
    done += static_cast<std::size_t>(count);
    offset_bytes_ += static_cast<std::uint64_t>(count);
  }

  [[noreturn]] void fail(std::string_view what, int error) const {
    throw_errno(error, fmt::format("cannot {} at offset {}", what, offset_bytes_));
  }

  int fd_;
  End end_;
  const CopyJob& job_;
  UniqueFd own_;
  std::uint64_t offset_bytes_ = 0;
};

// A destination whose final size is known only at the end.
class GrowingDestination {
 public:
  explicit GrowingDestination(Device& device) : device_(device), size_bytes_(device.size_bytes()) {}

  void require(std::uint64_t size_bytes) {
    if (size_bytes <= size_bytes_) return;
    const std::uint64_t step = std::clamp(size_bytes_, kGrowthBytesMin, kGrowthBytesMax);
    if (!try_resize(std::max(size_bytes, size_bytes_ + step))) resize(size_bytes);
  }

  void finish(std::uint64_t size_bytes) {
    if (device_.size_bytes() == size_bytes) return;
    try {
      device_.resize(size_bytes);
    } catch (const Error& error) {
      // What lies behind the data on a disk is none of our business.
      if (error.code() != Code::kUnsupported) throw;
    }
  }

 private:
  // False if there is no room for so much: a smaller step may do.
  bool try_resize(std::uint64_t size_bytes) {
    try {
      resize(size_bytes);
      return true;
    } catch (const Error& error) {
      if (error.code() != Code::kNoSpace && error.code() != Code::kOutOfMemory) throw;
      return false;
    }
  }

  void resize(std::uint64_t size_bytes) {
    try {
      device_.resize(size_bytes);
      size_bytes_ = size_bytes;
    } catch (const Error& error) {
      if (error.code() != Code::kUnsupported) throw;
      throw Error(Code::kTooSmall, fmt::format("the input is longer than the {} bytes of '{}'",
                                               size_bytes_, device_.name()));
    }
  }

  Device& device_;
  std::uint64_t size_bytes_;
};

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

std::uint64_t copy_from_fd(int fd, Device& destination, std::uint64_t length_bytes_max,
                           std::uint32_t pad_to_bytes, const CopyOptions& options) {
  check_change(destination, "write", {});
  CopyJob job(options, std::nullopt);
  if (pad_to_bytes == 0 || job.chunk_bytes() % pad_to_bytes != 0) {
    throw Error(Code::kInvalidArgument, fmt::format("cannot pad to {} bytes", pad_to_bytes));
  }
  Stream input(fd, Stream::End::kInput, job);
  GrowingDestination growing(destination);
  std::mutex mutex;  // guards what follows and `input`, `growing`: one worker reads at a time
  bool ended = false;

  // Reads the next chunk into `buffer`; what it returns is padded, and empty at the end.
  const auto next = [&](MutableBytes buffer, std::uint64_t& offset_bytes, std::size_t& got) {
    const std::lock_guard lock(mutex);
    offset_bytes = input.offset_bytes();
    got = std::min<std::uint64_t>(buffer.size(), length_bytes_max - offset_bytes);
    if (ended || !job.admit(got)) return buffer.first(0);
    const std::size_t wanted = got;
    got = input.read(buffer.first(wanted));
    ended = got < buffer.size();
    const MutableBytes padded = buffer.first(round_up(got, pad_to_bytes));
    std::ranges::fill(padded.subspan(got), std::byte{0});
    growing.require(offset_bytes + padded.size());
    return padded;
  };
  job.run([&](MutableBytes buffer) {
    std::uint64_t offset_bytes = 0;
    std::size_t got = 0;
    for (MutableBytes data = next(buffer, offset_bytes, got); !data.empty();
         data = next(buffer, offset_bytes, got)) {
      write_chunk(destination, offset_bytes, data, options);
      job.add_done(got);
    }
  });
  growing.finish(round_up(input.offset_bytes(), pad_to_bytes));
  return input.offset_bytes();
}

void copy_to_fd(const Device& source, int fd, std::uint64_t length_bytes,
                const CopyOptions& options) {
  check_range(source, "copy", {0, length_bytes});
  CopyJob job(options, length_bytes);
  Stream output(fd, Stream::End::kOutput, job);
  std::atomic<std::uint64_t> next_index{0};
  job.run([&](MutableBytes buffer) {
    while (true) {
      const std::uint64_t index = next_index.fetch_add(1);
      if (index >= round_up(length_bytes, job.chunk_bytes()) / job.chunk_bytes()) return;
      const std::uint64_t offset_bytes = index * job.chunk_bytes();
      const MutableBytes data =
          buffer.first(std::min<std::uint64_t>(buffer.size(), length_bytes - offset_bytes));
      if (!job.admit(data.size())) return;
      source.read(offset_bytes, data);
      if (!job.wait_for_turn(index) || !output.write(data)) return;
      job.end_turn();
      job.add_done(data.size());
    }
  });
}

}  // namespace lukskeep::storage
