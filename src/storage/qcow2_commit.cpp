// Image: bringing changes of the metadata to storage, in the order that qcow2_image.h names.
#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "storage/qcow2_image.h"

namespace lukskeep::storage::qcow2 {
namespace {

constexpr std::uint64_t kHeaderSizeOffset = 24;
constexpr std::uint64_t kHeaderL1Offset = 36;  // the number of entries, then where they are
constexpr std::uint64_t kHeaderRefcountTableOffset = 48;

}  // namespace

void Image::write_header_fields(std::uint64_t offset_bytes, ByteView bytes) {
  // One request inside one sector: there is no half of it.
  file_.device().write(offset_bytes, bytes);
  file_.device().flush();
}

void Image::write_all(const std::vector<PlacedBytes>& writes) {
  for (const PlacedBytes& write : writes) {
    file_.device().write(write.offset_bytes, write.bytes);
  }
}

Image::Changes Image::take_changes() {
  Changes changes;
  changes.refcounts = refcounts_->take_changes();
  for (const std::uint64_t offset : refcounts_->take_new_blocks()) new_metadata_.insert(offset);
  if (changes.refcounts.place != changes.refcounts.old_place) {
    const Place& old = changes.refcounts.old_place;
    freed_.push_back(
        {.first = cluster_of(old.offset_bytes), .count = old.size_bytes >> header_.cluster_bits});
    header_.refcount_table_offset_bytes = changes.refcounts.place.offset_bytes;
    header_.refcount_table_clusters =
        static_cast<std::uint32_t>(changes.refcounts.place.size_bytes >> header_.cluster_bits);
    main_tables_ = main_tables(header_);
  }
  const std::uint64_t slice_bytes = slice_bytes_of(header_.cluster_bytes());
  const std::uint64_t per_slice = slice_bytes / header_.l2_entry_bytes();
  for (TableCache::Copy& copy : slices_.take_dirty()) {
    const std::uint64_t cluster = copy.key * per_slice;
    const std::uint64_t table = l1_[cluster / header_.l2_entries()] & ~kCopiedFlag;
    const std::uint64_t inside = cluster % header_.l2_entries() / per_slice * slice_bytes;
    changes.slices.push_back({table + inside, std::move(copy.bytes)});
  }
  for (const std::uint64_t index : l1_changed_) {
    Bytes bytes(8);
    store_be(bytes.data(), l1_[index]);
    changes.l1.push_back({header_.l1_offset_bytes + index * 8, std::move(bytes)});
  }
  l1_changed_.clear();
  changes.freed = std::exchange(freed_, {});
  return changes;
}

void Image::write_changes(const Changes& changes) {
  Device& device = file_.device();
  write_all(changes.refcounts.blocks);
  device.flush();
  if (!changes.refcounts.table.empty()) {
    refcounts_->write_table(changes.refcounts);
    device.flush();
  }
  if (changes.refcounts.place != changes.refcounts.old_place) {
    std::array<std::byte, 12> fields{};
    store_be(fields.data(), changes.refcounts.place.offset_bytes);
    store_be(&fields[8], static_cast<std::uint32_t>(changes.refcounts.place.size_bytes >>
                                                    header_.cluster_bits));
    write_header_fields(kHeaderRefcountTableOffset, fields);
  }
  write_all(changes.slices);
  write_all(changes.l1);
  if (!changes.slices.empty() || !changes.l1.empty()) device.flush();
}

// True if there was something to write: then all data is durable, too.
bool Image::commit() {
  const std::lock_guard serial(commit_mutex_);
  Changes changes;
  {
    const std::lock_guard lock(mutex_);
    require_unfailed();
    if (!slices_.any_dirty() && !refcounts_->any_dirty() && l1_changed_.empty() && freed_.empty() &&
        limbo_.empty() && limbo_next_.empty()) {
      return false;
    }
    // What is taken and not written is lost to this process, whatever stopped it.
    try {
      changes = take_changes();
    } catch (const std::exception& error) {
      failure_ = error.what();
      throw;
    }
  }
  try {
    write_changes(changes);
    retire(std::move(changes.freed));
  } catch (const std::exception& error) {
    const std::lock_guard lock(mutex_);
    failure_ = error.what();
    throw;
  }
  return true;
}

// Nothing on storage refers to `freed` now. It is given back when the requests that may still read
// it are done: they began in this generation or the one before.
void Image::retire(std::vector<ClusterRun> freed) {
  {
    const std::lock_guard lock(mutex_);
    slices_.written();
    refcounts_->written();
    std::ranges::copy(freed, std::back_inserter(limbo_next_));
    if (requests_[0] + requests_[1] == 0) {
      std::ranges::copy(limbo_next_, std::back_inserter(limbo_));
      limbo_next_.clear();
    } else if (requests_[1 - generation_] != 0) {
      return;
    }
  }
  release_limbo(false);
}

void Image::release_limbo(bool all) {
  std::vector<ClusterRun> ready;
  {
    const std::lock_guard lock(mutex_);
    ready = std::exchange(limbo_, {});
    if (all) {
      std::ranges::copy(limbo_next_, std::back_inserter(ready));
      limbo_next_.clear();
    }
    limbo_ = std::exchange(limbo_next_, {});
    generation_ = 1 - generation_;
  }
  // Storage first, while the clusters are still nobody's. The refcounts are written by the next
  // commit: until then they are a leak.
  punch(ready);
  const std::lock_guard lock(mutex_);
  for (const ClusterRun& run : ready) {
    for (std::uint64_t i = 0; i < run.count; ++i) refcounts_->release(run.first + i);
  }
}

// Gives the storage of `runs` back, as far as nothing else (compressed clusters) has a share in it.
void Image::punch(const std::vector<ClusterRun>& runs) {
  std::vector<std::uint64_t> clusters;
  {
    const std::lock_guard lock(mutex_);
    for (const ClusterRun& run : runs) {
      for (std::uint64_t i = 0; i < run.count; ++i) {
        if (refcounts_->get(run.first + i) == 1) clusters.push_back(run.first + i);
      }
    }
  }
  std::ranges::sort(clusters);
  for (std::size_t i = 0; i < clusters.size();) {
    std::size_t end = i + 1;
    while (end < clusters.size() && clusters[end] == clusters[end - 1] + 1) ++end;
    const std::uint64_t offset = clusters[i] << header_.cluster_bits;
    const std::uint64_t stop =
        std::min((clusters[end - 1] + 1) << header_.cluster_bits, file_.size_bytes());
    if (stop > offset) file_.device().write_zeroes(offset, stop - offset, ZeroMode::kPunch);
    i = end;
  }
}

void Image::flush() {
  if (!parts_.writable) return;
  if (!commit()) file_.device().flush();
}

void Image::relieve() {
  bool crowded = false;
  {
    const std::lock_guard lock(mutex_);
    crowded = slices_.crowded() || refcounts_->crowded();
  }
  if (crowded) commit();
}

// ---- Size ------------------------------------------------------------------------------------

void Image::resize(std::uint64_t size_bytes) {
  if (parts_.backing) {
    throw Error(Code::kUnsupported,
                fmt::format("cannot resize {}: it has a backing file", quoted_name()),
                "resize it with qemu-img resize");
  }
  const std::lock_guard serial(commit_mutex_);
  std::vector<ClusterRun> freed;
  {
    // Rare enough to keep everybody else waiting.
    const std::lock_guard lock(mutex_);
    require_unfailed();
    Header next = header_;
    next.size_bytes = size_bytes;
    const std::uint64_t entries = next.l1_entries_needed();
    if (entries * 8 > limits::kQcow2L1BytesMax) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: {} bytes are too many for clusters of {} bytes", quoted_name(),
                              size_bytes, header_.cluster_bytes()));
    }
    try {
      if (entries > l1_.size()) freed = move_l1(entries);
      std::array<std::byte, 8> field{};
      store_be(field.data(), size_bytes);
      write_header_fields(kHeaderSizeOffset, field);
    } catch (const std::exception& error) {
      failure_ = error.what();
      throw;
    }
    header_.size_bytes = size_bytes;
  }
  retire(std::move(freed));
}

