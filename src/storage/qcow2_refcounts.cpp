#include "storage/qcow2_refcounts.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::storage::qcow2 {

Refcounts::Refcounts(const Header& header, HostFile& file, std::string name)
    : file_(file),
      name_(std::move(name)),
      cluster_bytes_(header.cluster_bytes()),
      order_(header.refcount_order),
      per_block_(header.refcounts_in_block()),
      slice_bytes_(slice_bytes_of(cluster_bytes_)),
      per_slice_((slice_bytes_ * 8) >> order_),
      place_{header.refcount_table_offset_bytes, header.refcount_table_clusters * cluster_bytes_},
      cache_(slice_bytes_),
      end_((file.size_bytes() + cluster_bytes_ - 1) / cluster_bytes_) {
  first_end_ = end_;
  Bytes bytes(place_.size_bytes);
  file_.read(place_.offset_bytes, bytes, "the refcount table");
  table_.resize(bytes.size() / 8);
  for (std::uint64_t i = 0; i < table_.size(); ++i) {
    table_[i] = decode_refcount_table_entry(load_be<std::uint64_t>(&bytes[i * 8]),
                                            header.cluster_bits, name_, i);
    if (table_[i] >= file_.size_bytes()) {
      throw Error(Code::kDamaged,
                  fmt::format("{}: refcount block {} at {} is beyond the end of the file", name_, i,
                              table_[i]));
    }
  }
}

std::vector<std::uint64_t> Refcounts::blocks() const {
  std::vector<std::uint64_t> blocks;
  std::ranges::copy_if(table_, std::back_inserter(blocks), [](auto offset) { return offset != 0; });
  return blocks;
}

TableCache::Slice& Refcounts::slice_of(std::uint64_t cluster, std::uint64_t& index_in_slice) {
  index_in_slice = cluster % per_slice_;
  const std::uint64_t key = cluster / per_slice_;
  if (TableCache::Slice* slice = cache_.find(key)) return *slice;
  const std::uint64_t inside = cluster % per_block_ / per_slice_ * slice_bytes_;
  Bytes bytes(slice_bytes_);
  const std::uint64_t offset = table_[block_of(cluster)] + inside;
  // Blocks start inside the file; one that the file cuts off is zero from there on.
  if (offset < file_.size_bytes()) file_.read(offset, bytes, "a refcount block");
  return cache_.insert(key, std::move(bytes));
}

std::uint64_t Refcounts::get(std::uint64_t cluster) {
  if (!has_block(block_of(cluster))) return 0;
  std::uint64_t index = 0;
  const TableCache::Slice& slice = slice_of(cluster, index);
  return get_refcount(slice.bytes, index, order_);
}

void Refcounts::set(std::uint64_t cluster, std::uint64_t value) {
  std::uint64_t index = 0;
  TableCache::Slice& slice = slice_of(cluster, index);
  set_refcount(slice.bytes, index, order_, value);
  cache_.set_dirty(slice);
}

void Refcounts::take(std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) set(first + i, 1);
}

void Refcounts::release(std::uint64_t cluster) {
  const std::uint64_t present = get(cluster);
  if (present == 0) {
    throw Error(Code::kDamaged,
                fmt::format("{}: cluster {} is in use, but its refcount is 0", name_, cluster),
                "repair the image with qemu-img check -r all");
  }
  set(cluster, present - 1);
  if (present == 1) free_from_ = std::min(free_from_, cluster);
}

// Clusters from `at` that are free, up to `count`, in blocks that are there.
std::uint64_t Refcounts::free_run(std::uint64_t at, std::uint64_t count) {
  std::uint64_t free = 0;
  while (free < count && at + free < end_ && has_block(block_of(at + free)) &&
         get(at + free) == 0) {
    ++free;
  }
  return free;
}

ClusterRun Refcounts::allocate(std::uint64_t count, bool whole) {
  bool first_free = true;
  for (std::uint64_t at = free_from_; at < end_;) {
    if (!has_block(block_of(at))) {
      at = (block_of(at) + 1) * per_block_;
      continue;
    }
    const std::uint64_t free = free_run(at, count);
    if (free > 0 && std::exchange(first_free, false)) free_from_ = at;
    if (free == count || (free > 0 && !whole)) {
      take(at, free);
      if (at == free_from_) free_from_ = at + free;
      return {at, free};
    }
    at += std::max<std::uint64_t>(free, 1);
  }
  if (first_free) free_from_ = end_;
  return allocate_at_end(count);
}

std::uint64_t Refcounts::missing_blocks(std::uint64_t first, std::uint64_t end) const {
  std::uint64_t missing = 0;
  for (std::uint64_t block = block_of(first); block <= block_of(end - 1); ++block) {
    if (!has_block(block)) ++missing;
  }
  return missing;
}

