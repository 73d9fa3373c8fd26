// The lists of snapshots and bitmaps: entries of varying size, one after the other.
#include <array>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "storage/qcow2_format.h"

namespace lukskeep::storage::qcow2 {
namespace {

constexpr std::size_t kSnapshotBytes = 40;  // §Snapshots: what is fixed of an entry
constexpr std::size_t kBitmapBytes = 24;    // §Bitmap directory: likewise
constexpr std::uint64_t kBitmapNameBytesMax = 1023;

struct Cursor {
  ByteView rest;
  std::string_view what;
  std::string_view list;
  std::size_t index = 0;

  ByteView take(std::uint64_t length_bytes) {
    if (length_bytes > rest.size()) {
      throw Error(Code::kDamaged,
                  fmt::format("{}: entry {} of the {} ends beyond it", what, index, list));
    }
    const ByteView taken = rest.first(length_bytes);
    rest = rest.subspan(length_bytes);
    return taken;
  }

  // Entries are padded to 8 bytes; the last one of a table may lack that.
  void pad(std::uint64_t entry_bytes) {
    const std::uint64_t padding = (8 - entry_bytes % 8) % 8;
    rest = rest.subspan(std::min<std::uint64_t>(padding, rest.size()));
  }

  [[noreturn]] void damaged(std::string_view why) const {
    throw Error(Code::kDamaged, fmt::format("{}: entry {} of the {} {}", what, index, list, why));
  }
};

bool between_clusters(std::uint64_t offset, std::uint32_t cluster_bits) {
  return (offset & ((std::uint64_t{1} << cluster_bits) - 1)) != 0;
}

}  // namespace

std::vector<Snapshot> decode_snapshots(ByteView table, std::uint32_t count,
                                       std::uint32_t cluster_bits, std::string_view what) {
  Cursor cursor{.rest = table, .what = what, .list = "snapshot table"};
  std::vector<Snapshot> snapshots;
  for (; cursor.index < count; ++cursor.index) {
    const ByteView fixed = cursor.take(kSnapshotBytes);
    Snapshot snapshot;
    snapshot.l1_offset_bytes = load_be<std::uint64_t>(fixed.data());
    snapshot.l1_entries = load_be<std::uint32_t>(&fixed[8]);
    const auto id_bytes = load_be<std::uint16_t>(&fixed[12]);
    const auto name_bytes = load_be<std::uint16_t>(&fixed[14]);
    const auto extra_bytes = load_be<std::uint32_t>(&fixed[36]);
    if (between_clusters(snapshot.l1_offset_bytes, cluster_bits)) {
      cursor.damaged("has an L1 table between clusters");
    }
    if (std::uint64_t{snapshot.l1_entries} * 8 > limits::kQcow2L1BytesMax) {
      cursor.damaged("has an L1 table that is too large");
    }
    cursor.take(extra_bytes);
    snapshot.id = as_string_view(cursor.take(id_bytes));
    snapshot.name = as_string_view(cursor.take(name_bytes));
    cursor.pad(kSnapshotBytes + std::uint64_t{extra_bytes} + id_bytes + name_bytes);
    snapshots.push_back(std::move(snapshot));
  }
  return snapshots;
}

std::vector<Bitmap> decode_bitmaps(ByteView directory, std::uint32_t count,
                                   std::uint32_t cluster_bits, std::string_view what) {
  Cursor cursor{.rest = directory, .what = what, .list = "bitmap directory"};
  std::vector<Bitmap> bitmaps;
  for (; cursor.index < count; ++cursor.index) {
    const ByteView fixed = cursor.take(kBitmapBytes);
    Bitmap bitmap;
    bitmap.table_offset_bytes = load_be<std::uint64_t>(fixed.data());
    bitmap.table_entries = load_be<std::uint32_t>(&fixed[8]);
    bitmap.in_use = (load_be<std::uint32_t>(&fixed[12]) & 1) != 0;
    const auto name_bytes = load_be<std::uint16_t>(&fixed[18]);
    const auto extra_bytes = load_be<std::uint32_t>(&fixed[20]);
    if (name_bytes == 0 || name_bytes > kBitmapNameBytesMax) {
      cursor.damaged(fmt::format("has a name of {} bytes", name_bytes));
    }
    if (between_clusters(bitmap.table_offset_bytes, cluster_bits)) {
      cursor.damaged("has a table between clusters");
    }
    cursor.take(extra_bytes);
    bitmap.name = as_string_view(cursor.take(name_bytes));
    cursor.pad(kBitmapBytes + std::uint64_t{extra_bytes} + name_bytes);
    bitmaps.push_back(std::move(bitmap));
  }
  return bitmaps;
}

}  // namespace lukskeep::storage::qcow2
