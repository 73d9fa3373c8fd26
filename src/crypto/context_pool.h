// A free list of cipher contexts: library handles are not thread-safe and slow to make.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace lukskeep::crypto {

// Hands out contexts of type T, making one with `make` whenever all are in use: there are never
// more of them than there were concurrent users. Thread-safe.
template <typename T>
class ContextPool {
 public:
  class Lease {
   public:
    Lease(ContextPool& pool, std::unique_ptr<T> context) noexcept
        : pool_(pool), context_(std::move(context)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { pool_.give_back(std::move(context_)); }
    T& operator*() const noexcept { return *context_; }
    T* operator->() const noexcept { return context_.get(); }

   private:
    ContextPool& pool_;
    std::unique_ptr<T> context_;
  };

  // Makes the first context at once, so that what is wrong with a key shows here.
  explicit ContextPool(std::function<std::unique_ptr<T>()> make) : make_(std::move(make)) {
    free_.push_back(make_());
  }

  Lease lease() {
    {
      const std::scoped_lock lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<T> context = std::move(free_.back());
        free_.pop_back();
        return Lease(*this, std::move(context));
      }
    }
    std::unique_ptr<T> context = make_();
    const std::scoped_lock lock(mutex_);
    ++made_;
    free_.reserve(made_);  // so that giving back cannot fail
    return Lease(*this, std::move(context));
  }

 private:
  void give_back(std::unique_ptr<T> context) noexcept {
    const std::scoped_lock lock(mutex_);
    free_.push_back(std::move(context));
  }

  std::function<std::unique_ptr<T>()> make_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> free_;
  std::size_t made_ = 1;
};

}  // namespace lukskeep::crypto