// New blocks come first, then what was asked for: all of it is counted by blocks that are there or
// are among the new ones.
ClusterRun Refcounts::allocate_at_end(std::uint64_t count) {
  std::uint64_t start = end_;
  std::uint64_t blocks = 0;
  for (;;) {
    const std::uint64_t missing = missing_blocks(start, start + blocks + count);
    if (missing > blocks) {
      blocks = missing;
      continue;
    }
    // Beyond the end of the file nothing should be in use; who says so is believed.
    std::uint64_t used = 0;
    for (std::uint64_t i = 0; i < blocks + count; ++i) {
      if (get(start + i) != 0) used = i + 1;
    }
    if (used == 0) break;
    start += used;
    blocks = 0;
  }
  const std::uint64_t end = start + blocks + count;
  if ((block_of(end - 1) + 1) * 8 > limits::kQcow2RefcountTableBytesMax) {
    throw Error(
        Code::kNoSpace,
        fmt::format("{}: a refcount table for {} clusters of {} bytes is "
                    "larger than {} MiB",
                    name_, end, cluster_bytes_, limits::kQcow2RefcountTableBytesMax / limits::kMiB),
        "use larger clusters");
  }
  file_.reserve(end * cluster_bytes_);
  if (blocks > 0) {
    file_.device().write_zeroes(start * cluster_bytes_, blocks * cluster_bytes_,
                                ZeroMode::kAllocate);
  }
  if (table_.size() <= block_of(end - 1)) table_.resize(block_of(end - 1) + 1);
  std::uint64_t next = start;
  for (std::uint64_t block = block_of(start); block <= block_of(end - 1); ++block) {
    if (has_block(block)) continue;
    table_[block] = next++ * cluster_bytes_;
    changed_.push_back(block);
    new_blocks_.push_back(table_[block]);
  }
  take(start, blocks + count);
  end_ = end;
  if (free_from_ == start) free_from_ = end;
  // One more block than are missing is possible where a block boundary moved: it goes unused.
  for (; next < start + blocks; ++next) release(next);
  return {start + blocks, count};
}

std::uint64_t Refcounts::used_end_bytes() {
  while (end_ > first_end_ && get(end_ - 1) == 0) --end_;
  free_from_ = std::min(free_from_, end_);
  return end_ * cluster_bytes_;
}

// The table has outgrown its place: a larger one, with room for as much again.
void Refcounts::move_table() {
  std::uint64_t clusters = 0;
  ClusterRun run;
  do {
    if (run.count > 0) {
      for (std::uint64_t i = 0; i < run.count; ++i) release(run.first + i);
    }
    const std::uint64_t bytes =
        std::min(table_.size() * 8 * 2, std::size_t{limits::kQcow2RefcountTableBytesMax});
    clusters = (bytes + cluster_bytes_ - 1) / cluster_bytes_;
    run = allocate(clusters, true);
  } while (table_.size() * 8 > clusters * cluster_bytes_);
  place_ = {run.first * cluster_bytes_, clusters * cluster_bytes_};
}

Refcounts::Changes Refcounts::take_changes() {
  Changes changes;
  changes.old_place = place_;
  if (table_.size() * 8 > place_.size_bytes) move_table();
  changes.place = place_;
  for (TableCache::Copy& copy : cache_.take_dirty()) {
    const std::uint64_t cluster = copy.key * per_slice_;
    const std::uint64_t inside = cluster % per_block_ / per_slice_ * slice_bytes_;
    changes.blocks.push_back({table_[block_of(cluster)] + inside, std::move(copy.bytes)});
  }
  changes.table_indexes = std::exchange(changed_, {});
  if (!changes.table_indexes.empty()) changes.table = table_;
  return changes;
}

void Refcounts::write_table(const Changes& changes) const {
  if (changes.place != changes.old_place) {
    Bytes bytes(changes.place.size_bytes);
    for (std::size_t i = 0; i < changes.table.size(); ++i) {
      store_be(&bytes[i * 8], changes.table[i]);
    }
    return file_.device().write(changes.place.offset_bytes, bytes);
  }
  // A block may be counted by the one before it: no entry is durable before those below it. Those
  // of one sector are so together.
  constexpr std::uint64_t kInSector = 512 / 8;
  std::optional<std::uint64_t> last;
  for (const std::uint64_t index : changes.table_indexes) {
    const std::uint64_t first = index / kInSector * kInSector;
    if (last == first) continue;
    if (last) file_.device().flush();
    last = first;
    std::array<std::byte, 512> bytes{};
    for (std::uint64_t i = 0; i < kInSector && first + i < changes.table.size(); ++i) {
      store_be(&bytes[i * 8], changes.table[first + i]);
    }
    file_.device().write(changes.place.offset_bytes + first * 8, bytes);
  }
}

}  // namespace lukskeep::storage::qcow2
