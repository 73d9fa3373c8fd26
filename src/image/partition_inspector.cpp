// Partition tables: MBR, and GPT (UEFI specification, section 5) with its backup.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/limits.h"
#include "image/crc32.h"
#include "image/probe.h"

namespace lukskeep::image {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kGptMark = "EFI PART";
constexpr std::uint32_t kRevision = 0x00010000;
constexpr std::size_t kChecksumOffset = 16;
constexpr std::uint32_t kEntriesMax = 1024;
constexpr std::size_t kMbrBytes = 512;
constexpr std::size_t kTableOffset = 446;
constexpr std::uint8_t kProtective = 0xee;

struct Partition {
  std::uint8_t boot = 0;
  std::uint8_t type = 0;
  bool protective_chs = false;
  std::uint64_t start = 0;  // sectors
  std::uint64_t size = 0;

  bool used() const { return type != 0 && size != 0; }
};

std::array<Partition, 4> read_partitions(ByteView head) {
  std::array<Partition, 4> all;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const ByteView entry = head.subspan(kTableOffset + i * 16, 16);
    all.at(i) = {.boot = std::to_integer<std::uint8_t>(entry[0]),
                 .type = std::to_integer<std::uint8_t>(entry[4]),
                 .protective_chs = has_mark(entry, 1, "\0\2\0"sv),
                 .start = load_le<std::uint32_t>(&entry[8]),
                 .size = load_le<std::uint32_t>(&entry[12])};
  }
  return all;
}

// Boot sectors of FAT, NTFS and exFAT end in the same mark, and have code where the table would be.
bool is_volume_boot_sector(ByteView head) {
  const bool fat = std::to_integer<unsigned>(head[16]) == 2 &&
                   std::to_integer<unsigned>(head[21]) >= 0xf0 &&
                   (has_mark(head, 0, "\xeb") || has_mark(head, 0, "\xe9"));
  return fat || has_mark(head, 3, "NTFS    ") || has_mark(head, 3, "EXFAT   ");
}

struct Gpt {
  std::uint64_t own_lba = 0;
  std::uint64_t other_lba = 0;
  std::uint64_t first_usable = 0;
  std::uint64_t last_usable = 0;
  std::uint64_t entries_lba = 0;
  std::uint32_t entries = 0;
  std::uint32_t entry_bytes = 0;
  std::uint32_t entries_crc = 0;
  std::string disk_id;

  std::uint64_t entries_bytes() const { return std::uint64_t{entries} * entry_bytes; }
};

class PartitionProbe final : public Probe {
 public:
  void head(ByteView head) override;
  void got(int tag, ByteView bytes) override;
  void finish(const StreamEnd& end) override;

 private:
  void read_mbr(ByteView head);
  void read_gpt(ByteView head);
  void check_protective(const std::array<Partition, 4>& partitions);
  std::optional<Gpt> read_header(ByteView sector, std::string_view which);
  void check_entries(ByteView entries);
  void want_backup();
  void check_backup_of(const Gpt& backup, ByteView bytes);
  void check_end(const StreamEnd& end);

  bool has_mbr_ = false;
  std::array<Partition, 4> partitions_{};
  std::uint64_t sector_bytes_ = 0;
  bool has_gpt_ = false;
  Gpt gpt_;
};

void PartitionProbe::head(ByteView head) {
  if (head.size() < kMbrBytes) return;
  read_mbr(head);
  read_gpt(head);
}

void PartitionProbe::read_mbr(ByteView head) {
  if (!has_mark(head, 510, "\x55\xaa")) return;
  partitions_ = read_partitions(head);
  const bool plausible = std::all_of(partitions_.begin(), partitions_.end(),
                                     [](const auto& p) { return p.boot == 0 || p.boot == 0x80; });
  const bool any = std::any_of(partitions_.begin(), partitions_.end(),
                               [](const Partition& p) { return p.used(); });
  if (is_volume_boot_sector(head) && !(plausible && any)) return;
  has_mbr_ = true;
  match_.format = "mbr";
  if (!plausible) add("mbr-partitions", "a boot flag is neither 0 nor 128: this is no table");
  if (!any) add("mbr-partitions", "the table has no partition");
}