// A larger copy of L1, first counted and durable, then in the header. Gives what is free then.
std::vector<ClusterRun> Image::move_l1(std::uint64_t entries) {
  entries = std::min(entries + entries / 2, limits::kQcow2L1BytesMax / 8);
  const auto clusters_of = [&](std::uint64_t count) {
    return (count * 8 + header_.cluster_bytes() - 1) >> header_.cluster_bits;
  };
  const ClusterRun run = refcounts_->allocate(clusters_of(entries), true);
  const std::uint64_t offset = run.first << header_.cluster_bits;
  Bytes bytes(run.count << header_.cluster_bits);
  for (std::size_t i = 0; i < l1_.size(); ++i) store_be(&bytes[i * 8], l1_[i]);
  file_.device().write(offset, bytes);
  Changes changes = take_changes();
  write_changes(changes);
  std::array<std::byte, 12> fields{};
  store_be(fields.data(), static_cast<std::uint32_t>(entries));
  store_be(&fields[4], offset);
  write_header_fields(kHeaderL1Offset, fields);
  const std::uint64_t old_clusters = clusters_of(l1_.size());
  if (old_clusters > 0) {
    changes.freed.push_back({.first = cluster_of(header_.l1_offset_bytes), .count = old_clusters});
  }
  l1_.resize(entries);
  header_.l1_entries = static_cast<std::uint32_t>(entries);
  header_.l1_offset_bytes = offset;
  main_tables_ = main_tables(header_);
  return std::move(changes.freed);
}

}  // namespace lukskeep::storage::qcow2
