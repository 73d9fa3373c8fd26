#include "storage/qcow2_format.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::storage::qcow2 {
namespace {

// §Header extensions.
constexpr std::uint32_t kExtensionEnd = 0;
constexpr std::uint32_t kExtensionBackingFormat = 0xe2792aca;
constexpr std::uint32_t kExtensionFeatureNames = 0x6803f857;
constexpr std::uint32_t kExtensionBitmaps = 0x23852875;
constexpr std::uint32_t kExtensionCryptoHeader = 0x0537be77;
constexpr std::uint32_t kExtensionDataFile = 0x44415441;

constexpr std::size_t kFeatureNameBytes = 48;
// Bits 9 to 55: what L1, L2 and (with its upper bits) the refcount table keep of an offset.
constexpr std::uint64_t kOffsetMask = 0x00fffffffffffe00;
constexpr std::uint64_t kOffsetEnd = std::uint64_t{1} << 56;

[[noreturn]] void damaged(std::string_view what, std::string_view why) {
  throw Error(Code::kDamaged, fmt::format("{}: {}", what, why));
}

[[noreturn]] void unsupported(std::string_view what, std::string_view why, std::string hint = {}) {
  throw Error(Code::kUnsupported, fmt::format("{}: {}", what, why), std::move(hint));
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

std::string text_of(ByteView bytes) { return std::string(as_string_view(bytes)); }

// One header while it is decoded.
class HeaderDecoder {
 public:
  HeaderDecoder(ByteView area, std::uint64_t file_bytes, std::string_view what)
      : area_(area), file_bytes_(file_bytes), what_(what) {}

  Header decode() {
    if (!is_qcow2(area_) || area_.size() < kHeaderBytesV2) {
      unsupported(what_, "it is no qcow2 image");
    }
    fixed_fields();
    version3_fields();
    check_features_alone();
    place_names();
    extensions();
    check_incompatible();
    check_tables();
    check_combinations();
    return header_;
  }

 private:
  std::uint32_t u32(std::size_t at) const { return load_be<std::uint32_t>(&area_[at]); }
  std::uint64_t u64(std::size_t at) const { return load_be<std::uint64_t>(&area_[at]); }

  void fixed_fields() {
    header_.version = u32(4);
    if (header_.version != 2 && header_.version != 3) {
      unsupported(what_, fmt::format("qcow2 version {} is not 2 or 3", header_.version));
    }
    header_.cluster_bits = u32(20);
    if (header_.cluster_bits < limits::kQcow2ClusterBitsMin ||
        header_.cluster_bits > limits::kQcow2ClusterBitsMax) {
      damaged(what_, fmt::format("cluster_bits {} is not 9 to 21", header_.cluster_bits));
    }
    if (area_.size() > header_.cluster_bytes()) area_ = area_.first(header_.cluster_bytes());
    header_.size_bytes = u64(24);
    const std::uint32_t crypt_method = u32(32);
    if (crypt_method > 2) {
      unsupported(what_, fmt::format("crypt_method {} is not known", crypt_method));
    }
    header_.crypt_method = static_cast<CryptMethod>(crypt_method);
    header_.l1_entries = u32(36);
    header_.l1_offset_bytes = u64(40);
    header_.refcount_table_offset_bytes = u64(48);
    header_.refcount_table_clusters = u32(56);
    header_.snapshots = u32(60);
    header_.snapshots_offset_bytes = u64(64);
  }

  void version3_fields() {
    header_bytes_ = kHeaderBytesV2;
    if (header_.version == 2) return;
    if (area_.size() < kHeaderBytesV3) damaged(what_, "the file ends inside the header");
    header_.incompatible_features = u64(72);
    header_.compatible_features = u64(80);
    header_.autoclear_features = u64(88);
    header_.refcount_order = u32(96);
    header_bytes_ = u32(100);
    if (header_bytes_ < kHeaderBytesV3 || header_bytes_ % 8 != 0 || header_bytes_ > area_.size()) {
      damaged(what_, fmt::format("header_length {} is not a multiple of 8 from 104 to {}",
                                 header_bytes_, area_.size()));
    }
    const std::uint32_t type = header_bytes_ > 104 ? static_cast<std::uint32_t>(area_[104]) : 0;
    if (type > 1) unsupported(what_, fmt::format("compression type {} is not known", type));
    header_.compression = static_cast<Compression>(type);
  }

  void check_features_alone() const {
    if (header_.refcount_order > 6) {
      damaged(what_, fmt::format("refcount_order {} is above 6", header_.refcount_order));
    }
    const bool says_compression = (header_.incompatible_features & kIncompatibleCompression) != 0;
    if (says_compression != (header_.compression != Compression::kDeflate)) {
      damaged(what_, "the compression type and its feature bit contradict each other");
    }
    if (header_.extended_l2() && header_.cluster_bits < 14) {
      damaged(what_, fmt::format("extended L2 entries with clusters of {} bytes: at least 16384",
                                 header_.cluster_bytes()));
    }
  }

  // §Header: the name of the backing file lies in the first cluster, behind everything else.
  void place_names() {
    extensions_end_ = area_.size();
    const std::uint64_t offset = u64(8);
    const std::uint32_t length = u32(16);
    if (offset == 0) return;
    if (length == 0) return damaged(what_, "the name of the backing file is empty");
    if (length > limits::kQcow2BackingNameBytesMax) {
      damaged(what_, fmt::format("the name of the backing file has {} bytes, more than {}", length,
                                 limits::kQcow2BackingNameBytesMax));
    }
    if (offset < header_bytes_ || offset > area_.size() || length > area_.size() - offset) {
      damaged(what_, fmt::format("the name of the backing file ({} bytes at {}) is not inside the "
                                 "first cluster, behind the header",
                                 length, offset));
    }
    header_.backing_file = text_of(area_.subspan(offset, length));
    if (header_.backing_file.find('\0') != std::string::npos) {
      damaged(what_, "the name of the backing file has a zero byte in it");
    }
    extensions_end_ = offset;
  }

  void extensions() {
    std::size_t at = header_bytes_;
    while (extensions_end_ - at >= 8) {
      const std::uint32_t type = u32(at);
      const std::uint32_t length = u32(at + 4);
      if (type == kExtensionEnd) return;
      at += 8;
      if (length > extensions_end_ - at) {
        damaged(what_, fmt::format("header extension {:#010x} at {} has {} bytes: it ends beyond "
                                   "the header",
                                   type, at - 8, length));
      }
      extension(type, area_.subspan(at, length));
      at = std::min<std::size_t>(extensions_end_, at + round_up(length, 8));
    }
  }

  void extension(std::uint32_t type, ByteView data) {
    switch (type) {
      case kExtensionBackingFormat:
        return name_extension(header_.backing_format, data, limits::kQcow2FormatNameBytesMax,
                              "format of the backing file");
      case kExtensionDataFile:
        return name_extension(header_.data_file, data, limits::kQcow2BackingNameBytesMax,
                              "name of the data file");
      case kExtensionFeatureNames:
        feature_names_ = data;
        return;
      case kExtensionBitmaps:
        return bitmaps_extension(data);
      case kExtensionCryptoHeader:
        return crypto_extension(data);
      default:
        return;
    }
  }

  void name_extension(std::optional<std::string>& name, ByteView data, std::size_t bytes_max,
                      std::string_view label) const {
    if (name) damaged(what_, fmt::format("the {} is there twice", label));
    if (data.size() > bytes_max) {
      damaged(what_,
              fmt::format("the {} has {} bytes, more than {}", label, data.size(), bytes_max));
    }
    name = text_of(data);
    if (name->find('\0') != std::string::npos) {
      damaged(what_, fmt::format("the {} has a zero byte in it", label));
    }
  }

  void bitmaps_extension(ByteView data) {
    if (data.size() != 24) {
      damaged(what_, fmt::format("the bitmaps extension has {} bytes, not 24", data.size()));
    }
    // Whoever wrote the image last without the bit did not know of the bitmaps: they are void.
    if ((header_.autoclear_features & kAutoclearBitmaps) == 0) return;
    header_.bitmaps = load_be<std::uint32_t>(data.data());
    header_.bitmap_directory = {.offset_bytes = load_be<std::uint64_t>(&data[16]),
                                .size_bytes = load_be<std::uint64_t>(&data[8])};
    if (header_.bitmaps == 0 || header_.bitmaps > limits::kQcow2BitmapsMax) {
      damaged(what_,
              fmt::format("{} bitmaps are not 1 to {}", header_.bitmaps, limits::kQcow2BitmapsMax));
    }
    if (header_.bitmap_directory.size_bytes > limits::kQcow2BitmapDirectoryBytesMax ||
        header_.bitmap_directory.size_bytes == 0) {
      damaged(what_,
              fmt::format("a bitmap directory of {} bytes", header_.bitmap_directory.size_bytes));
    }
  }

  void crypto_extension(ByteView data) {
    if (header_.crypt_method != CryptMethod::kLuks) {
      damaged(what_, fmt::format("it has an encryption header, but crypt_method {}",
                                 static_cast<int>(header_.crypt_method)));
    }
    if (data.size() != 16) {
      damaged(what_,
              fmt::format("the encryption header extension has {} bytes, not 16", data.size()));
    }
    if (header_.crypto_header) damaged(what_, "the encryption header is there twice");
    header_.crypto_header = Place{.offset_bytes = load_be<std::uint64_t>(data.data()),
                                  .size_bytes = load_be<std::uint64_t>(&data[8])};
    const std::uint64_t size = header_.crypto_header->size_bytes;
    if (size == 0 || size > limits::kQcow2CryptoHeaderBytesMax) {
      damaged(what_, fmt::format("an encryption header of {} bytes", size));
    }
  }

  std::string feature_name(unsigned bit) const {
    for (ByteView rest = feature_names_; rest.size() >= kFeatureNameBytes;
         rest = rest.subspan(kFeatureNameBytes)) {
      if (rest[0] != std::byte{0} || static_cast<unsigned>(rest[1]) != bit) continue;
      const std::string name = text_of(rest.subspan(2, kFeatureNameBytes - 2));
      return fmt::format("'{}' (bit {})", printable(name.substr(0, name.find('\0'))), bit);
    }
    return fmt::format("bit {}", bit);
  }

  void check_incompatible() const {
    std::string names;
    for (unsigned bit = 0; bit < 64; ++bit) {
      const std::uint64_t mask = std::uint64_t{1} << bit;
      if ((header_.incompatible_features & ~kIncompatibleKnown & mask) == 0) continue;
      // All of them would make the message longer than it is useful.
      if (names.size() > 200) {
        names += " …";
        break;
      }
      names += fmt::format("{}{}", names.empty() ? "" : ", ", feature_name(bit));
    }
    if (names.empty()) return;
    unsupported(what_, fmt::format("it needs features that are not known here: {}", names));
  }

  void check_tables() const {
    const std::uint64_t cluster = header_.cluster_bytes();
    const std::uint64_t l1_bytes = std::uint64_t{header_.l1_entries} * 8;
    if (l1_bytes > limits::kQcow2L1BytesMax) {
      damaged(what_, fmt::format("an L1 table of {} entries is larger than {} MiB",
                                 header_.l1_entries, limits::kQcow2L1BytesMax / limits::kMiB));
    }
    if (header_.l1_entries < header_.l1_entries_needed()) {
      damaged(what_,
              fmt::format("its L1 table has {} entries, {} are needed for {} bytes",
                          header_.l1_entries, header_.l1_entries_needed(), header_.size_bytes));
    }
    if (header_.refcount_table_clusters == 0 ||
        header_.refcount_table_clusters > limits::kQcow2RefcountTableBytesMax / cluster) {
      damaged(what_, fmt::format("a refcount table of {} clusters of {} bytes",
                                 header_.refcount_table_clusters, cluster));
    }
    if (header_.snapshots > limits::kQcow2SnapshotsMax) {
      damaged(what_, fmt::format("{} snapshots are more than {}", header_.snapshots,
                                 limits::kQcow2SnapshotsMax));
    }
    if (l1_bytes > 0) check_place("L1 table", {header_.l1_offset_bytes, l1_bytes});
    check_place("refcount table",
                {header_.refcount_table_offset_bytes, header_.refcount_table_clusters * cluster});
    if (header_.snapshots > 0) {
      // Entries have no fixed size: 40 bytes is the least (§Snapshots).
      check_place("snapshot table",
                  {header_.snapshots_offset_bytes, std::uint64_t{header_.snapshots} * 40});
    }
    if (header_.bitmaps > 0) check_place("bitmap directory", header_.bitmap_directory);
    if (header_.crypto_header) check_place("encryption header", *header_.crypto_header);
    check_overlaps();
  }

  // Writers leave away zeroes at the end of a file, but where a table starts there is one.
  void check_place(std::string_view label, const Place& place) const {
    if (place.offset_bytes % header_.cluster_bytes() != 0) {
      damaged(what_, fmt::format("the {} at {} is not at the start of a cluster", label,
                                 place.offset_bytes));
    }
    if (place.offset_bytes >= file_bytes_ || place.offset_bytes >= kOffsetEnd) {
      damaged(what_, fmt::format("the {} at {} is beyond the end of the file, {} bytes", label,
                                 place.offset_bytes, file_bytes_));
    }
    const std::uint64_t end = round_up(file_bytes_, header_.cluster_bytes());
    if (place.size_bytes > end - place.offset_bytes) {
      damaged(what_, fmt::format("the {} ({} bytes at {}) ends beyond the file, {} bytes", label,
                                 place.size_bytes, place.offset_bytes, file_bytes_));
    }
  }

  void check_overlaps() const {
    std::vector<Place> places = main_tables(header_);
    std::ranges::sort(places, {}, &Place::offset_bytes);
    for (std::size_t i = 1; i < places.size(); ++i) {
      if (places[i - 1].offset_bytes + places[i - 1].size_bytes <= places[i].offset_bytes) continue;
      damaged(what_, fmt::format("the tables at {} and {} overlap", places[i - 1].offset_bytes,
                                 places[i].offset_bytes));
    }
  }

  void check_combinations() const {
    if (header_.crypt_method == CryptMethod::kLuks && !header_.crypto_header) {
      damaged(what_, "it is encrypted with LUKS, but names no encryption header");
    }
    if (header_.crypt_method != CryptMethod::kNone && header_.has_data_file()) {
      unsupported(what_, "encrypted, with an external data file");
    }
    if (header_.raw_data_file() && !header_.has_data_file()) {
      damaged(what_, "its external data file is raw, but there is none");
    }
  }

  ByteView area_;
  std::uint64_t file_bytes_;
  std::string_view what_;
  Header header_;
  std::size_t header_bytes_ = 0;
  std::size_t extensions_end_ = 0;
  ByteView feature_names_;
};

void append(Bytes& out, ByteView data) { out.insert(out.end(), data.begin(), data.end()); }

template <typename T>
void append_be(Bytes& out, T value) {
  out.resize(out.size() + sizeof(T));
  store_be(&out[out.size() - sizeof(T)], value);
}

void append_extension(Bytes& out, std::uint32_t type, ByteView data) {
  append_be(out, type);
  append_be(out, static_cast<std::uint32_t>(data.size()));
  append(out, data);
  out.resize(round_up(out.size(), 8));
}

void append_extensions(Bytes& out, const Header& header) {
  if (header.backing_format) {
    append_extension(out, kExtensionBackingFormat, as_byte_view(*header.backing_format));
  }
  if (header.data_file) {
    append_extension(out, kExtensionDataFile, as_byte_view(*header.data_file));
  }
  if (header.crypto_header) {
    Bytes data;
    append_be(data, header.crypto_header->offset_bytes);
    append_be(data, header.crypto_header->size_bytes);
    append_extension(out, kExtensionCryptoHeader, data);
  }
  if (header.bitmaps > 0) {
    Bytes data;
    append_be(data, header.bitmaps);
    append_be(data, std::uint32_t{0});
    append_be(data, header.bitmap_directory.size_bytes);
    append_be(data, header.bitmap_directory.offset_bytes);
    append_extension(out, kExtensionBitmaps, data);
  }
  append_extension(out, kExtensionEnd, {});
}

}  // namespace

std::uint64_t Header::l1_entries_needed() const {
  const std::uint64_t clusters =
      size_bytes / cluster_bytes() + (size_bytes % cluster_bytes() != 0 ? 1 : 0);
  return clusters / l2_entries() + (clusters % l2_entries() != 0 ? 1 : 0);
}

bool is_qcow2(ByteView start) noexcept {
  return start.size() >= 4 && load_be<std::uint32_t>(start.data()) == kMagic;
}

std::uint64_t header_area_bytes(ByteView start) noexcept {
  if (!is_qcow2(start) || start.size() < kHeaderBytesV2) return 0;
  const auto bits = load_be<std::uint32_t>(&start[20]);
  if (bits < limits::kQcow2ClusterBitsMin || bits > limits::kQcow2ClusterBitsMax) return 0;
  return std::uint64_t{1} << bits;
}

Header decode_header(ByteView area, std::uint64_t file_bytes, std::string_view what) {
  return HeaderDecoder(area, file_bytes, what).decode();
}

Bytes encode_header(const Header& header) {
  Bytes out;
  append_be(out, kMagic);
  append_be(out, header.version);
  append_be(out, std::uint64_t{0});  // the backing file, below
  append_be(out, static_cast<std::uint32_t>(header.backing_file.size()));
  append_be(out, header.cluster_bits);
  append_be(out, header.size_bytes);
  append_be(out, static_cast<std::uint32_t>(header.crypt_method));
  append_be(out, header.l1_entries);
  append_be(out, header.l1_offset_bytes);
  append_be(out, header.refcount_table_offset_bytes);
  append_be(out, header.refcount_table_clusters);
  append_be(out, header.snapshots);
  append_be(out, header.snapshots_offset_bytes);
  if (header.version == 3) {
    append_be(out, header.incompatible_features);
    append_be(out, header.compatible_features);
    append_be(out, header.autoclear_features);
    append_be(out, header.refcount_order);
    append_be(out, static_cast<std::uint32_t>(kHeaderBytes));
    append_be(out, static_cast<std::uint8_t>(header.compression));
    out.resize(kHeaderBytes);
  }
  append_extensions(out, header);
  if (!header.backing_file.empty()) {
    store_be(&out[8], std::uint64_t{out.size()});
    append(out, as_byte_view(header.backing_file));
  }
  if (out.size() > header.cluster_bytes()) {
    throw Error(Code::kInvalidArgument, "the qcow2 header does not fit into one cluster");
  }
  out.resize(header.cluster_bytes());
  return out;
}

std::vector<Place> main_tables(const Header& header) {
  const std::uint64_t cluster = header.cluster_bytes();
  std::vector<Place> places = {{0, cluster}};
  const auto add = [&](std::uint64_t offset, std::uint64_t size) {
    if (size > 0) places.push_back({offset, round_up(size, cluster)});
  };
  add(header.l1_offset_bytes, std::uint64_t{header.l1_entries} * 8);
  add(header.refcount_table_offset_bytes, header.refcount_table_clusters * cluster);
  if (header.snapshots > 0) add(header.snapshots_offset_bytes, 1);
  if (header.crypto_header) {
    add(header.crypto_header->offset_bytes, header.crypto_header->size_bytes);
  }
  if (header.bitmaps > 0) {
    add(header.bitmap_directory.offset_bytes, header.bitmap_directory.size_bytes);
  }
  return places;
}

std::uint64_t refcount_max(std::uint32_t order) noexcept {
  return order == 6 ? UINT64_MAX : (std::uint64_t{1} << (1U << order)) - 1;
}

std::uint64_t get_refcount(ByteView block, std::uint64_t index, std::uint32_t order) noexcept {
  switch (order) {
    case 3:
      return static_cast<std::uint64_t>(block[index]);
    case 4:
      return load_be<std::uint16_t>(&block[index * 2]);
    case 5:
      return load_be<std::uint32_t>(&block[index * 4]);
    case 6:
      return load_be<std::uint64_t>(&block[index * 8]);
    default: {
      // Below a byte: the first entry is in the lowest bits.
      const std::uint64_t bit = index << order;
      return static_cast<std::uint64_t>(block[bit / 8]) >> (bit % 8) & refcount_max(order);
    }
  }
}

void set_refcount(MutableBytes block, std::uint64_t index, std::uint32_t order,
                  std::uint64_t value) noexcept {
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(value);
      return;
    case 4:
      return store_be(&block[index * 2], static_cast<std::uint16_t>(value));
    case 5:
      return store_be(&block[index * 4], static_cast<std::uint32_t>(value));
    case 6:
      return store_be(&block[index * 8], value);
    default: {
      const std::uint64_t bit = index << order;
      const auto mask = static_cast<std::byte>(refcount_max(order) << (bit % 8));
      block[bit / 8] = (block[bit / 8] & ~mask) | static_cast<std::byte>(value << (bit % 8));
    }
  }
}

