// How long work tells its caller where it stands, and how it is told to stop.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include <lukskeep/export.h>

namespace lukskeep {

struct ProgressEvent {
  std::string_view phase;  // e.g. "encrypt"; stable, lower case
  std::uint64_t done_bytes = 0;
  std::optional<std::uint64_t> total_bytes;  // absent when the source is a pipe
};

// Called from one thread at a time, at most about ten times a second and once at the end.
using ProgressCallback = std::function<void(const ProgressEvent&)>;

// Set by any thread or signal handler; long work looks at it at least once per chunk and KDF, and
// then throws Error{kInterrupted}. A token with a parent (which must outlive it) is cancelled when
// either is.
class LUKSKEEP_API CancelToken {
 public:
  explicit CancelToken(const CancelToken* parent = nullptr) noexcept : parent_(parent) {}

  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const noexcept {
    return cancelled_.load(std::memory_order_relaxed) ||
           (parent_ != nullptr && parent_->cancelled());
  }
  // Throws Error{kInterrupted} if cancelled.
  void check() const;

 private:
  const CancelToken* parent_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace lukskeep
