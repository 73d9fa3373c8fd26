// VHDX (Microsoft: [MS-VHDX]).
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/limits.h"
#include "image/crc32.h"
#include "image/probe.h"

namespace lukskeep::image {
namespace {

constexpr std::string_view kMark = "vhdxfile";
constexpr std::array<std::uint64_t, 2> kHeaders = {64 * limits::kKiB, 128 * limits::kKiB};
constexpr std::array<std::uint64_t, 2> kRegionTables = {192 * limits::kKiB, 256 * limits::kKiB};
constexpr std::size_t kHeaderBytes = 4096;
constexpr std::size_t kTableBytes = 64 * limits::kKiB;
constexpr std::uint32_t kEntriesMax = 2047;
constexpr std::size_t kEntryBytes = 32;
constexpr std::uint64_t kDiskBytesMax = std::uint64_t{64} * 1024 * limits::kGiB;
constexpr std::size_t kChecksumOffset = 4;

// GUIDs as they stand on disk.
constexpr std::string_view kBat = "6677c22d23f600429d64115e9bfd4a08";
constexpr std::string_view kMetadata = "06a27c8b90479a4bb8fe575f050f886e";
constexpr std::string_view kFileParameters = "3767a1ca36fa434db3b633f0aa44e76b";
constexpr std::string_view kDiskSize = "2442a52f1bcd7648b2115dbed83bf4b8";
constexpr std::string_view kLogicalSector = "1dbf41816fa90947ba47f233a8faab5f";
constexpr std::string_view kPhysicalSector = "c748a3cd5d4471449cc9e9885251c556";
constexpr std::string_view kDiskId = "ab12cabee6b2234593efc309e000c746";
constexpr std::string_view kParentLocator = "2d5fd3a80bb34d45abf7d3d84834ab0c";

// CRC-32C over all, the field itself taken for zero.
bool checksum_good(ByteView bytes) {
  return load_le<std::uint32_t>(&bytes[kChecksumOffset]) ==
         crc_with_hole<kCrc32cPolynomial>(bytes, kChecksumOffset);
}

class VhdxProbe final : public Probe {
 public:
  void head(ByteView head) override;
  void got(int tag, ByteView bytes) override;
  void finish(const StreamEnd& end) override;

 private:
  void read_headers(ByteView head);
  bool read_regions(ByteView table);
  void read_item(ByteView entry, ByteView region);
  void take_item(const std::string& id, ByteView value);
  void check_sizes();

