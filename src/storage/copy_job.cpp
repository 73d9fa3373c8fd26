#include "storage/copy_job.h"

#include <algorithm>
#include <thread>

#include <sys/mman.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/parallel_for.h"

namespace lukskeep::storage {
namespace {

using std::chrono::milliseconds;

// Long waits look this often whether they are still wanted.
constexpr milliseconds kLookAround{50};
constexpr milliseconds kProgressInterval{100};

// Below this a chunk is all overhead; also the largest block size of any device.
constexpr std::size_t kChunkBytesMin = 4096;

std::size_t choose_chunk_bytes(const CopyOptions& options) {
  std::uint64_t chunk = options.chunk_bytes;
  // A slow copy in large steps would look stuck.
  if (options.rate_limit_bytes != 0) chunk = std::min(chunk, options.rate_limit_bytes / 8);
  chunk = std::min<std::uint64_t>(chunk, limits::kCopyMemoryBytesMax);
  return std::max<std::size_t>(kChunkBytesMin, chunk / kChunkBytesMin * kChunkBytesMin);
}

unsigned choose_threads(const CopyOptions& options, std::size_t chunk_bytes,
                        std::optional<std::uint64_t> total_bytes) {
  std::uint64_t threads = options.threads != 0
                              ? options.threads
                              : std::max(hardware_threads(), limits::kCopyThreadsMin);
  // With a pipe one thread at a time is busy with the pipe: the others must not wait for it.
  if (!total_bytes) threads = std::max<std::uint64_t>(threads, 2);
  threads = std::min<std::uint64_t>(threads, limits::kCopyMemoryBytesMax / chunk_bytes);
  if (total_bytes) {
    threads = std::min(threads, *total_bytes / chunk_bytes + (*total_bytes % chunk_bytes != 0));
  }
  return static_cast<unsigned>(std::max<std::uint64_t>(threads, 1));
}

}  // namespace

PageBuffer::PageBuffer(std::size_t size_bytes) : size_(size_bytes) {
  void* memory =
      mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(Code::kOutOfMemory,
                fmt::format("cannot get {} bytes of memory for buffers", size_bytes));
  }
  // The contents of a volume have no place in a core dump. Old kernels may not know the advice.
  static_cast<void>(madvise(memory, size_bytes, MADV_DONTDUMP));
  data_ = static_cast<std::byte*>(memory);
}

PageBuffer::~PageBuffer() { munmap(data_, size_); }

CopyJob::CopyJob(const CopyOptions& options, std::optional<std::uint64_t> total_bytes)
    : options_(options),
      total_bytes_(total_bytes),
      chunk_bytes_(choose_chunk_bytes(options)),
      threads_(choose_threads(options, chunk_bytes_, total_bytes)),
      rate_free_at_(Clock::now()) {}

void CopyJob::run(const std::function<void(MutableBytes)>& worker) {
  const PageBuffer buffers(chunk_bytes_ * threads_);
  parallel_for(threads_, threads_, [&](std::size_t i) {
    try {
      worker(buffers.span().subspan(i * chunk_bytes_, chunk_bytes_));
    } catch (...) {
      stop();
      throw;
    }
  });
  if (options_.progress) report();
}

bool CopyJob::goes_on() const {
  if (stopped_.load(std::memory_order_relaxed)) return false;
  if (options_.cancel != nullptr) options_.cancel->check();
  return true;
}

bool CopyJob::admit(std::uint64_t bytes) {
  if (options_.rate_limit_bytes == 0) return goes_on();
  const Clock::time_point start = Clock::now() + reserve(bytes);
  while (goes_on()) {
    const Clock::duration wait = start - Clock::now();
    if (wait <= Clock::duration::zero()) return true;
    std::this_thread::sleep_for(std::min<Clock::duration>(wait, kLookAround));
  }
  return false;
}

// Each reservation starts where the one before ends; idle time is not saved up.
CopyJob::Clock::duration CopyJob::reserve(std::uint64_t bytes) {
  const std::chrono::duration<double> cost(static_cast<double>(bytes) /
                                           static_cast<double>(options_.rate_limit_bytes));
  const std::lock_guard lock(rate_mutex_);
  const Clock::time_point now = Clock::now();
  const Clock::time_point start = std::max(now, rate_free_at_);
  rate_free_at_ = start + std::chrono::duration_cast<Clock::duration>(cost);
  return start - now;
}

bool CopyJob::wait_for_turn(std::uint64_t index) {
  std::unique_lock lock(turn_mutex_);
  turn_changed_.wait(lock, [&] { return turn_ == index || stopped_.load(); });
  return !stopped_.load();
}

void CopyJob::end_turn() {
  {
    const std::lock_guard lock(turn_mutex_);
    ++turn_;
  }
  turn_changed_.notify_all();
}

void CopyJob::stop() noexcept {
  {
    // Under the mutex, or a worker between its look at the flag and its sleep would miss it.
    const std::lock_guard lock(turn_mutex_);
    stopped_.store(true);
  }
  turn_changed_.notify_all();
}

void CopyJob::add_done(std::uint64_t bytes) {
  done_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (!options_.progress) return;
  Clock::rep due = next_report_.load(std::memory_order_relaxed);
  const Clock::time_point now = Clock::now();
  if (now.time_since_epoch().count() < due) return;
  const Clock::rep next = (now + kProgressInterval).time_since_epoch().count();
  if (next_report_.compare_exchange_strong(due, next)) report();
}

void CopyJob::report() {
  const std::lock_guard lock(progress_mutex_);
  options_.progress({.phase = options_.phase,
                     .done_bytes = done_bytes_.load(std::memory_order_relaxed),
                     .total_bytes = total_bytes_});
}

}  // namespace lukskeep::storage
