#include "luks/foreign_signature.h"

#include <algorithm>
#include <array>
#include <optional>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "luks/luks2_codec.h"
#include "storage/request.h"

namespace lukskeep::luks {
namespace {

using namespace std::string_view_literals;

struct Magic {
  std::string_view name;
  std::uint64_t offset_bytes;
  std::string_view bytes;
};

// Places as in util-linux's libblkid (libblkid/src/superblocks, src/partitions).
constexpr std::array kMagics = {
    Magic{"an XFS file system", 0, "XFSB"sv},
    Magic{"a qcow2 image", 0, "QFI\xfb"sv},
    Magic{"an NTFS file system", 3, "NTFS    "sv},
    Magic{"an exFAT file system", 3, "EXFAT   "sv},
    Magic{"a FAT file system", 54, "FAT1"sv},
    Magic{"a FAT file system", 82, "FAT32   "sv},
    Magic{"a GPT partition table", 512, "EFI PART"sv},
    Magic{"an LVM2 physical volume", 512, "LABELONE"sv},
    Magic{"an LVM2 physical volume", 0, "LABELONE"sv},
    Magic{"an F2FS file system", 0x400, "\x10\x20\xf5\xf2"sv},
    Magic{"swap space", 4086, "SWAPSPACE2"sv},
    Magic{"a GPT partition table", 4096, "EFI PART"sv},
    Magic{"a RAID superblock", 4096, "\xfc\x4e\x2b\xa9"sv},
    Magic{"a bcache superblock", 4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca"sv},
    Magic{"a JFS file system", 0x8000, "JFS1"sv},
    Magic{"an ISO 9660 file system", 0x8001, "CD001"sv},
    Magic{"a UDF file system", 0x8001, "BEA01"sv},
    Magic{"a ReiserFS file system", 0x10034, "ReIsEr"sv},
    Magic{"a btrfs file system", 0x10040, "_BHRfS_M"sv},
};

constexpr std::uint64_t kExtSuperblock = 1024;
constexpr std::size_t kExtBytes = 0x60;
constexpr std::uint64_t kMbrEntries = 446;
constexpr std::size_t kMbrBytes = 66;

// Absent if the device ends before, or cannot be read there: the check of what ought to be there
// says so.
template <std::size_t kSize>
std::optional<std::array<std::byte, kSize>> try_read(const Device& device,
                                                     std::uint64_t offset_bytes) {
  std::array<std::byte, kSize> bytes{};
  if (device.size_bytes() < kSize || device.size_bytes() - kSize < offset_bytes) return {};
  try {
    device.read(offset_bytes, bytes);
  } catch (const Error& error) {
    if (storage::ends_everything(error)) throw;
    return {};
  }
  return bytes;
}

bool has_magic(const Device& device, const Magic& magic) {
  std::array<std::byte, 16> bytes{};
  const MutableBytes found = MutableBytes(bytes).first(magic.bytes.size());
  try {
    device.read(magic.offset_bytes, found);
  } catch (const Error& error) {
    if (storage::ends_everything(error)) throw;
    return false;
  }
  return as_string_view(found) == magic.bytes;
}

// Its magic has 16 bits only: the block size, the revision and the state have to be possible too
// (Linux, fs/ext4/ext4.h).
bool has_ext(const Device& device) {
  const auto bytes = try_read<kExtBytes>(device, kExtSuperblock);
  if (!bytes) return false;
  return load_le<std::uint16_t>(&(*bytes)[0x38]) == 0xef53 &&
         load_le<std::uint32_t>(&(*bytes)[0x18]) <= 6 &&
         load_le<std::uint32_t>(&(*bytes)[0x4c]) <= 1;
}

// Four entries of 16 bytes and the mark 55 aa. Each entry is active or not (0x80, 0), and one at
// least has a type and a length.
bool has_mbr(const Device& device) {
  const auto bytes = try_read<kMbrBytes>(device, kMbrEntries);
  if (!bytes || (*bytes)[64] != std::byte{0x55} || (*bytes)[65] != std::byte{0xaa}) return false;
  bool used = false;
  for (std::size_t at = 0; at < 64; at += 16) {
    const std::byte status = (*bytes)[at];
    if (status != std::byte{0} && status != std::byte{0x80}) return false;
    used = used ||
           ((*bytes)[at + 4] != std::byte{0} && load_le<std::uint32_t>(&(*bytes)[at + 12]) != 0);
  }
  return used;
}

}  // namespace

std::vector<ForeignSignature> find_foreign_signatures(const Device& device,
                                                      std::uint64_t end_bytes) {
  const std::uint64_t end = std::min(end_bytes, device.size_bytes());
  std::vector<ForeignSignature> found;
  const auto add = [&](std::string_view name, std::uint64_t offset, std::uint64_t size) {
    found.push_back({.name = name, .offset_bytes = offset, .size_bytes = size});
  };
  for (const Magic& magic : kMagics) {
    if (magic.offset_bytes + magic.bytes.size() > end) continue;
    if (has_magic(device, magic)) add(magic.name, magic.offset_bytes, magic.bytes.size());
  }
  if (kExtSuperblock + kExtBytes <= end && has_ext(device)) {
    add("an ext file system", kExtSuperblock + 0x38, 2);
  }
  if (kMbrEntries + kMbrBytes <= end && has_mbr(device)) {
    add("an MBR partition table", kMbrEntries, kMbrBytes);
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.offset_bytes < b.offset_bytes; });
  return found;
}

std::vector<ForeignSignature> find_old_luks2_copies(const Device& device,
                                                    std::uint64_t expected_offset_bytes) {
  std::vector<ForeignSignature> found;
  for (const std::uint64_t offset : kLuks2MetadataSizes) {
    if (offset == expected_offset_bytes) continue;
    const auto head = try_read<kLuks2BinaryHeaderBytes>(device, offset);
    if (!head) continue;
    try {
      const auto prefix = decode_luks2_prefix(*head, offset, "old copy");
      if (prefix && prefix->copy == Luks2Copy::kSecondary) {
        found.push_back({.name = "a copy of another LUKS2 header",
                         .offset_bytes = offset,
                         .size_bytes = prefix->metadata_size_bytes});
      }
    } catch (const Error&) {
      // A stray magic, which nothing takes for a header.
      continue;
    }
  }
  return found;
}

bool has_backup_gpt(const Device& device) {
  if (device.size_bytes() < 512) return false;
  const auto bytes = try_read<8>(device, device.size_bytes() - 512);
  return bytes && as_string_view(*bytes) == "EFI PART";
}

}  // namespace lukskeep::luks
