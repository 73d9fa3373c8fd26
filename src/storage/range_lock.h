// Locks on ranges of bytes: readers of a range share it, a writer has it alone.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "storage/request.h"

namespace lukskeep::storage {

// First come, first served: whoever waits is not overtaken by a later one that touches the same
// bytes, so nobody starves and nobody waits in a circle, as long as a thread holds one range at a
// time. Costs a walk over what is held and waited for. Allocates nothing. Any number of threads.
class RangeLock {
 public:
  enum class Mode : std::uint8_t { kShared, kExclusive };

  RangeLock() = default;
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;

  // Waits until the range is free for `mode`, and holds it while it lives. An empty range conflicts
  // with nothing; the end of a range is at most UINT64_MAX.
  class Guard {
   public:
    Guard(RangeLock& lock, const Range& range, Mode mode);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    friend class RangeLock;
    bool conflicts(const Guard& other) const noexcept;
    bool must_wait() const noexcept;

    RangeLock& lock_;
    Range range_;
    Mode mode_;
    Guard* before_ = nullptr;  // who came earlier
    Guard* after_ = nullptr;
  };

 private:
  std::mutex mutex_;
  std::condition_variable released_;
  std::size_t waiting_ = 0;
  Guard* last_ = nullptr;
};

}  // namespace lukskeep::storage
