// How a binding says that a rebind is not done: what is needed to go on after a power cut.
#pragma once

#include <cstdint>
#include <optional>

#include <lukskeep/header.h>

namespace lukskeep::nbde {

// LUKS2: members of the token. The number of the keyslot whose binding it is to replace, and the
// print of that keyslot. Clevis passes over them.
inline constexpr const char* kReplacesMember = "lukskeep-replaces";
inline constexpr const char* kReplacesPrintMember = "lukskeep-replaces-print";

// LUKS1: in the reserved field of a luksmeta record, which other programs keep as it is. 'L', one
// of these kinds, a keyslot (four bits), and the print of the keyslot that is replaced (16 bits).
inline constexpr std::uint32_t kReplacesMark = 0x4c100000;
inline constexpr std::uint32_t kLeftoverMark = 0x4c200000;

// Tells what is in a keyslot from what somebody may put there later: a key that is added has a salt
// of its own.
inline std::uint16_t keyslot_print(const luks::Keyslot& keyslot) noexcept {
  if (keyslot.kdf.salt.size() < 2) return 0;
  return static_cast<std::uint16_t>((std::to_integer<unsigned>(keyslot.kdf.salt[0]) << 8U) |
                                    std::to_integer<unsigned>(keyslot.kdf.salt[1]));
}

constexpr std::uint32_t make_mark(std::uint32_t kind, int keyslot, std::uint16_t print) noexcept {
  return kind | (static_cast<std::uint32_t>(keyslot) << 16U) | print;
}

// Absent if `reserved` is not of that kind with a keyslot that LUKS1 has.
inline std::optional<int> marked_keyslot(std::uint32_t reserved, std::uint32_t kind) noexcept {
  constexpr std::uint32_t kKeyslots = 8;
  const std::uint32_t keyslot = (reserved >> 16U) & 0xf;
  if ((reserved & 0xfff00000) != kind || keyslot >= kKeyslots) return std::nullopt;
  return static_cast<int>(keyslot);
}

inline std::uint16_t marked_print(std::uint32_t reserved) noexcept {
  return static_cast<std::uint16_t>(reserved & 0xffff);
}

}  // namespace lukskeep::nbde
