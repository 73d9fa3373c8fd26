// The luksmeta table: typed records in the gap between the keyslots of a LUKS1 header and its
// payload, one for each keyslot. Pure: bytes in, values out. Clevis keeps its bindings there.
//
// On disk (libluksmeta, big endian): the gap starts behind the last keyslot area, at a multiple of
// 4096; there "LUKSMETA", u32 version 1, u32 CRC-32C of these 272 bytes with that field zero, and
// eight times {type UUID[16], u32 offset from the start of the gap, u32 size, u32 CRC-32C of the
// data, u32 reserved}. Data starts at multiples of 4096, behind the first 4096.
// docs/format/luksmeta.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <lukskeep/header.h>

#include "base/bytes.h"

namespace lukskeep::luks {

inline constexpr std::size_t kLuksmetaTableBytes = 272;
inline constexpr std::uint64_t kLuksmetaBlockBytes = 4096;

using LuksmetaType = std::array<std::byte, 16>;

// All zero: not used. The offset is relative to the start of the gap.
struct LuksmetaSlot {
  LuksmetaType type{};
  std::uint32_t offset_bytes = 0;
  std::uint32_t size_bytes = 0;
  std::uint32_t checksum = 0;
  std::uint32_t reserved = 0;  // other programs write 0 and leave it as it is

  bool used() const noexcept { return type != LuksmetaType{}; }
  bool operator==(const LuksmetaSlot&) const = default;
};

struct LuksmetaTable {
  std::array<LuksmetaSlot, kLuks1KeyslotCount> slots{};

  bool operator==(const LuksmetaTable&) const = default;
};

struct LuksmetaGap {
  std::uint64_t offset_bytes = 0;  // on the header device
  std::uint64_t size_bytes = 0;    // a multiple of 4096
};

// Absent if the header is LUKS2 or has no gap that holds a table and a block of data: of a detached
// header, for instance, whose payload starts at 0. The device may end before the gap does.
std::optional<LuksmetaGap> luksmeta_gap(const Header& header);

// Whether `bytes`, from the start of a gap, starts with the magic.
bool has_luksmeta_magic(ByteView bytes) noexcept;

// Absent without the magic. Throws Error{kDamaged, kUnsupported (another version)}, its message
// starting with `what`: a wrong checksum, data outside `gap_bytes` or not at a multiple of 4096,
// records that touch each other or the table.
std::optional<LuksmetaTable> decode_luksmeta(ByteView bytes, std::uint64_t gap_bytes,
                                             std::string_view what);
// kLuksmetaTableBytes bytes.
Bytes encode_luksmeta(const LuksmetaTable& table);

// Where the last record ends, in whole blocks from the start of the gap; at least one block.
std::uint64_t luksmeta_end_bytes(const LuksmetaTable& table);

// The lowest place in the gap for `size_bytes` of data that no record touches, or absent.
std::optional<std::uint32_t> find_luksmeta_room(const LuksmetaTable& table, std::uint64_t gap_bytes,
                                                std::uint64_t size_bytes);

// RFC 3720's CRC (Castagnoli).
std::uint32_t crc32c(ByteView bytes) noexcept;

}  // namespace lukskeep::luks
