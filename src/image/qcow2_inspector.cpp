// qcow2, versions 2 and 3 (QEMU: docs/interop/qcow2.txt), and what only has its mark.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/limits.h"
#include "image/luks_judgement.h"
#include "image/probe.h"
#include "luks/luks1_codec.h"

namespace lukskeep::image {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kMark = "QFI\xfb"sv;
constexpr std::size_t kV2HeaderBytes = 72;
constexpr std::size_t kV3HeaderBytes = 104;

// Extensions of the header.
constexpr std::uint32_t kExtensionEnd = 0;
constexpr std::uint32_t kExtensionBitmaps = 0x23852875;
constexpr std::uint32_t kExtensionDataFile = 0x44415441;
constexpr std::uint32_t kExtensionCrypto = 0x0537be77;

// Incompatible features: dirty, corrupt, data file, compression type, extended L2 entries.
constexpr std::uint64_t kFeatureDirty = 1;
constexpr std::uint64_t kFeatureCorrupt = 2;
constexpr std::uint64_t kFeatureDataFile = 4;
constexpr std::uint64_t kFeatureCompression = 8;
constexpr std::uint64_t kFeatureExtendedL2 = 16;
constexpr std::uint64_t kFeaturesKnown = 31;
constexpr std::uint64_t kAutoclearRawData = 2;

// As QEMU bounds them (block/qcow2.h).
constexpr std::uint64_t kL1BytesMax = 32 * limits::kMiB;
constexpr std::uint64_t kRefcountTableBytesMax = 8 * limits::kMiB;
constexpr std::uint32_t kSnapshotsMax = 65'536;
constexpr std::uint32_t kBitmapsMax = 65'535;
constexpr std::uint64_t kSnapshotTableBytesMax = 64 * limits::kMiB;
constexpr std::size_t kSnapshotEntryBytes = 40;
constexpr std::uint32_t kSnapshotExtraBytesMax = 1024;

enum Tag : int { kTagCrypto, kTagSnapshots };

struct Header {
  std::uint32_t version = 0;
  std::uint64_t backing_offset = 0;
  std::uint32_t backing_size = 0;
  std::uint32_t cluster_bits = 0;
  std::uint64_t size = 0;
  std::uint32_t crypt_method = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t l1_offset = 0;
  std::uint64_t refcount_offset = 0;
  std::uint32_t refcount_clusters = 0;
  std::uint32_t snapshots = 0;
  std::uint64_t snapshots_offset = 0;
  std::uint64_t incompatible = 0;
  std::uint64_t autoclear = 0;
  std::uint32_t refcount_order = 4;
  std::uint32_t header_bytes = kV2HeaderBytes;
  std::uint8_t compression = 0;

  std::uint64_t cluster_bytes() const { return std::uint64_t{1} << cluster_bits; }
};

Header read_header(ByteView head) {
  const auto u32 = [&](std::size_t at) { return load_be<std::uint32_t>(&head[at]); };
  const auto u64 = [&](std::size_t at) { return load_be<std::uint64_t>(&head[at]); };
  Header header{.version = u32(4),
                .backing_offset = u64(8),
                .backing_size = u32(16),
                .cluster_bits = u32(20),
                .size = u64(24),
                .crypt_method = u32(32),
                .l1_entries = u32(36),
                .l1_offset = u64(40),
                .refcount_offset = u64(48),
                .refcount_clusters = u32(56),
                .snapshots = u32(60),
                .snapshots_offset = u64(64)};
  if (header.version < 3 || head.size() < kV3HeaderBytes) return header;
  header.incompatible = u64(72);
  header.autoclear = u64(88);
  header.refcount_order = u32(96);
  header.header_bytes = u32(100);
  if (header.header_bytes > kV3HeaderBytes && head.size() > kV3HeaderBytes) {
    header.compression = std::to_integer<std::uint8_t>(head[kV3HeaderBytes]);
  }
  return header;
}

class Qcow2Probe final : public Probe {
 public:
  void head(ByteView head) override;
  void got(int tag, ByteView bytes) override;
  void finish(const StreamEnd& end) override;

 private:
  // A part of the file that must be there.
  struct Table {
    std::string what;
    std::string_view finding;
    ByteRange range;
  };

