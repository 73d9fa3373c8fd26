// Where things are put in a new header, and where a new keyslot finds room.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <lukskeep/header.h>

namespace lukskeep::luks {

// Bytes of one keyslot area: key * stripes rounded up to 4096 (LUKS2 §3.2.3; LUKS1 rounds to 512
// and aligns the next).
std::uint64_t keyslot_area_bytes(std::uint32_t key_size_bytes, std::uint32_t stripes = 4000);

// The lowest free place in the LUKS2 keyslots area that holds `size_bytes`, or absent.
std::optional<std::uint64_t> find_free_area(const Header& header, std::uint64_t size_bytes);

// Lowest free keyslot number, or absent. LUKS1: of 8 (and with legal geometry); LUKS2: of 32.
std::optional<int> find_free_keyslot(const Header& header);

}  // namespace lukskeep::luks
