// What every kind of copy shares: workers with a buffer each, progress, rate limit, stopping.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

#include "base/bytes.h"
#include "storage/copy.h"

namespace lukskeep::storage {

// Page-aligned memory, so that O_DIRECT below is possible; not in core dumps.
class PageBuffer {
 public:
  explicit PageBuffer(std::size_t size_bytes);  // throws kOutOfMemory
  ~PageBuffer();
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;

  MutableBytes span() const noexcept { return {data_, size_}; }

 private:
  std::byte* data_;
  std::size_t size_;
};

// One copy while it runs. All functions may be called by all workers.
class CopyJob {
 public:
  // `total_bytes` is absent for a pipe.
  CopyJob(const CopyOptions& options, std::optional<std::uint64_t> total_bytes);

  std::size_t chunk_bytes() const noexcept { return chunk_bytes_; }

  // Runs `worker` on all threads, each with its own buffer of chunk_bytes(); the first exception
  // stops the job and is rethrown when all have returned. Otherwise reports the end.
  void run(const std::function<void(MutableBytes)>& worker);

  // To be called before each chunk, with the bytes about to be read. Waits while the rate limit
  // says so. False: another worker failed, return. Throws kInterrupted.
  bool admit(std::uint64_t bytes);
  // For work that waits for something: as admit, but without a rate.
  bool goes_on() const;

  // Chunks of a stream are written in their order. False: the job stopped meanwhile.
  bool wait_for_turn(std::uint64_t index);
  void end_turn();

  void add_done(std::uint64_t bytes);

 private:
  using Clock = std::chrono::steady_clock;

  void stop() noexcept;
  Clock::duration reserve(std::uint64_t bytes);
  void report();

  const CopyOptions& options_;
  std::optional<std::uint64_t> total_bytes_;
  std::size_t chunk_bytes_;
  unsigned threads_;

  std::atomic<bool> stopped_{false};
  std::atomic<std::uint64_t> done_bytes_{0};

  std::mutex progress_mutex_;
  std::atomic<Clock::rep> next_report_{0};

  std::mutex rate_mutex_;
  Clock::time_point rate_free_at_;

  std::mutex turn_mutex_;
  std::condition_variable turn_changed_;
  std::uint64_t turn_ = 0;
};

// Writes `data`, which may be scratched, to `destination`; with Holes::kKeep runs of zeroes become
// holes.
void write_chunk(Device& destination, std::uint64_t offset_bytes, MutableBytes data,
                 const CopyOptions& options);

}  // namespace lukskeep::storage
