#include "luks/layout.h"

#include <algorithm>
#include <map>

namespace lukskeep::luks {

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

std::uint64_t material_bytes(std::uint32_t key_size_bytes, std::uint32_t stripes) {
  return round_up(std::uint64_t{key_size_bytes} * stripes, 512);
}

std::uint64_t keyslot_area_bytes(std::uint32_t key_size_bytes, std::uint32_t stripes) {
  return round_up(material_bytes(key_size_bytes, stripes), kAreaAlignmentBytes);
}

std::optional<std::uint64_t> find_free_place(const Header& header, const Room& room,
                                             std::uint64_t size_bytes) {
  std::map<std::uint64_t, std::uint64_t> taken;  // start -> end
  for (const auto& [id, keyslot] : header.keyslots) {
    taken.emplace(keyslot.area.offset_bytes, keyslot.area.offset_bytes + keyslot.area.size_bytes);
  }
  std::uint64_t at = room.begin_bytes;
  for (const auto& [area_start, area_end] : taken) {
    if (area_start >= at && area_start - at >= size_bytes) break;
    at = round_up(std::max(at, area_end), kAreaAlignmentBytes);
  }
  if (at > room.end_bytes || room.end_bytes - at < size_bytes) return std::nullopt;
  return at;
}

std::optional<std::uint64_t> find_free_area(const Header& header, std::uint64_t size_bytes) {
  const std::uint64_t begin = 2 * header.metadata_size_bytes;
  return find_free_place(
      header, {.begin_bytes = begin, .end_bytes = begin + header.config.keyslots_size_bytes},
      size_bytes);
}

std::optional<int> find_free_keyslot(const Header& header) {
  const int count = header.version == Version::kLuks1 ? kLuks1KeyslotCount : kLuks2KeyslotCountMax;
  for (int id = 0; id < count; ++id) {
    if (!header.keyslots.contains(id)) return id;
  }
  return std::nullopt;
}

std::uint64_t header_end_bytes(const Header& header) {
  if (header.version == Version::kLuks2) {
    return 2 * header.metadata_size_bytes + header.config.keyslots_size_bytes;
  }
  std::uint64_t end = 0;
  for (const Luks1Slot& slot : header.luks1_slots) {
    end = std::max(end, std::uint64_t{slot.material_offset_sectors} * 512 +
                            material_bytes(header.luks1_key_size_bytes, slot.stripes));
  }
  return end;
}

std::uint64_t header_size_bytes(const Header& header) {
  return round_up(header_end_bytes(header), kAreaAlignmentBytes);
}

}  // namespace lukskeep::luks