  bool check_geometry(ByteView head);
  void check_features(ByteView head);
  void check_tables();
  void check_table(std::string what, std::string_view finding, ByteRange range);
  void read_extensions(ByteView head);
  void read_extension(std::uint32_t type, ByteView data);
  void check_bitmaps(ByteView data);
  void check_encryption();
  void read_luks(ByteView bytes);
  void read_snapshots(ByteView bytes);

  Header header_;
  std::vector<Table> tables_;
  std::optional<ByteRange> luks_header_;
};

void Qcow2Probe::head(ByteView head) {
  if (!has_mark(head, 0, kMark)) return;
  match_.format = "qcow2";
  if (head.size() < 8) return add("qcow2-header", "the file ends within the header");
  const auto version = load_be<std::uint32_t>(&head[4]);
  match_.variant = fmt::format("version {}", version);
  if (version == 1) {
    match_.format = "qcow";
    return add("unsupported-format", "qcow version 1 is looked after by nobody");
  }
  if (version != 2 && version != 3) {
    return add("qcow2-header", fmt::format("version {} is neither 2 nor 3", version));
  }
  if (head.size() < (version == 2 ? kV2HeaderBytes : kV3HeaderBytes)) {
    return add("qcow2-header", "the file ends within the header");
  }
  header_ = read_header(head);
  match_.virtual_size_bytes = header_.size;
  check_features(head);
  if (!check_geometry(head)) return;
  check_tables();
  read_extensions(head);
  check_encryption();
}

// Whether the rest can be understood.
bool Qcow2Probe::check_geometry(ByteView head) {
  const std::size_t problems = match_.findings.size();
  const auto bad = [&](const std::string& what) { add("qcow2-header", what); };
  if (header_.cluster_bits < 9 || header_.cluster_bits > 21) {
    bad(fmt::format("clusters of 2^{} bytes are not in 512 bytes to 2 MiB", header_.cluster_bits));
    return false;
  }
  const bool extended = (header_.incompatible & kFeatureExtendedL2) != 0;
  if (extended && header_.cluster_bits < 14) {
    bad("extended L2 entries need clusters of 16 KiB or more");
  }
  if (header_.refcount_order > 6) {
    bad(fmt::format("reference counts of 2^{} bits are above 64", header_.refcount_order));
  }
  if (header_.version == 3 &&
      (header_.header_bytes < kV3HeaderBytes || header_.header_bytes % 8 != 0 ||
       header_.header_bytes > header_.cluster_bytes())) {
    bad(fmt::format("a header of {} bytes is not possible", header_.header_bytes));
  } else if (header_.header_bytes > head.size()) {
    bad("the file ends within the header");
  }
  if (header_.size > static_cast<std::uint64_t>(INT64_MAX)) {
    bad(fmt::format("a disk of {} bytes is larger than any", header_.size));
  }
  if (header_.size % 512 != 0) {
    bad(fmt::format("a disk of {} bytes has no whole sectors", header_.size));
  }
  return match_.findings.size() == problems ||
         std::none_of(match_.findings.begin(), match_.findings.end(),
                      [](const Finding& finding) { return finding.name == "qcow2-header"; });
}

void Qcow2Probe::check_features(ByteView head) {
  if (header_.backing_offset != 0 || header_.backing_size != 0) {
    const ByteRange name{header_.backing_offset, std::min(header_.backing_size, 1023U)};
    add("qcow2-backing-file",
        fits(name, head.size())
            ? fmt::format(
                  "its contents are to come from the file '{}'",
                  printable(as_string_view(head.subspan(name.offset_bytes, name.size_bytes)), 256))
            : "its contents are to come from another file");
  }
  if ((header_.incompatible & kFeatureDataFile) != 0 ||
      (header_.autoclear & kAutoclearRawData) != 0) {
    add("qcow2-data-file", "its data is in another file");
  }
  if ((header_.incompatible & ~kFeaturesKnown) != 0) {
    add("qcow2-unknown-features", fmt::format("incompatible features {:#x} are not known",
                                              header_.incompatible & ~kFeaturesKnown));
  }
  const bool other_compression = (header_.incompatible & kFeatureCompression) != 0;
  if (header_.compression > 1 || other_compression != (header_.compression != 0)) {
    add("qcow2-unknown-features",
        fmt::format("compression type {} is not known, or not announced", header_.compression));
  }
  if ((header_.incompatible & kFeatureCorrupt) != 0) {
    add("qcow2-corrupt", "the program that wrote it last found it corrupt");
  }
  if ((header_.incompatible & kFeatureDirty) != 0) {
    add("qcow2-dirty", "its reference counts may be wrong");
  }
}

void Qcow2Probe::check_table(std::string what, std::string_view finding, ByteRange range) {
  if (range.offset_bytes % header_.cluster_bytes() != 0) {
    add(finding,
        fmt::format("the {} starts at byte {}, within a cluster", what, range.offset_bytes));
  } else if (range.offset_bytes == 0) {
    add(finding, fmt::format("the {} is said to be where the header is", what));
  } else {
    tables_.push_back({.what = std::move(what), .finding = finding, .range = range});
  }
}

void Qcow2Probe::check_tables() {
  const std::uint64_t l1_bytes = std::uint64_t{header_.l1_entries} * 8;
  const bool extended = (header_.incompatible & kFeatureExtendedL2) != 0;
  const std::uint64_t l2_covers =
      header_.cluster_bytes() / (extended ? 16 : 8) * header_.cluster_bytes();
  const std::uint64_t needed = header_.size / l2_covers + (header_.size % l2_covers != 0 ? 1 : 0);
  if (l1_bytes > kL1BytesMax) {
    add("qcow2-tables", fmt::format("an L1 table of {} bytes is above {}", l1_bytes, kL1BytesMax));
  } else if (header_.l1_entries < needed) {
    add("qcow2-tables",
        fmt::format("the L1 table has {} entries, the disk needs {}", header_.l1_entries, needed));
  } else if (l1_bytes != 0) {
    check_table("L1 table", "qcow2-tables", {header_.l1_offset, l1_bytes});
  }
  const std::uint64_t refcount_bytes = header_.refcount_clusters * header_.cluster_bytes();
  if (refcount_bytes == 0 || refcount_bytes > kRefcountTableBytesMax) {
    add("qcow2-tables", fmt::format("a refcount table of {} bytes is not in 1 to {}",
                                    refcount_bytes, kRefcountTableBytesMax));
  } else {
    check_table("refcount table", "qcow2-tables", {header_.refcount_offset, refcount_bytes});
  }
  if (header_.snapshots == 0) return;
  if (header_.snapshots > kSnapshotsMax) {
    return add("qcow2-snapshots",
               fmt::format("{} snapshots are above {}", header_.snapshots, kSnapshotsMax));
  }
  add("qcow2-has-snapshots", fmt::format("it has {} snapshots", header_.snapshots));
  check_table("snapshot table", "qcow2-snapshots",
              {header_.snapshots_offset, header_.snapshots * kSnapshotEntryBytes});
  want(kTagSnapshots, {header_.snapshots_offset, limits::kInspectRangeBytesMax});
}

void Qcow2Probe::read_extensions(ByteView head) {
  std::uint64_t end = header_.cluster_bytes();
  if (header_.backing_offset != 0) end = std::min(end, header_.backing_offset);
  std::uint64_t at = header_.header_bytes;
  while (at + 8 <= end) {
    if (at + 8 > head.size()) {
      return add("qcow2-extensions", "the header's extensions do not end");
    }
    const auto type = load_be<std::uint32_t>(&head[at]);
    const std::uint64_t size = load_be<std::uint32_t>(&head[at + 4]);
    if (type == kExtensionEnd) return;
    at += 8;
    if (!fits({at, size}, std::min<std::uint64_t>(end, head.size()))) {
      return add("qcow2-extensions",
                 fmt::format("extension {:#010x} of {} bytes leaves the header", type, size));
    }
    read_extension(type, head.subspan(at, size));
    at += (size + 7) / 8 * 8;
  }
}

void Qcow2Probe::read_extension(std::uint32_t type, ByteView data) {
  if (type == kExtensionDataFile) {
    add("qcow2-data-file",
        fmt::format("its data is in the file '{}'", printable(as_string_view(data), 256)));
  } else if (type == kExtensionBitmaps) {
    check_bitmaps(data);
  } else if (type == kExtensionCrypto) {
    if (data.size() != 16) return add("qcow2-encryption", "its place has a wrong size");
    if (luks_header_) return add("qcow2-encryption", "there are two places of a LUKS header");
    luks_header_ = {load_be<std::uint64_t>(data.data()), load_be<std::uint64_t>(&data[8])};
  }
}

void Qcow2Probe::check_bitmaps(ByteView data) {
  if (data.size() != 24) return add("qcow2-bitmaps", "their extension has a wrong size");
  const auto count = load_be<std::uint32_t>(data.data());
  const auto directory_bytes = load_be<std::uint64_t>(&data[8]);
  const auto offset = load_be<std::uint64_t>(&data[16]);
  if (count == 0 || count > kBitmapsMax ||
      directory_bytes > kBitmapsMax * std::uint64_t{kSnapshotExtraBytesMax} ||
      directory_bytes < count * std::uint64_t{24}) {
    return add("qcow2-bitmaps",
               fmt::format("{} bitmaps in a directory of {} bytes", count, directory_bytes));
  }
  check_table("bitmap directory", "qcow2-bitmaps", {offset, directory_bytes});
}

void Qcow2Probe::check_encryption() {
  match_.encrypted = header_.crypt_method != 0;
  if (header_.crypt_method == 1) {
    add("qcow2-legacy-aes", "it is encrypted in a way that is known to be broken");
  } else if (header_.crypt_method > 2) {
    add("qcow2-encryption", fmt::format("encryption method {} is not known", header_.crypt_method));
  }
  if ((header_.crypt_method == 2) != luks_header_.has_value()) {
    return add("qcow2-encryption", luks_header_ ? "it has a LUKS header, but is not encrypted"
                                                : "it has no LUKS header");
  }
  if (!luks_header_) return;
  match_.variant += ", luks1";
  if (luks_header_->size_bytes < luks::kLuks1HeaderBytes) {
    return add("qcow2-encryption",
               fmt::format("a LUKS header of {} bytes", luks_header_->size_bytes));
  }
  check_table("LUKS header", "qcow2-encryption", *luks_header_);
  want(kTagCrypto, {luks_header_->offset_bytes, luks::kLuks1HeaderBytes});
}

void Qcow2Probe::got(int tag, ByteView bytes) {
  if (tag == kTagCrypto) return read_luks(bytes);
  read_snapshots(bytes);
}

void Qcow2Probe::read_luks(ByteView bytes) {
  if (bytes.size() < luks::kLuks1HeaderBytes) {
    return add("qcow2-encryption", "its LUKS header is not in the file, or before its other parts");
  }
  judge_luks1(bytes, match_);
  add("luks-unseen", "what it holds is encrypted");
}

// As many entries as were captured: each says how large it is.
void Qcow2Probe::read_snapshots(ByteView bytes) {
  std::uint64_t at = 0;
  for (std::uint32_t i = 0; i < header_.snapshots; ++i) {
    if (!fits({at, kSnapshotEntryBytes}, bytes.size())) {
      // Beyond what is looked at, many thousand are not judged one by one.
      if (bytes.size() == limits::kInspectRangeBytesMax) return;
      return add("qcow2-snapshots", fmt::format("the table ends before snapshot {}", i));
    }
    const std::byte* entry = &bytes[at];
    const auto l1_offset = load_be<std::uint64_t>(entry);
    const std::uint64_t l1_bytes = std::uint64_t{load_be<std::uint32_t>(entry + 8)} * 8;
    const std::uint64_t names =
        std::uint64_t{load_be<std::uint16_t>(entry + 12)} + load_be<std::uint16_t>(entry + 14);
    const auto extra = load_be<std::uint32_t>(entry + 36);
    if (extra > kSnapshotExtraBytesMax || l1_bytes > kL1BytesMax) {
      return add("qcow2-snapshots", fmt::format("snapshot {} has impossible sizes", i));
    }
    if (l1_bytes != 0) {
      check_table(fmt::format("L1 table of snapshot {}", i), "qcow2-snapshots",
                  {l1_offset, l1_bytes});
    }
    at += (kSnapshotEntryBytes + extra + names + 7) / 8 * 8;
    if (at > kSnapshotTableBytesMax) return add("qcow2-snapshots", "the table is too large");
  }
}

void Qcow2Probe::finish(const StreamEnd& end) {
  for (const Table& table : tables_) {
    if (fits(table.range, end.size_bytes)) continue;
    add(table.finding,
        fmt::format("the {} of {} bytes at byte {} is not in the file of {}", table.what,
                    table.range.size_bytes, table.range.offset_bytes, end.size_bytes));
  }
}

}  // namespace

std::unique_ptr<Probe> make_qcow2_probe() { return std::make_unique<Qcow2Probe>(); }

}  // namespace lukskeep::image
