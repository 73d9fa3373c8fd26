// What was left in the keyslots area, and its end.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "luks/keyslots.h"
#include "luks/layout.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks {
namespace {

// The areas of LUKS1 have fixed places, which the codec has found to lie apart.
std::vector<AreaRange> unused_luks1_areas(const Header& header) {
  std::vector<AreaRange> unused;
  for (int id = 0; id < kLuks1KeyslotCount; ++id) {
    if (header.keyslots.contains(id)) continue;
    const Luks1Slot& slot = header.luks1_slots.at(static_cast<std::size_t>(id));
    unused.push_back({.offset_bytes = std::uint64_t{slot.material_offset_sectors} * 512,
                      .size_bytes = material_bytes(header.luks1_key_size_bytes, slot.stripes)});
  }
  return unused;
}

// Of LUKS2 what lies between the areas, which belong to keyslots of every type.
std::vector<AreaRange> unused_luks2_areas(const Header& header) {
  std::vector<AreaRange> used;
  for (const auto& [id, keyslot] : header.keyslots) {
    used.push_back(
        {.offset_bytes = keyslot.area.offset_bytes, .size_bytes = keyslot.area.size_bytes});
  }
  std::sort(used.begin(), used.end(),
            [](const AreaRange& a, const AreaRange& b) { return a.offset_bytes < b.offset_bytes; });
  std::uint64_t at = 2 * header.metadata_size_bytes;
  const std::uint64_t end = at + header.config.keyslots_size_bytes;
  used.push_back({.offset_bytes = end, .size_bytes = 0});
  std::vector<AreaRange> unused;
  for (const AreaRange& area : used) {
    if (area.offset_bytes > at) {
      unused.push_back({.offset_bytes = at, .size_bytes = area.offset_bytes - at});
    }
    at = std::max(at, area.offset_bytes + area.size_bytes);
  }
  return unused;
}

}  // namespace

std::vector<AreaRange> unused_areas(const Header& header) {
  return header.version == Version::kLuks1 ? unused_luks1_areas(header)
                                           : unused_luks2_areas(header);
}

std::uint64_t wipe_unused_areas(HeaderFile& file) {
  for (const std::string& requirement : unsupported_requirements(file.header())) {
    throw Error(Code::kUnsupported,
                fmt::format("cannot wipe what no keyslot of '{}' uses: it requires '{}', which may "
                            "use it and which this program does not support",
                            file.device()->name(), printable(requirement)));
  }
  HeaderChange change{.header = file.header(), .obsolete = unused_areas(file.header())};
  const std::uint64_t size_bytes = file.device()->size_bytes();
  std::uint64_t wiped_bytes = 0;
  for (const AreaRange& area : change.obsolete) {
    const std::uint64_t start = std::min(area.offset_bytes, size_bytes);
    wiped_bytes += std::min(area.size_bytes, size_bytes - start);
  }
  file.commit(std::move(change));
  return wiped_bytes;
}

}  // namespace lukskeep::luks
