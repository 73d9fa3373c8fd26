// Where things are put in a new header, and where a new keyslot finds room.
#pragma once

#include <cstdint>
#include <optional>

#include <lukskeep/header.h>

namespace lukskeep::luks {

// Of new keyslots (LUKS1 §2.4).
inline constexpr std::uint32_t kNewStripes = 4000;
// Areas start and end at multiples of this (LUKS2 §2.3; LUKS1 §2.4 as cryptsetup lays it out).
inline constexpr std::uint64_t kAreaAlignmentBytes = 4096;
// Attached payloads start at a multiple of this.
inline constexpr std::uint64_t kPayloadAlignmentBytes = std::uint64_t{1} << 20;

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit);

// Bytes of split key material, in whole 512-byte sectors.
std::uint64_t material_bytes(std::uint32_t key_size_bytes, std::uint32_t stripes);

// Bytes of one keyslot area: the material rounded up to kAreaAlignmentBytes.
std::uint64_t keyslot_area_bytes(std::uint32_t key_size_bytes, std::uint32_t stripes = kNewStripes);

// The lowest aligned place of `size_bytes` in [begin, end) that no keyslot's area touches, or
// absent.
struct Room {
  std::uint64_t begin_bytes = 0;
  std::uint64_t end_bytes = 0;
};
std::optional<std::uint64_t> find_free_place(const Header& header, const Room& room,
                                             std::uint64_t size_bytes);

// The lowest free place in the LUKS2 keyslots area that holds `size_bytes`, or absent.
std::optional<std::uint64_t> find_free_area(const Header& header, std::uint64_t size_bytes);

// Lowest free keyslot number, or absent: LUKS1 has 8, LUKS2 32.
std::optional<int> find_free_keyslot(const Header& header);

// Bytes from the start of the header device that belong to the header. LUKS2: both copies and the
// keyslots area. LUKS1: to the end of the last keyslot area.
std::uint64_t header_end_bytes(const Header& header);

// The same, rounded up to 4096: the size of a backup, as cryptsetup makes them. Of a legacy LUKS1
// volume that is more than the header has: the payload may start before.
std::uint64_t header_size_bytes(const Header& header);

}  // namespace lukskeep::luks
