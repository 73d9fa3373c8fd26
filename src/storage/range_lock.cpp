#include "storage/range_lock.h"

namespace lukskeep::storage {

RangeLock::Guard::Guard(RangeLock& lock, const Range& range, Mode mode)
    : lock_(lock), range_(range), mode_(mode) {
  std::unique_lock held(lock_.mutex_);
  before_ = lock_.last_;
  if (before_ != nullptr) before_->after_ = this;
  lock_.last_ = this;
  ++lock_.waiting_;
  lock_.released_.wait(held, [this] { return !must_wait(); });
  --lock_.waiting_;
}

RangeLock::Guard::~Guard() {
  const std::lock_guard held(lock_.mutex_);
  if (before_ != nullptr) before_->after_ = after_;
  (after_ != nullptr ? after_->before_ : lock_.last_) = before_;
  if (lock_.waiting_ > 0) lock_.released_.notify_all();
}

bool RangeLock::Guard::conflicts(const Guard& other) const noexcept {
  if (mode_ == Mode::kShared && other.mode_ == Mode::kShared) return false;
  if (range_.length_bytes == 0 || other.range_.length_bytes == 0) return false;
  return range_.offset_bytes < other.range_.offset_bytes + other.range_.length_bytes &&
         other.range_.offset_bytes < range_.offset_bytes + range_.length_bytes;
}

// Also those that wait themselves count, as long as they came earlier.
bool RangeLock::Guard::must_wait() const noexcept {
  for (const Guard* other = before_; other != nullptr; other = other->before_) {
    if (conflicts(*other)) return true;
  }
  return false;
}

}  // namespace lukskeep::storage
