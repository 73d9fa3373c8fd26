// How a binding says that a rebind is not done: what is needed to go on after a power cut.
#pragma once

#include <cstdint>
#include <optional>

namespace lukskeep::nbde {

// LUKS2: a member of the token, the number of the keyslot whose binding it is to replace. Clevis
// passes over it.
inline constexpr const char* kReplacesMember = "lukskeep-replaces";

// LUKS1: in the reserved field of a luksmeta record, which other programs keep as it is; the low
// byte is a keyslot.
inline constexpr std::uint32_t kReplacesMark = 0x4c4b0100;
inline constexpr std::uint32_t kLeftoverMark = 0x4c4b0200;

// Absent if `reserved` is not `mark` with a keyslot that LUKS1 has.
inline std::optional<int> marked_keyslot(std::uint32_t reserved, std::uint32_t mark) noexcept {
  constexpr std::uint32_t kKeyslots = 8;
  if ((reserved & ~std::uint32_t{0xff}) != mark || (reserved & 0xff) >= kKeyslots) {
    return std::nullopt;
  }
  return static_cast<int>(reserved & 0xff);
}

}  // namespace lukskeep::nbde
