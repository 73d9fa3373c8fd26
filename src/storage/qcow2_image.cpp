#include "storage/qcow2_image.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::storage::qcow2 {
namespace {

constexpr const char* kRepairHint = "repair the image with qemu-img check -r all";

template <typename Names>
std::string some_names(const Names& named) {
  std::string text;
  for (const auto& one : named) {
    if (text.size() > 100) return text + ", …";
    text += fmt::format("{}'{}'", text.empty() ? "" : ", ", printable(one.name));
  }
  return text;
}

}  // namespace

Header read_header(Device& file) {
  const std::uint64_t size = file.size_bytes();
  Bytes start(std::min<std::uint64_t>(size, kHeaderBytesV2));
  file.read(0, start);
  const std::uint64_t area = std::max<std::uint64_t>(header_area_bytes(start), start.size());
  start.resize(std::min(area, size));
  file.read(0, start);
  return decode_header(start, size, fmt::format("'{}'", file.name()));
}

Image::Request::Request(const Image& image) : image_(image) {
  const std::lock_guard lock(image_.mutex_);
  generation_ = image_.generation_;
  ++image_.requests_[generation_];
}

Image::Request::~Request() {
  const std::lock_guard lock(image_.mutex_);
  --image_.requests_[generation_];
}

Image::Image(ImageParts parts)
    : parts_(std::move(parts)),
      file_(parts_.file),
      header_(read_header(file_.device())),
      main_tables_(main_tables(header_)),
      slices_(slice_bytes_of(header_.cluster_bytes())) {
  if (header_.crypt_method == CryptMethod::kLegacyAes) {
    throw Error(
        Code::kUnsupported,
        fmt::format("{}: it is encrypted with qcow2's old AES, which is not secure", quoted_name()),
        "convert it with qemu-img of QEMU 7 or older");
  }
  require_parts();
  read_l1();
  if (parts_.writable) {
    check_writable();
    refcounts_ = std::make_unique<Refcounts>(header_, file_, quoted_name());
    collect_metadata();
    if (header_.autoclear_features != 0) {
      // Whatever these bits speak of will not be kept up.
      header_.autoclear_features = 0;
      write_header_fields(88, Bytes(8));
    }
  }
}

Image::~Image() {
  if (!parts_.writable || !failure_.empty()) return;
  try {
    settle();
  } catch (const std::exception&) {
    // Whoever wants to know calls flush().
    return;
  }
}

void Image::settle() {
  commit();
  release_limbo(true);
  commit();
  file_.trim(refcounts_->used_end_bytes());
}

std::string Image::quoted_name() const { return fmt::format("'{}'", parts_.file->name()); }

std::uint64_t Image::size_bytes() const {
  const std::lock_guard lock(mutex_);
  return header_.size_bytes;
}

void Image::require_parts() {
  if (header_.backing_file.empty()) {
    parts_.backing.reset();
  } else if (!parts_.backing) {
    throw Error(Code::kUnsafe,
                fmt::format("{} reads from a backing file, '{}'", quoted_name(),
                            printable(header_.backing_file, 256)),
                "--allow-backing allows that, if you trust who made the image");
  }
  if (header_.has_data_file() && !parts_.data_file) {
    throw Error(Code::kUnsafe,
                fmt::format("{} has its data in an external file, '{}'", quoted_name(),
                            printable(header_.data_file.value_or(""), 256)),
                "--allow-data-file allows that, if you trust who made the image");
  }
}

void Image::read_l1() {
  l1_.resize(header_.l1_entries);
  if (l1_.empty()) return;
  Bytes bytes(l1_.size() * 8);
  file_.read(header_.l1_offset_bytes, bytes, "the L1 table");
  for (std::size_t i = 0; i < l1_.size(); ++i) {
    l1_[i] = load_be<std::uint64_t>(&bytes[i * 8]);
  }
}

void Image::check_writable() {
  const auto refuse = [&](std::string_view why, std::string hint) {
    throw Error(Code::kUnsupported, fmt::format("{} cannot be written: {}", quoted_name(), why),
                std::move(hint));
  };
  if ((header_.incompatible_features & kIncompatibleCorrupt) != 0) {
    refuse("it is marked as corrupt", kRepairHint);
  }
  if ((header_.incompatible_features & kIncompatibleDirty) != 0) {
    refuse("it was not closed cleanly, its refcounts may be wrong", kRepairHint);
  }
  if (header_.has_data_file()) {
    refuse("its data is in an external file", "convert it with qemu-img convert");
  }
  if (header_.snapshots > 0) refuse_snapshots();
  if (header_.bitmaps > 0) refuse_bitmaps();
}