// With sectors of 512 bytes or of 4096.
void PartitionProbe::read_gpt(ByteView head) {
  for (const std::uint64_t sector_bytes : {std::uint64_t{512}, std::uint64_t{4096}}) {
    if (!has_mark(head, sector_bytes, kGptMark)) continue;
    if (sector_bytes_ != 0) {
      add("gpt-header", "there are headers for sectors of 512 and of 4096 bytes");
      return;
    }
    match_.format = "gpt";
    sector_bytes_ = sector_bytes;
    if (!fits({sector_bytes, sector_bytes}, head.size())) {
      add("gpt-header", "the file ends within the header");
      return;
    }
    const auto header = read_header(head.subspan(sector_bytes, sector_bytes), "header");
    if (!header) continue;
    gpt_ = *header;
    has_gpt_ = true;
    if (gpt_.own_lba != 1) add("gpt-header", fmt::format("it says it is at {}", gpt_.own_lba));
    const bool entries_fit =
        gpt_.entries_lba <= head.size() / sector_bytes &&
        fits({gpt_.entries_lba * sector_bytes, gpt_.entries_bytes()}, head.size());
    if (!entries_fit) {
      add("gpt-entries",
          fmt::format("its entries at sector {} are too far away, or not there", gpt_.entries_lba));
    } else {
      check_entries(head.subspan(gpt_.entries_lba * sector_bytes, gpt_.entries_bytes()));
    }
    want_backup();
  }
  const bool protective = std::any_of(partitions_.begin(), partitions_.end(),
                                      [](const auto& p) { return p.type == kProtective; });
  if (sector_bytes_ != 0) {
    check_protective(partitions_);
  } else if (has_mbr_ && protective) {
    add("gpt-header", "the MBR protects a GPT that is not there");
  }
}

std::optional<Gpt> PartitionProbe::read_header(ByteView sector, std::string_view which) {
  const auto u32 = [&](std::size_t at) { return load_le<std::uint32_t>(&sector[at]); };
  const auto u64 = [&](std::size_t at) { return load_le<std::uint64_t>(&sector[at]); };
  const std::uint32_t size = u32(12);
  if (u32(8) != kRevision || size < 92 || size > sector.size()) {
    add("gpt-header", fmt::format("the {} has revision {:#x} and {} bytes", which, u32(8), size));
    return std::nullopt;
  }
  if (u32(kChecksumOffset) !=
      crc_with_hole<kCrc32Polynomial>(sector.first(size), kChecksumOffset)) {
    add("gpt-header", fmt::format("the checksum of the {} is wrong", which));
    return std::nullopt;
  }
  Gpt gpt{.own_lba = u64(24),
          .other_lba = u64(32),
          .first_usable = u64(40),
          .last_usable = u64(48),
          .entries_lba = u64(72),
          .entries = u32(80),
          .entry_bytes = u32(84),
          .entries_crc = u32(88),
          .disk_id = to_hex(sector.subspan(56, 16))};
  if (gpt.entries > kEntriesMax || gpt.entry_bytes < 128 || gpt.entry_bytes > 4096 ||
      !is_power_of_two(gpt.entry_bytes) ||
      gpt.entries_bytes() + 2 * sector_bytes_ > limits::kInspectRangeBytesMax) {
    add("gpt-entries",
        fmt::format("{} entries of {} bytes in the {}", gpt.entries, gpt.entry_bytes, which));
    return std::nullopt;
  }
  return gpt;
}

void PartitionProbe::check_entries(ByteView entries) {
  Crc<kCrc32Polynomial> crc;
  crc.add(entries);
  if (crc.value() != gpt_.entries_crc) add("gpt-entries", "their checksum is wrong");
  std::vector<ByteRange> used;  // first and last sector
  for (std::size_t at = 0; at < entries.size(); at += gpt_.entry_bytes) {
    if (all_zero(entries.subspan(at, 16))) continue;
    used.push_back(
        {load_le<std::uint64_t>(&entries[at + 32]), load_le<std::uint64_t>(&entries[at + 40])});
    const auto& [first, last] = used.back();
    if (first > last || first < gpt_.first_usable || last > gpt_.last_usable) {
      add("gpt-entries",
          fmt::format("partition {} reaches from sector {} to {}, outside {} to {}",
                      at / gpt_.entry_bytes + 1, first, last, gpt_.first_usable, gpt_.last_usable));
    }
  }
  std::sort(used.begin(), used.end(),
            [](const ByteRange& a, const ByteRange& b) { return a.offset_bytes < b.offset_bytes; });
  for (std::size_t i = 1; i < used.size(); ++i) {
    if (used[i].offset_bytes > used[i - 1].size_bytes) continue;
    return add("gpt-entries",
               fmt::format("two partitions overlap at sector {}", used[i].offset_bytes));
  }
}

