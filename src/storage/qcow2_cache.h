// Pieces of tables of a qcow2 image in memory, bounded; not thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"

namespace lukskeep::storage::qcow2 {

class TableCache {
 public:
  struct Slice {
    Bytes bytes;
    bool dirty = false;    // differs from storage
    bool writing = false;  // a copy of it is on its way there
    std::list<std::uint64_t>::iterator use;
  };

  explicit TableCache(std::size_t slice_bytes)
      : capacity_(std::max<std::size_t>(16, limits::kQcow2CacheBytesMax / slice_bytes)) {}

  // Null if it is not here. Slices stay where they are until they are evicted, by insert.
  Slice* find(std::uint64_t key) {
    const auto found = slices_.find(key);
    if (found == slices_.end()) return nullptr;
    uses_.splice(uses_.begin(), uses_, found->second.use);
    return &found->second;
  }

  // Evicts what has not been used for longest, unless storage lacks it.
  Slice& insert(std::uint64_t key, Bytes bytes) {
    if (slices_.size() >= capacity_) evict_one();
    uses_.push_front(key);
    Slice& slice = slices_[key];
    slice.bytes = std::move(bytes);
    slice.use = uses_.begin();
    return slice;
  }

  void set_dirty(Slice& slice) {
    dirty_ += slice.dirty ? 0 : 1;
    slice.dirty = true;
  }

  bool any_dirty() const noexcept { return dirty_ > 0; }
  // Time to write, before what is dirty has nowhere to stay.
  bool crowded() const noexcept { return dirty_ * 2 >= capacity_; }

  struct Copy {
    std::uint64_t key = 0;
    Bytes bytes;
  };
  // Copies of all that is dirty; they count as clean and are not evicted before written().
  std::vector<Copy> take_dirty() {
    std::vector<Copy> copies;
    copies.reserve(dirty_);
    for (auto& [key, slice] : slices_) {
      if (!slice.dirty) continue;
      slice.dirty = false;
      slice.writing = true;
      copies.push_back({key, slice.bytes});
    }
    dirty_ = 0;
    return copies;
  }
  void written() {
    for (auto& [key, slice] : slices_) slice.writing = false;
  }

 private:
  void evict_one() {
    for (auto use = uses_.rbegin(); use != uses_.rend(); ++use) {
      const auto found = slices_.find(*use);
      if (found->second.dirty || found->second.writing) continue;
      uses_.erase(found->second.use);
      slices_.erase(found);
      return;
    }
  }

  std::size_t capacity_;
  std::size_t dirty_ = 0;
  std::unordered_map<std::uint64_t, Slice> slices_;
  std::list<std::uint64_t> uses_;  // the latest first
};

// What all tables are read and written in.
inline std::size_t slice_bytes_of(std::uint64_t cluster_bytes) {
  return static_cast<std::size_t>(std::min<std::uint64_t>(cluster_bytes, 64 * limits::kKiB));
}

}  // namespace lukskeep::storage::qcow2
