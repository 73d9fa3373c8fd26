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

// LUKS1: in the reserved field of a luksmeta record, which other programs keep as it is. One of
// these kinds (five bits), a keyslot (three bits), the short print of the record's own keyslot
// (eight bits) and the print of the keyslot that is replaced (16 bits).
inline constexpr std::uint32_t kReplacesMark = 0x48000000;
inline constexpr std::uint32_t kLeftoverMark = 0x50000000;

// Tells what is in a keyslot from what somebody may put there later: a key that is added has a salt
// of its own.
inline std::uint16_t keyslot_print(const luks::Keyslot& keyslot) noexcept {
  if (keyslot.kdf.salt.size() < 2) return 0;
  return static_cast<std::uint16_t>((std::to_integer<unsigned>(keyslot.kdf.salt[0]) << 8U) |
                                    std::to_integer<unsigned>(keyslot.kdf.salt[1]));
}

// Of a keyslot that is known by more: it has the iterations of a binding's.
inline std::uint8_t short_print(const luks::Keyslot& keyslot) noexcept {
  return static_cast<std::uint8_t>(keyslot_print(keyslot) >> 8U);
}

struct MarkPrints {
  std::uint8_t own = 0;
  std::uint16_t replaced = 0;
};

constexpr std::uint32_t make_mark(std::uint32_t kind, int keyslot, MarkPrints prints) noexcept {
  return kind | (static_cast<std::uint32_t>(keyslot) << 24U) | (std::uint32_t{prints.own} << 16U) |
         prints.replaced;
}

// Absent if `reserved` is not of that kind.
inline std::optional<int> marked_keyslot(std::uint32_t reserved, std::uint32_t kind) noexcept {
  if ((reserved & 0xf8000000) != kind) return std::nullopt;
  return static_cast<int>((reserved >> 24U) & 7U);
}

inline MarkPrints marked_prints(std::uint32_t reserved) noexcept {
  return {.own = static_cast<std::uint8_t>((reserved >> 16U) & 0xff),
          .replaced = static_cast<std::uint16_t>(reserved & 0xffff)};
}

}  // namespace lukskeep::nbde