void Image::refuse_snapshots() const {
  const std::uint64_t offset = header_.snapshots_offset_bytes;
  Bytes table(
      std::min<std::uint64_t>(file_.size_bytes() - offset, limits::kQcow2SnapshotTableBytesMax));
  file_.device().read(offset, table);
  const auto snapshots =
      decode_snapshots(table, header_.snapshots, header_.cluster_bits, quoted_name());
  throw Error(Code::kUnsupported,
              fmt::format("{} cannot be written: it holds {} internal snapshots, {}", quoted_name(),
                          snapshots.size(), some_names(snapshots)),
              "delete them with qemu-img snapshot -d, or copy the image with qemu-img convert");
}

void Image::refuse_bitmaps() const {
  Bytes directory(header_.bitmap_directory.size_bytes);
  file_.read(header_.bitmap_directory.offset_bytes, directory, "the bitmap directory");
  const auto bitmaps =
      decode_bitmaps(directory, header_.bitmaps, header_.cluster_bits, quoted_name());
  throw Error(Code::kUnsupported,
              fmt::format("{} cannot be written: it holds {} dirty bitmaps, {}, which would miss "
                          "the changes",
                          quoted_name(), bitmaps.size(), some_names(bitmaps)),
              "remove them with qemu-img bitmap --remove");
}

// Where no data may be written, whatever L2 says; also finds tables that are in two places.
void Image::collect_metadata() {
  for (std::uint64_t i = 0; i < l1_.size(); ++i) {
    const std::uint64_t offset = decode_l1_entry(l1_[i], header_.cluster_bits, quoted_name(), i);
    if (offset == 0) continue;
    metadata_.push_back(offset);
    // A hint of a reference that somebody else has, too: snapshots, which are not there.
    const std::uint64_t refcount = refcounts_->get(cluster_of(offset));
    if (refcount == 1) continue;
    throw Error(Code::kDamaged,
                fmt::format("{} cannot be written: the L2 table at {} has refcount {}, not 1",
                            quoted_name(), offset, refcount),
                kRepairHint);
  }
  std::ranges::copy(refcounts_->blocks(), std::back_inserter(metadata_));
  // What nobody counts would be given to data, and who writes that could write a header.
  const auto require_counted = [&](std::uint64_t offset) {
    if (refcounts_->get(cluster_of(offset)) != 0) return;
    throw Error(
        Code::kDamaged,
        fmt::format("{} cannot be written: the table at {} has refcount 0", quoted_name(), offset),
        kRepairHint);
  };
  for (const std::uint64_t offset : metadata_) require_counted(offset);
  for (const Place& place : main_tables_) {
    for (std::uint64_t at = 0; at < place.size_bytes; at += header_.cluster_bytes()) {
      require_counted(place.offset_bytes + at);
    }
  }
  std::ranges::sort(metadata_);
  const auto twice = std::ranges::adjacent_find(metadata_);
  if (twice != metadata_.end()) {
    throw Error(Code::kDamaged,
                fmt::format("{} cannot be written: two tables are at {}", quoted_name(), *twice),
                kRepairHint);
  }
  for (const Place& place : main_tables_) {
    const auto inside = std::ranges::lower_bound(metadata_, place.offset_bytes);
    if (inside == metadata_.end() || *inside >= place.offset_bytes + place.size_bytes) continue;
    throw Error(Code::kDamaged,
                fmt::format("{} cannot be written: the table at {} is inside another",
                            quoted_name(), *inside),
                kRepairHint);
  }
}

void Image::require_unfailed() const {
  if (failure_.empty()) return;
  throw Error(Code::kIo, fmt::format("{} is not written any more: {}", quoted_name(), failure_));
}

// ---- Reading the mapping ---------------------------------------------------------------------

// Null where L1 has no table.
TableCache::Slice* Image::slice_of(std::uint64_t cluster) const {
  const std::uint64_t index = cluster / header_.l2_entries();
  if (index >= l1_.size() || l1_[index] == 0) return nullptr;
  const std::uint64_t slice_bytes = slice_bytes_of(header_.cluster_bytes());
  const std::uint64_t per_slice = slice_bytes / header_.l2_entry_bytes();
  const std::uint64_t key = cluster / per_slice;
  if (TableCache::Slice* slice = slices_.find(key)) return slice;
  const std::uint64_t offset =
      decode_l1_entry(l1_[index], header_.cluster_bits, quoted_name(), index);
  if (offset == 0) return nullptr;
  const bool overlaps = std::ranges::any_of(main_tables_, [&](const Place& place) {
    return offset >= place.offset_bytes && offset < place.offset_bytes + place.size_bytes;
  });
  if (overlaps || offset >= file_.size_bytes()) {
    throw Error(Code::kDamaged,
                fmt::format("{}: the L2 table {} at {} is {}", quoted_name(), index, offset,
                            overlaps ? "inside another table" : "beyond the end of the file"));
  }
  Bytes bytes(slice_bytes);
  const std::uint64_t at = offset + cluster % header_.l2_entries() / per_slice * slice_bytes;
  if (at < file_.size_bytes()) file_.read(at, bytes, "an L2 table");
  return &slices_.insert(key, std::move(bytes));
}