void PartitionProbe::check_protective(const std::array<Partition, 4>& partitions) {
  if (!has_mbr_) return add("mbr-protective", "no MBR protects the GPT");
  const auto is_protective = [](const Partition& p) { return p.type == kProtective; };
  const auto protective = std::count_if(partitions.begin(), partitions.end(), is_protective);
  const auto used = std::count_if(partitions.begin(), partitions.end(),
                                  [](const Partition& p) { return p.type != 0; });
  if (protective != 1) {
    return add("mbr-protective",
               fmt::format("the MBR protects the GPT {} times, not once", protective));
  }
  if (used != 1) {
    add("mbr-hybrid", "the MBR has partitions beside the GPT: readers differ in which they take");
  }
  const auto& entry = *std::find_if(partitions.begin(), partitions.end(), is_protective);
  if (entry.start != 1) {
    add("mbr-protective", fmt::format("the protecting partition starts at {}, not 1", entry.start));
  }
  if (!entry.protective_chs) {
    add("mbr-protective-chs", "the protecting partition starts at another cylinder than it should");
  }
}

// The entries and, behind them, the header: as all tools write it.
void PartitionProbe::want_backup() {
  const std::uint64_t entry_sectors = (gpt_.entries_bytes() + sector_bytes_ - 1) / sector_bytes_;
  if (gpt_.other_lba <= entry_sectors ||
      gpt_.other_lba > static_cast<std::uint64_t>(INT64_MAX) / sector_bytes_) {
    return add("gpt-backup", fmt::format("it cannot be at sector {}", gpt_.other_lba));
  }
  want(0, {(gpt_.other_lba - entry_sectors) * sector_bytes_, (entry_sectors + 1) * sector_bytes_});
}

void PartitionProbe::got(int /*tag*/, ByteView bytes) {
  const std::uint64_t entry_sectors = (gpt_.entries_bytes() + sector_bytes_ - 1) / sector_bytes_;
  if (bytes.size() < (entry_sectors + 1) * sector_bytes_ ||
      !has_mark(bytes, entry_sectors * sector_bytes_, kGptMark)) {
    return add("gpt-backup", fmt::format("there is none at sector {}", gpt_.other_lba));
  }
  const std::size_t before = match_.findings.size();
  const auto backup = read_header(bytes.last(sector_bytes_), "backup");
  if (!backup || match_.findings.size() != before) {
    match_.findings.resize(before);
    return add("gpt-backup", "its header is damaged");
  }
  check_backup_of(*backup, bytes);
}

void PartitionProbe::check_backup_of(const Gpt& backup, ByteView bytes) {
  const Gpt& first = gpt_;
  if (backup.own_lba != first.other_lba || backup.other_lba != 1 ||
      backup.disk_id != first.disk_id || backup.entries_crc != first.entries_crc ||
      backup.entries != first.entries || backup.entry_bytes != first.entry_bytes ||
      backup.first_usable != first.first_usable || backup.last_usable != first.last_usable) {
    return add("gpt-backup", "it says other things than the header");
  }
  const std::uint64_t entry_sectors = (first.entries_bytes() + sector_bytes_ - 1) / sector_bytes_;
  if (backup.entries_lba != first.other_lba - entry_sectors) {
    return add("gpt-backup",
               fmt::format("its entries at sector {} are not before it", backup.entries_lba));
  }
  Crc<kCrc32Polynomial> crc;
  crc.add(bytes.first(first.entries_bytes()));
  if (crc.value() != backup.entries_crc) add("gpt-backup", "the checksum of its entries is wrong");
}

void PartitionProbe::check_end(const StreamEnd& end) {
  const std::uint64_t last = (gpt_.other_lba + 1) * sector_bytes_;
  if (gpt_.other_lba > static_cast<std::uint64_t>(INT64_MAX) / sector_bytes_) return;
  if (last + sector_bytes_ <= end.size_bytes) {
    add("gpt-backup-moved",
        fmt::format("the backup ends at byte {}, the file at {}", last, end.size_bytes));
    if (end.tail.size() >= sector_bytes_ &&
        has_mark(end.tail, end.tail.size() - sector_bytes_, kGptMark)) {
      add("gpt-backup", "there is another one at the end of the file");
    }
  }
}

void PartitionProbe::finish(const StreamEnd& end) {
  if (!matched()) {
    // Programs that mend partition tables would take it.
    if (end.tail.size() >= 1024 && has_mark(end.tail, end.tail.size() - 512, kGptMark)) {
      match_.format = "gpt";
      match_.is_trace = true;
      match_.virtual_size_bytes = end.size_bytes;
      add("gpt-header", "only the backup of a GPT is there, at the end of the file");
    }
    return;
  }
  match_.virtual_size_bytes = end.size_bytes;
  if (has_gpt_) return check_end(end);
  for (const Partition& partition : partitions_) {
    if (!partition.used() || partition.type == kProtective) continue;
    if (fits({partition.start * 512, partition.size * 512}, end.size_bytes)) continue;
    add("mbr-partitions", fmt::format("a partition of {} sectors at sector {} is not in the file",
                                      partition.size, partition.start));
  }
}

}  // namespace

std::unique_ptr<Probe> make_partition_probe() { return std::make_unique<PartitionProbe>(); }

}  // namespace lukskeep::image