  std::optional<ByteRange> bat_;
  std::optional<ByteRange> metadata_;
  std::uint64_t block_bytes_ = 0;
  std::uint64_t sector_bytes_ = 0;
};

void VhdxProbe::head(ByteView head) {
  if (!has_mark(head, 0, kMark)) return;
  match_.format = "vhdx";
  if (!fits({kRegionTables.back(), kTableBytes}, head.size())) {
    return add("vhdx-header", "the file ends within its headers");
  }
  read_headers(head);
  // Both are the same, so that one survives a torn write.
  std::optional<ByteView> chosen;
  for (const std::uint64_t at : kRegionTables) {
    const ByteView table = head.subspan(at, kTableBytes);
    if (!has_mark(table, 0, "regi") || !checksum_good(table)) continue;
    if (chosen && !std::equal(table.begin(), table.end(), chosen->begin())) {
      add("vhdx-regions", "the two region tables differ");
    }
    if (!chosen) chosen = table;
  }
  if (!chosen) return add("vhdx-regions", "neither region table is whole");
  if (!read_regions(*chosen)) return;
  const ByteRange metadata = metadata_.value_or(ByteRange());
  want(0, {metadata.offset_bytes,
           std::min<std::uint64_t>(metadata.size_bytes, limits::kInspectRangeBytesMax)});
}

// The one with the higher sequence number counts.
void VhdxProbe::read_headers(ByteView head) {
  std::optional<ByteView> current;
  for (const std::uint64_t at : kHeaders) {
    const ByteView header = head.subspan(at, kHeaderBytes);
    if (!has_mark(header, 0, "head") || !checksum_good(header)) continue;
    if (!current ||
        load_le<std::uint64_t>(&header[8]) > load_le<std::uint64_t>(current->data() + 8)) {
      current = header;
    }
  }
  if (!current) return add("vhdx-header", "neither header is whole");
  const ByteView header = *current;
  if (load_le<std::uint16_t>(&header[66]) != 1) {
    add("vhdx-header", fmt::format("version {} is not 1", load_le<std::uint16_t>(&header[66])));
  }
  if (!all_zero(header.subspan(48, 16))) {
    add("vhdx-log", "its log has changes that are not in their place yet");
  }
}

bool VhdxProbe::read_regions(ByteView table) {
  const auto count = load_le<std::uint32_t>(&table[8]);
  if (count > kEntriesMax) {
    add("vhdx-regions", fmt::format("{} regions are above {}", count, kEntriesMax));
    return false;
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    const ByteView entry = table.subspan(16 + i * kEntryBytes, kEntryBytes);
    const std::string id = to_hex(entry.first(16));
    const ByteRange range{load_le<std::uint64_t>(&entry[16]), load_le<std::uint32_t>(&entry[24])};
    std::optional<ByteRange>* place = id == kBat ? &bat_ : id == kMetadata ? &metadata_ : nullptr;
    if (place == nullptr) {
      if ((load_le<std::uint32_t>(&entry[28]) & 1) == 0) continue;
      add("vhdx-regions", "it requires a region that is not known");
      return false;
    }
    if (place->has_value() || range.offset_bytes < limits::kMiB ||
        range.offset_bytes % limits::kMiB != 0 || range.size_bytes % limits::kMiB != 0) {
      add("vhdx-regions", "a region is there twice, or not at a whole MiB");
      return false;
    }
    *place = range;
  }
  if (!bat_ || !metadata_ || metadata_->size_bytes == 0) {
    add("vhdx-regions", "the block table or the metadata is not there");
    return false;
  }
  return true;
}

void VhdxProbe::got(int /*tag*/, ByteView bytes) {
  if (bytes.size() < kTableBytes || !has_mark(bytes, 0, "metadata")) {
    return add("vhdx-metadata", "there is no metadata where the region table says");
  }
  const auto count = load_le<std::uint16_t>(&bytes[10]);
  if (count > kEntriesMax) {
    return add("vhdx-metadata", fmt::format("{} items are above {}", count, kEntriesMax));
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    read_item(bytes.subspan(32 + i * kEntryBytes, kEntryBytes), bytes);
  }
  check_sizes();
}

void VhdxProbe::read_item(ByteView entry, ByteView region) {
  const std::string id = to_hex(entry.first(16));
  const ByteRange range{load_le<std::uint32_t>(&entry[16]), load_le<std::uint32_t>(&entry[20])};
  if (id == kParentLocator) return add("vhdx-parent", "it says where its parent is");
  if (id == kPhysicalSector || id == kDiskId) return;
  if (id != kFileParameters && id != kDiskSize && id != kLogicalSector) {
    const bool required = (load_le<std::uint32_t>(&entry[24]) & 4) != 0;
    if (required) add("vhdx-metadata", "it requires an item of metadata that is not known");
    return;
  }
  const std::uint64_t needed = id == kLogicalSector ? 4 : 8;
  if (range.offset_bytes < kTableBytes || range.size_bytes < needed ||
      !fits(range, region.size())) {
    return add("vhdx-metadata", "an item of metadata is outside its region, or too small");
  }
  take_item(id, region.subspan(range.offset_bytes, range.size_bytes));
}

void VhdxProbe::take_item(const std::string& id, ByteView value) {
  if (id == kDiskSize) {
    if (match_.virtual_size_bytes) add("vhdx-metadata", "the size of the disk is there twice");
    match_.virtual_size_bytes = load_le<std::uint64_t>(value.data());
  } else if (id == kLogicalSector) {
    sector_bytes_ = load_le<std::uint32_t>(value.data());
  } else {
    block_bytes_ = load_le<std::uint32_t>(value.data());
    const auto flags = load_le<std::uint32_t>(&value[4]);
    match_.variant = (flags & 1) != 0 ? "fixed" : "dynamic";
    if ((flags & 2) != 0) {
      match_.variant = "differencing";
      add("vhdx-parent", "it holds what differs from another file");
    }
  }
}

void VhdxProbe::check_sizes() {
  const std::uint64_t size = match_.virtual_size_bytes.value_or(0);
  if (!match_.virtual_size_bytes || size > kDiskBytesMax ||
      (sector_bytes_ != 512 && sector_bytes_ != 4096) || size % sector_bytes_ != 0) {
    return add("vhdx-metadata",
               fmt::format("a disk of {} bytes with sectors of {}", size, sector_bytes_));
  }
  if (!is_power_of_two(block_bytes_) || block_bytes_ < limits::kMiB ||
      block_bytes_ > 256 * limits::kMiB) {
    return add("vhdx-metadata", fmt::format("blocks of {} bytes", block_bytes_));
  }
  // Entries of 8 bytes; after each chunk of blocks one more, for a bitmap.
  const std::uint64_t blocks = (size + block_bytes_ - 1) / block_bytes_;
  const std::uint64_t ratio = (std::uint64_t{1} << 23) * sector_bytes_ / block_bytes_;
  const std::uint64_t entries = blocks + (blocks == 0 ? 0 : (blocks - 1) / ratio);
  const std::uint64_t table_bytes = bat_.value_or(ByteRange()).size_bytes;
  if (entries * 8 > table_bytes) {
    add("vhdx-regions",
        fmt::format("a block table of {} bytes is too small for the disk", table_bytes));
  }
}

void VhdxProbe::finish(const StreamEnd& end) {
  for (const auto& [name, range] : {std::pair{"block table", bat_}, {"metadata", metadata_}}) {
    if (!range || fits(*range, end.size_bytes)) continue;
    add("vhdx-regions", fmt::format("the {} of {} bytes at byte {} is not in the file", name,
                                    range->size_bytes, range->offset_bytes));
  }
}

}  // namespace

std::unique_ptr<Probe> make_vhdx_probe() { return std::make_unique<VhdxProbe>(); }

}  // namespace lukskeep::image