L2Entry Image::entry(std::uint64_t cluster) const {
  const TableCache::Slice* slice = slice_of(cluster);
  if (slice == nullptr) return {};
  const std::uint64_t per_slice = slice->bytes.size() / header_.l2_entry_bytes();
  const std::byte* at = &slice->bytes[cluster % per_slice * header_.l2_entry_bytes()];
  L2Words words{.entry = load_be<std::uint64_t>(at)};
  if (header_.extended_l2()) words.bitmap = load_be<std::uint64_t>(at + 8);
  L2Entry entry = decode_l2_entry(header_, words, quoted_name(), cluster);
  check_host(entry, cluster);
  return entry;
}

void Image::check_host(const L2Entry& entry, std::uint64_t cluster) const {
  if (entry.kind == L2Entry::Kind::kUnallocated) return;
  const auto refuse = [&](std::string_view why) {
    throw Error(Code::kDamaged, fmt::format("{}: guest cluster {} at {} is {}", quoted_name(),
                                            cluster, entry.host_bytes, why));
  };
  if (header_.has_data_file()) {
    if (header_.raw_data_file() && entry.host_bytes != cluster << header_.cluster_bits) {
      refuse("elsewhere in the raw data file");
    }
    return;
  }
  if (entry.host_bytes >= file_.size_bytes()) refuse("beyond the end of the file");
  for (const Place& place : main_tables_) {
    if (entry.host_bytes >= place.offset_bytes &&
        entry.host_bytes < place.offset_bytes + place.size_bytes) {
      refuse("inside a table");
    }
  }
}

// One unit, or what is left of it.
Piece Image::piece_at(std::uint64_t offset_bytes) const {
  const std::uint64_t cluster = cluster_of(offset_bytes);
  const std::uint64_t inside = offset_bytes & (header_.cluster_bytes() - 1);
  const std::uint64_t unit = header_.unit_bytes();
  const L2Entry found = entry(cluster);
  Piece piece{.length_bytes = unit - inside % unit};
  const std::uint32_t bit = std::uint32_t{1} << (header_.extended_l2() ? inside / unit : 0);
  if (found.kind == L2Entry::Kind::kCompressed) {
    piece.kind = Piece::Kind::kCompressed;
    piece.length_bytes = header_.cluster_bytes() - inside;
    piece.host_bytes = found.host_bytes;
    piece.compressed_bytes = found.compressed_bytes;
    piece.skip_bytes = inside;
  } else if ((found.allocated & bit) != 0) {
    piece.kind = Piece::Kind::kData;
    piece.host_bytes = found.host_bytes + inside;
  } else if ((found.zero & bit) == 0 && parts_.backing) {
    piece.kind = Piece::Kind::kBacking;
  }
  return piece;
}

Piece Image::map(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  const std::lock_guard lock(mutex_);
  Piece whole = piece_at(offset_bytes);
  // Where there is no L2 table nothing is to be found one by one.
  const std::uint64_t table_bytes = header_.l2_entries() << header_.cluster_bits;
  while (whole.length_bytes < length_bytes && whole.kind != Piece::Kind::kCompressed) {
    const std::uint64_t at = offset_bytes + whole.length_bytes;
    const std::uint64_t index = at / table_bytes;
    if (index < l1_.size() && l1_[index] == 0) {
      const bool same = whole.kind == (parts_.backing ? Piece::Kind::kBacking : Piece::Kind::kZero);
      if (!same) break;
      whole.length_bytes += table_bytes - at % table_bytes;
      continue;
    }
    const Piece next = piece_at(at);
    if (next.kind != whole.kind) break;
    if (next.kind == Piece::Kind::kData &&
        next.host_bytes != whole.host_bytes + whole.length_bytes) {
      break;
    }
    whole.length_bytes += next.length_bytes;
  }
  whole.length_bytes = std::min(whole.length_bytes, length_bytes);
  return whole;
}

}  // namespace lukskeep::storage::qcow2
