// Image: giving clusters to writes, and taking them back.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "storage/qcow2_image.h"

namespace lukskeep::storage::qcow2 {
namespace {

// New neighbours for one part of a request.
constexpr std::uint64_t kClustersMax = 4096;
// Zeroed before others have their turn.
constexpr std::uint64_t kZeroedMax = 4096;

}  // namespace

bool Image::is_metadata(std::uint64_t offset_bytes) const {
  return std::ranges::binary_search(metadata_, offset_bytes) ||
         new_metadata_.contains(offset_bytes);
}

void Image::set_entry(std::uint64_t cluster, const L2Entry& entry) {
  TableCache::Slice* slice = slice_of(cluster);
  const std::uint64_t per_slice = slice->bytes.size() / header_.l2_entry_bytes();
  std::byte* at = &slice->bytes[cluster % per_slice * header_.l2_entry_bytes()];
  const L2Words words = encode_l2_entry(header_, entry);
  store_be(at, words.entry);
  if (header_.extended_l2()) store_be(at + 8, words.bitmap);
  slices_.set_dirty(*slice);
}

void Image::ensure_l2(std::uint64_t cluster) {
  const std::uint64_t index = cluster / header_.l2_entries();
  if (l1_.at(index) != 0) return;
  const ClusterRun run = refcounts_->allocate(1, true);
  const std::uint64_t offset = run.first << header_.cluster_bits;
  // Nothing refers to it yet, and it is durable, like all data, before anything does.
  file_.device().write_zeroes(offset, header_.cluster_bytes(), ZeroMode::kAllocate);
  new_metadata_.insert(offset);
  l1_[index] = offset | kCopiedFlag;
  l1_changed_.insert(index);
}

// The cluster has a place of its own already, where this can be written: absent if not.
std::optional<Placement> Image::place_present(const L2Entry& found, std::uint64_t offset_bytes,
                                              std::uint64_t length_bytes) const {
  if (found.kind != L2Entry::Kind::kAllocated || !found.copied) return {};
  if (is_metadata(found.host_bytes)) {
    throw Error(Code::kDamaged,
                fmt::format("{}: the data of guest cluster {} would overwrite a table at {}",
                            quoted_name(), cluster_of(offset_bytes), found.host_bytes),
                "repair the image with qemu-img check -r all");
  }
  const std::uint64_t inside = offset_bytes & (header_.cluster_bytes() - 1);
  const std::uint64_t unit = header_.unit_bytes();
  Placement placement{.offset_bytes = offset_bytes,
                      .length_bytes = std::min(length_bytes, header_.cluster_bytes() - inside),
                      .host_bytes = found.host_bytes + inside,
                      .first_cluster = cluster_of(offset_bytes),
                      .clusters = 1,
                      .fill_start_bytes = offset_bytes};
  const std::uint64_t end = offset_bytes + placement.length_bytes;
  placement.fill_end_bytes = end;
  const std::uint32_t touched = units_touched(placement, placement.first_cluster);
  placement.direct = (found.allocated & touched) == touched;
  if (placement.direct) return placement;
  // Of units that hold data already nothing is copied: others may be writing there.
  const auto has_data = [&](std::uint64_t at) {
    const std::uint64_t index = (at & (header_.cluster_bytes() - 1)) / unit;
    return (found.allocated & (std::uint32_t{1} << (header_.extended_l2() ? index : 0))) != 0;
  };
  if (!has_data(offset_bytes)) placement.fill_start_bytes -= offset_bytes % unit;
  if (!has_data(end - 1)) placement.fill_end_bytes = (end + unit - 1) / unit * unit;
  return placement;
}

Placement Image::place_new(const L2Entry& found, std::uint64_t offset_bytes,
                           std::uint64_t length_bytes) {
  if (found.kind == L2Entry::Kind::kAllocated) refuse_table(found.host_bytes);
  const std::uint64_t cluster_bytes = header_.cluster_bytes();
  const std::uint64_t first = cluster_of(offset_bytes);
  const bool moves = found.kind != L2Entry::Kind::kUnallocated;
  const std::uint64_t last = cluster_of(offset_bytes + length_bytes - 1);
  std::uint64_t wanted = moves ? 1 : std::min(last - first + 1, kClustersMax);
  for (std::uint64_t i = 1; i < wanted; ++i) {
    if (busy_.contains(first + i) || entry(first + i).kind != L2Entry::Kind::kUnallocated) {
      wanted = i;
    }
  }
  // Tables first: what fails afterwards has taken no cluster for data.
  for (std::uint64_t i = 0; i < wanted; ++i) ensure_l2(first + i);
  const ClusterRun run = refcounts_->allocate(wanted, false);
  const std::uint64_t end =
      std::min(offset_bytes + length_bytes, (first + run.count) * cluster_bytes);
  // What moves, moves whole.
  const std::uint64_t unit = moves ? cluster_bytes : header_.unit_bytes();
  Placement placement{.offset_bytes = offset_bytes,
                      .length_bytes = end - offset_bytes,
                      .host_bytes = run.first * cluster_bytes + offset_bytes % cluster_bytes,
                      .fresh = true,
                      .first_cluster = first,
                      .clusters = run.count,
                      .fill_start_bytes = offset_bytes - offset_bytes % unit,
                      .fill_end_bytes = (end + unit - 1) / unit * unit};
  return placement;
}

Placement Image::place(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  std::unique_lock lock(mutex_);
  require_unfailed();
  const std::uint64_t cluster = cluster_of(offset_bytes);
  not_busy_.wait(lock, [&] { return !busy_.contains(cluster); });
  const L2Entry found = entry(cluster);
  std::optional<Placement> present = place_present(found, offset_bytes, length_bytes);
  if (present && present->direct) {
    // As far as the neighbours are neighbours in the file, too.
    while (present->length_bytes < length_bytes) {
      const std::uint64_t at = offset_bytes + present->length_bytes;
      if (busy_.contains(cluster_of(at))) break;
      const auto next =
          place_present(entry(cluster_of(at)), at, length_bytes - present->length_bytes);
      if (!next || !next->direct ||
          next->host_bytes != present->host_bytes + present->length_bytes) {
        break;
      }
      present->length_bytes += next->length_bytes;
    }
    return *present;
  }
  Placement placement = present ? *present : place_new(found, offset_bytes, length_bytes);
  for (std::uint64_t i = 0; i < placement.clusters; ++i) busy_.insert(cluster + i);
  return placement;
}

// A bit for each unit of `cluster` that the placement writes to.
std::uint32_t Image::units_touched(const Placement& placement, std::uint64_t cluster) const {
  if (!header_.extended_l2()) return UINT32_MAX;
  const std::uint64_t unit = header_.unit_bytes();
  const std::uint64_t start = cluster << header_.cluster_bits;
  const std::uint64_t from = std::max(placement.fill_start_bytes, start) - start;
  const std::uint64_t to =
      std::min(placement.fill_end_bytes, start + header_.cluster_bytes()) - start;
  std::uint32_t bits = 0;
  for (std::uint64_t i = from / unit; i * unit < to; ++i) bits |= std::uint32_t{1} << i;
  return bits;
}

void Image::finish(const Placement& placement) {
  for (std::uint64_t i = 0; i < placement.clusters; ++i) busy_.erase(placement.first_cluster + i);
  not_busy_.notify_all();
}

void Image::link(const Placement& placement) {
  const std::lock_guard lock(mutex_);
  try {
    for (std::uint64_t i = 0; i < placement.clusters; ++i) link_one(placement, i);
  } catch (const std::exception& error) {
    // Some of it may be linked: what is in memory must not reach storage.
    failure_ = error.what();
    finish(placement);
    throw;
  }
  finish(placement);
}

void Image::link_one(const Placement& placement, std::uint64_t index) {
  const std::uint64_t cluster = placement.first_cluster + index;
  const std::uint32_t touched = units_touched(placement, cluster);
  const L2Entry old = entry(cluster);
  L2Entry next = old;
  if (placement.fresh) {
    const std::uint64_t first_host =
        placement.host_bytes - placement.offset_bytes % header_.cluster_bytes();
    next = {.kind = L2Entry::Kind::kAllocated,
            .copied = true,
            .host_bytes = first_host + (index << header_.cluster_bits),
            .zero = old.zero};
    if (old.kind != L2Entry::Kind::kUnallocated) free_host(old);
  }
  next.allocated |= touched;
  next.zero &= ~touched;
  set_entry(cluster, next);
}

void Image::abandon(const Placement& placement) noexcept {
  const std::lock_guard lock(mutex_);
  if (placement.fresh) {
    freed_.push_back({.first = cluster_of(placement.host_bytes), .count = placement.clusters});
  }
  finish(placement);
}

void Image::free_host(const L2Entry& entry) {
  // Each cluster that compressed data touches has a reference of it.
  const std::uint64_t size_bytes =
      entry.kind == L2Entry::Kind::kAllocated ? 1 : entry.compressed_bytes;
  const std::uint64_t first = cluster_of(entry.host_bytes);
  const std::uint64_t last = cluster_of(entry.host_bytes + size_bytes - 1);
  for (std::uint64_t i = first; i <= last; ++i) refuse_table(i << header_.cluster_bits);
  freed_.push_back({.first = first, .count = last - first + 1});
}

// What an entry calls data may be a table, if somebody wants that to be overwritten.
void Image::refuse_table(std::uint64_t host_bytes) const {
  const bool table =
      is_metadata(host_bytes) || std::ranges::any_of(main_tables_, [&](const Place& place) {
        return host_bytes >= place.offset_bytes &&
               host_bytes - place.offset_bytes < place.size_bytes;
      });
  if (!table) return;
  throw Error(Code::kDamaged, fmt::format("{}: data at {} is a table", quoted_name(), host_bytes),
              "repair the image with qemu-img check -r all");
}

// Absent if qcow2 has no way to say so.
std::optional<L2Entry> Image::zeroed(const L2Entry& entry, ZeroMode mode) const {
  const bool allocated = entry.kind == L2Entry::Kind::kAllocated && entry.copied;
  const bool keeps = mode == ZeroMode::kAllocate && allocated && header_.version == 3;
  if (keeps) {
    return L2Entry{.kind = L2Entry::Kind::kAllocated,
                   .copied = true,
                   .host_bytes = entry.host_bytes,
                   .zero = UINT32_MAX};
  }
  if (!parts_.backing) return L2Entry{};
  if (header_.version == 2) return {};
  return L2Entry{.zero = UINT32_MAX};
}

std::uint64_t Image::zero_clusters(std::uint64_t first, std::uint64_t count, ZeroMode mode) {
  std::unique_lock lock(mutex_);
  require_unfailed();
  const std::uint64_t l2_entries = header_.l2_entries();
  std::uint64_t done = 0;
  while (done < count && done < kZeroedMax) {
    const std::uint64_t cluster = first + done;
    if (l1_.at(cluster / l2_entries) == 0 && !parts_.backing) {
      // Nothing is there. Others may be about to link some of it, but not what is zeroed here.
      const std::uint64_t skipped = l2_entries - cluster % l2_entries;
      if (skipped >= count - done) return count;
      return done + skipped;
    }
    not_busy_.wait(lock, [&] { return !busy_.contains(cluster); });
    const L2Entry old = entry(cluster);
    const std::optional<L2Entry> next = zeroed(old, mode);
    if (!next) return done;
    if (*next != old) {
      if (old.kind == L2Entry::Kind::kAllocated && is_metadata(old.host_bytes)) {
        throw Error(Code::kDamaged,
                    fmt::format("{}: guest cluster {} is a table at {}", quoted_name(), cluster,
                                old.host_bytes),
                    "repair the image with qemu-img check -r all");
      }
      ensure_l2(cluster);
      if (old.kind != L2Entry::Kind::kUnallocated && next->kind != L2Entry::Kind::kAllocated) {
        free_host(old);
      }
      set_entry(cluster, *next);
    }
    ++done;
    if (slices_.crowded() || refcounts_->crowded()) break;
  }
  return done;
}

}  // namespace lukskeep::storage::qcow2
