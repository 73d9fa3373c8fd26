// Where the fields of the LUKS1 header are. Internal to the LUKS1 codec.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <lukskeep/header.h>

#include "luks/luks1_codec.h"

namespace lukskeep::luks::luks1 {

// LUKS1 §3.1, "phdr": all numbers are big endian.
inline constexpr std::array<unsigned char, 6> kMagic = {'L', 'U', 'K', 'S', 0xba, 0xbe};
inline constexpr std::size_t kVersionOffset = 6;
inline constexpr std::size_t kCipherNameOffset = 8;
inline constexpr std::size_t kCipherModeOffset = 40;
inline constexpr std::size_t kHashSpecOffset = 72;
inline constexpr std::size_t kNameBytes = 32;
inline constexpr std::size_t kPayloadOffsetOffset = 104;
inline constexpr std::size_t kKeyBytesOffset = 108;
inline constexpr std::size_t kDigestOffset = 112;
inline constexpr std::size_t kDigestBytes = 20;
inline constexpr std::size_t kDigestSaltOffset = 132;
inline constexpr std::size_t kSaltBytes = 32;
inline constexpr std::size_t kDigestIterationsOffset = 164;
inline constexpr std::size_t kUuidOffset = 168;
inline constexpr std::size_t kUuidBytes = 40;
inline constexpr std::size_t kKeyslotsOffset = 208;
inline constexpr std::size_t kKeyslotBytes = 48;
// Within a keyslot.
inline constexpr std::size_t kSlotIterationsOffset = 4;
inline constexpr std::size_t kSlotSaltOffset = 8;
inline constexpr std::size_t kSlotMaterialOffset = 40;
inline constexpr std::size_t kSlotStripesOffset = 44;

inline constexpr std::uint32_t kSlotActive = 0x00ac71f3;
inline constexpr std::uint32_t kSlotInactive = 0x0000dead;
inline constexpr std::uint32_t kStripes = 4000;
inline constexpr std::uint64_t kSectorBytes = 512;
static_assert(kKeyslotsOffset + kLuks1KeyslotCount * kKeyslotBytes == kLuks1HeaderBytes);

inline std::uint64_t round_up_to_sector(std::uint64_t size_bytes) {
  return (size_bytes + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
}

// Bytes of key material in one keyslot, in whole sectors (LUKS1 §2.4).
inline std::uint64_t material_bytes(std::uint32_t key_size_bytes) {
  return round_up_to_sector(std::uint64_t{key_size_bytes} * kStripes);
}

}  // namespace lukskeep::luks::luks1