std::uint64_t decode_refcount_table_entry(std::uint64_t entry, std::uint32_t cluster_bits,
                                          std::string_view what, std::uint64_t index) {
  const std::uint64_t inside = (std::uint64_t{1} << cluster_bits) - 1;
  if ((entry & inside) != 0 || entry >= kOffsetEnd) {
    damaged(what, fmt::format("entry {} of the refcount table is {:#x}: no start of a cluster",
                              index, entry));
  }
  return entry;
}

std::uint64_t decode_l1_entry(std::uint64_t entry, std::uint32_t cluster_bits,
                              std::string_view what, std::uint64_t index) {
  const std::uint64_t inside = (std::uint64_t{1} << cluster_bits) - 1;
  const std::uint64_t offset = entry & kOffsetMask;
  if ((entry & ~kOffsetMask & ~kCopiedFlag) != 0 || (offset & inside) != 0) {
    damaged(what,
            fmt::format("entry {} of the L1 table is {:#x}: no start of a cluster", index, entry));
  }
  return offset;
}

L2Entry decode_l2_entry(const Header& header, L2Words words, std::string_view what,
                        std::uint64_t guest_cluster) {
  L2Entry out;
  const auto bad = [&](std::string_view why) {
    damaged(what, fmt::format("the L2 entry {:#018x} of guest cluster {} {}", words.entry,
                              guest_cluster, why));
  };
  out.copied = (words.entry & kCopiedFlag) != 0;
  if ((words.entry & kCompressedFlag) != 0) {
    if (out.copied) bad("is compressed and says that it is written in place");
    if (header.crypt_method != CryptMethod::kNone) bad("is compressed in an encrypted image");
    if (header.has_data_file()) bad("is compressed in an image with a data file");
    if (words.bitmap != 0) bad("is compressed and has subclusters");
    // §Compressed Clusters Descriptor.
    const unsigned x = 62 - (header.cluster_bits - 8);
    out.kind = L2Entry::Kind::kCompressed;
    out.host_bytes = words.entry & ((std::uint64_t{1} << x) - 1);
    const std::uint64_t sectors = ((words.entry & ~kCompressedFlag) >> x) + 1;
    out.compressed_bytes = sectors * 512 - out.host_bytes % 512;
    if (out.host_bytes >= kOffsetEnd) bad("has an offset beyond 56 bits");
    return out;
  }
  const std::uint64_t offset = words.entry & kOffsetMask;
  const bool zero_flag = (words.entry & kZeroFlag) != 0 && header.version == 3;
  const std::uint64_t known =
      kOffsetMask | kCopiedFlag | (header.version == 3 && !header.extended_l2() ? kZeroFlag : 0);
  if ((words.entry & ~known) != 0) bad("has reserved bits set");
  if (offset % header.cluster_bytes() != 0) bad("points between clusters");
  out.host_bytes = offset;
  // In a data file the first cluster is at 0: there the flag tells it from none.
  const bool has_host = offset != 0 || (header.has_data_file() && out.copied);
  out.kind = has_host ? L2Entry::Kind::kAllocated : L2Entry::Kind::kUnallocated;
  if (!header.extended_l2()) {
    out.allocated = has_host && !zero_flag ? UINT32_MAX : 0;
    out.zero = zero_flag ? UINT32_MAX : 0;
    return out;
  }
  out.allocated = static_cast<std::uint32_t>(words.bitmap);
  out.zero = static_cast<std::uint32_t>(words.bitmap >> 32);
  if ((out.allocated & out.zero) != 0) bad("has subclusters that are both allocated and zero");
  if (out.allocated != 0 && !has_host) bad("has allocated subclusters but no cluster");
  return out;
}

L2Words encode_l2_entry(const Header& header, const L2Entry& entry) {
  L2Words words;
  if (entry.kind == L2Entry::Kind::kAllocated) words.entry = entry.host_bytes;
  if (entry.copied) words.entry |= kCopiedFlag;
  if (header.extended_l2()) {
    words.bitmap = std::uint64_t{entry.zero} << 32 | entry.allocated;
  } else if (entry.zero != 0) {
    words.entry |= kZeroFlag;
  }
  return words;
}

}  // namespace lukskeep::storage::qcow2
