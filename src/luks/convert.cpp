#include "luks/convert.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/cipher_spec.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/luks1_gap.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks {
namespace {

constexpr std::uint64_t kConvertedMetadataBytes = 0x4000;  // as cryptsetup
constexpr std::size_t kLuks1DigestBytes = 20;
constexpr std::size_t kLuks1SaltBytes = 32;

using Obstacles = std::vector<std::string>;

// A keyslot whose area has to be elsewhere before the metadata can change.
struct Move {
  int keyslot = 0;
  std::uint64_t offset_bytes = 0;  // where to
  // LUKS1: the unused keyslot whose place that is, which gets this one's in return.
  std::optional<int> swaps_with;
};

// The changes that lead to the new header, and what is in the way of them.
struct Plan {
  Obstacles obstacles;
  std::vector<Move> moves;
  Header header;
  std::vector<AreaRange> obsolete;
};

// Whether [offset, offset + size) touches no keyslot but `except`.
bool is_free(const Header& header, std::uint64_t offset, std::uint64_t size, int except) {
  return std::ranges::all_of(header.keyslots, [&](const auto& entry) {
    const KeyslotArea& area = entry.second.area;
    return entry.first == except || offset + size <= area.offset_bytes ||
           area.offset_bytes + area.size_bytes <= offset;
  });
}

void move_in_model(Header& header, const Move& move) {
  header.keyslots.at(move.keyslot).area.offset_bytes = move.offset_bytes;
  if (header.version == Version::kLuks2) return;
  auto& slots = header.luks1_slots;
  Luks1Slot& slot = slots.at(static_cast<std::size_t>(move.keyslot));
  if (move.swaps_with) {
    slots.at(static_cast<std::size_t>(*move.swaps_with)).material_offset_sectors =
        slot.material_offset_sectors;
  }
  slot.material_offset_sectors = static_cast<std::uint32_t>(move.offset_bytes / 512);
}

// The one or two moves that bring a LUKS2 keyslot to `goal`; none if it is there, or if there is no
// room to do it in safe steps.
std::vector<Move> moves_to(const Header& header, int id, std::uint64_t goal, const Room& room) {
  const KeyslotArea& area = header.keyslots.at(id).area;
  const std::uint64_t from = area.offset_bytes;
  const std::uint64_t size = area.size_bytes;
  if (goal == from || goal < room.begin_bytes || goal + size > room.end_bytes ||
      !is_free(header, goal, size, id)) {
    return {};
  }
  const Move last{.keyslot = id, .offset_bytes = goal, .swaps_with = {}};
  if (goal + size <= from || from + size <= goal) return {last};
  // It would overwrite itself: by way of another place.
  Header taken = header;
  taken.keyslots[-1].area = {.offset_bytes = goal, .size_bytes = size};
  const auto aside = find_free_place(taken, room, size);
  if (!aside) return {};
  return {{.keyslot = id, .offset_bytes = *aside, .swaps_with = {}}, last};
}

// Where keyslots stand in each other's way: one that goes where no other wants to be.
std::optional<Move> step_aside(const Header& header, const std::map<int, std::uint64_t>& goals,
                               const Room& room) {
  Header taken = header;
  for (const auto& [id, goal] : goals) {
    const std::uint64_t size = header.keyslots.at(id).area.size_bytes;
    taken.keyslots[-1 - id].area = {.offset_bytes = goal, .size_bytes = size};
  }
  for (const auto& [id, goal] : goals) {
    const KeyslotArea& area = header.keyslots.at(id).area;
    const auto place = find_free_place(taken, room, area.size_bytes);
    if (area.offset_bytes != goal && goal >= room.begin_bytes && place) {
      return Move{.keyslot = id, .offset_bytes = *place, .swaps_with = {}};
    }
  }
  return std::nullopt;
}

// Moves of LUKS2 keyslots to the places in `goals`, in `header` too, as far as they get.
std::vector<Move> plan_arrangement(Header& header, const std::map<int, std::uint64_t>& goals,
                                   const Room& room) {
  std::vector<Move> all;
  const auto move = [&](const Move& one) {
    all.push_back(one);
    move_in_model(header, one);
  };
  const std::size_t rounds_max = 2 * goals.size();
  for (std::size_t round = 0; round < rounds_max; ++round) {
    const std::size_t before = all.size();
    for (const auto& [id, goal] : goals) {
      for (const Move& one : moves_to(header, id, goal, room)) move(one);
    }
    if (all.size() != before) continue;
    const auto aside = step_aside(header, goals, room);
    if (!aside) break;
    move(*aside);
  }
  return all;
}

// One commit: the sealed bytes do not depend on where they are.
void carry_out(HeaderFile& file, const Move& move) {
  const KeyslotArea area = file.header().keyslots.at(move.keyslot).area;
  HeaderChange change{.header = file.header()};
  Bytes material(area.size_bytes);
  file.device()->read(area.offset_bytes, material);
  change.new_areas.push_back({.offset_bytes = move.offset_bytes, .material = std::move(material)});
  change.obsolete.push_back({.offset_bytes = area.offset_bytes, .size_bytes = area.size_bytes});
  move_in_model(change.header, move);
  file.commit(std::move(change));
}

void carry_out(HeaderFile& file, Plan plan, std::string_view what) {
  if (!plan.obstacles.empty()) {
    throw Error(Code::kUnsupported,
                fmt::format("cannot {} the header of '{}': {}", what, file.device()->name(),
                            fmt::join(plan.obstacles, "; ")));
  }
  for (const Move& move : plan.moves) carry_out(file, move);
  file.commit(
      {.header = std::move(plan.header), .new_areas = {}, .obsolete = std::move(plan.obsolete)});
}

void object_to_requirements(const Header& header, Obstacles& obstacles) {
  for (const std::string& requirement : header.config.requirements) {
    obstacles.push_back(fmt::format("it requires '{}'", printable(requirement)));
  }
}

// ---- to LUKS2 --------------------------------------------------------------------------------

// Where a LUKS1 keyslot that is in the way of the metadata can go. LUKS1 has one copy of its
// header, in two sectors, of which a power cut may write one: the swap must be in the first
// (keyslots 0 to 5), or use room that no keyslot names.
std::optional<Move> find_luks1_move(const Header& header, int keyslot, const Room& room) {
  const auto place_of = [&](int id) {
    return std::uint64_t{
               header.luks1_slots.at(static_cast<std::size_t>(id)).material_offset_sectors} *
           512;
  };
  constexpr int kInFirstSector = 6;
  for (int id = kInFirstSector - 1; keyslot < kInFirstSector && id >= 0; --id) {
    if (!header.keyslots.contains(id) && place_of(id) >= room.begin_bytes) {
      return Move{.keyslot = keyslot, .offset_bytes = place_of(id), .swaps_with = id};
    }
  }
  Header taken = header;
  const std::uint64_t size = keyslot_area_bytes(header.luks1_key_size_bytes);
  for (int id = 0; id < kLuks1KeyslotCount; ++id) {
    taken.keyslots[id].area = {.offset_bytes = place_of(id), .size_bytes = size};
  }
  const auto place = find_free_place(taken, room, size);
  if (!place) return std::nullopt;
  return Move{.keyslot = keyslot, .offset_bytes = *place, .swaps_with = {}};
}

// Makes room for the metadata in the model of the LUKS1 header.
void clear_start(Header& header, const Room& room, Plan& plan) {
  for (const auto& [id, keyslot] : std::map<int, Keyslot>(header.keyslots)) {
    if (keyslot.area.offset_bytes >= room.begin_bytes) continue;
    const auto move = find_luks1_move(header, id, room);
    if (!move) {
      plan.obstacles.push_back(fmt::format(
          "keyslot {} is where the metadata of LUKS2 goes, and no other place is free (remove one "
          "of the keyslots 0 to 5 that is no longer needed)",
          id));
      continue;
    }
    plan.moves.push_back(*move);
    move_in_model(header, *move);
  }
}

void check_luks2_areas(const Header& moved, std::uint64_t end_bytes, Obstacles& obstacles) {
  for (const auto& [id, keyslot] : moved.keyslots) {
    const std::uint64_t offset = keyslot.area.offset_bytes;
    if (offset % kAreaAlignmentBytes != 0) {
      obstacles.push_back(fmt::format(
          "keyslot {} is at byte {}, which is no multiple of {} (change its passphrase into "
          "another keyslot, or make a new volume)",
          id, offset, kAreaAlignmentBytes));
    } else if (offset + keyslot_area_bytes(keyslot.key_size_bytes, keyslot.af.stripes) >
               end_bytes) {
      obstacles.push_back(
          fmt::format("keyslot {} ends behind the room for the header, which has "
                      "{} bytes",
                      id, end_bytes));
    }
  }
}

Plan plan_luks2(const HeaderFile& file) {
  Plan plan;
  Header moved = file.header();
  const std::string& encryption = moved.segments.at(0).encryption;
  if (encryption.find('-') == std::string::npos || encryption.starts_with("cipher_null")) {
    plan.obstacles.push_back(
        fmt::format("LUKS2 has no keyslots that are encrypted with '{}'", printable(encryption)));
  }
  // LUKS2 would have its keyslots there.
  if (header_copy_bytes(file) > header_size_bytes(file.header())) {
    plan.obstacles.emplace_back(
        "there are luksmeta records behind the keyslots (lukskeep unbind; and for those of other "
        "programs: luksmeta nuke)");
  }
  const std::uint64_t begin = 2 * kConvertedMetadataBytes;
  const std::uint64_t room = header_room_bytes(file);
  clear_start(moved, {.begin_bytes = begin, .end_bytes = room}, plan);
  const std::uint64_t end =
      std::min(room - room % kAreaAlignmentBytes, begin + limits::kKeyslotsAreaBytesMax);
  check_luks2_areas(moved, end, plan.obstacles);
  if (end <= begin) {
    plan.obstacles.push_back(
        fmt::format("the header has room for {} bytes, LUKS2 needs more than {}", room, begin));
  }
  if (!plan.obstacles.empty()) return plan;
  Header& header = plan.header;
  header.version = Version::kLuks2;
  header.uuid = moved.uuid;
  header.segments = moved.segments;
  header.digests = moved.digests;
  header.keyslots = moved.keyslots;
  for (auto& [id, keyslot] : header.keyslots) {
    keyslot.area.size_bytes = keyslot_area_bytes(keyslot.key_size_bytes, keyslot.af.stripes);
  }
  header.metadata_size_bytes = kConvertedMetadataBytes;
  header.config.json_size_bytes = kConvertedMetadataBytes - kLuks2BinaryHeaderBytes;
  header.config.keyslots_size_bytes = end - begin;
  return plan;
}

// ---- to LUKS1 --------------------------------------------------------------------------------

void check_luks1_config(const Header& header, Obstacles& obstacles) {
  const auto unless = [&](bool fine, std::string problem) {
    if (!fine) obstacles.push_back(std::move(problem));
  };
  unless(header.label.empty() && header.subsystem.empty(),
         "LUKS1 has no label and no subsystem (lukskeep config --label '' --subsystem '')");
  unless(header.tokens.empty(),
         fmt::format("LUKS1 has no tokens, and there are {} (lukskeep token remove)",
                     header.tokens.size()));
  unless(header.config.flags.empty(),
         fmt::format("LUKS1 has no flags, and there are {}", fmt::join(header.config.flags, ", ")));
  unless(header.unknown.empty() && header.config.unknown.empty() &&
             header.config.requirements_unknown.empty(),
         "the metadata has members that this program does not know");
  object_to_requirements(header, obstacles);
}

void check_luks1_segments(const Header& header, Obstacles& obstacles) {
  if (header.segments.size() != 1 || header.digests.size() != 1) {
    obstacles.push_back(fmt::format(
        "LUKS1 has one segment and one volume key, and there are {} and {} (unbound keyslots, or a "
        "re-encryption)",
        header.segments.size(), header.digests.size()));
  }
  for (const auto& [id, segment] : header.segments) {
    const auto unless = [&](bool fine, std::string_view problem) {
      if (!fine) obstacles.push_back(fmt::format("segment {} {}", id, problem));
    };
    unless(segment.type == Segment::Type::kCrypt, "is not encrypted");
    unless(segment.sector_size_bytes == 512, "has sectors of another size than 512 bytes");
    unless(!segment.size_bytes, "does not reach to the end of the device");
    unless(segment.iv_tweak == 0, "starts to count its sectors elsewhere than at 0");
    unless(!segment.has_integrity, "has integrity protection");
    unless(segment.flags.empty() && segment.unknown.empty(), "has flags or unknown members");
    unless(segment.offset_bytes / 512 <= UINT32_MAX, "starts beyond 2 TiB");
  }
}

void check_luks1_keyslot(const Header& header, int id, const Keyslot& keyslot,
                         Obstacles& obstacles) {
  const auto unless = [&](bool fine, const std::string& problem) {
    if (!fine) obstacles.push_back(fmt::format("keyslot {} {}", id, problem));
  };
  const Digest& digest = header.digests.begin()->second;
  const Segment& segment = header.segments.begin()->second;
  unless(id < kLuks1KeyslotCount, "has a number that LUKS1 does not have (0 to 7)");
  unless(keyslot.type == Keyslot::Type::kLuks2, "is of another kind");
  unless(digest.keyslots.contains(id), "does not hold the volume key");
  unless(keyslot.kdf.type == Kdf::Type::kPbkdf2,
         fmt::format("uses {}, LUKS1 has pbkdf2 only (lukskeep key convert --pbkdf pbkdf2)",
                     printable(keyslot.kdf.type_name)));
  unless(keyslot.kdf.type != Kdf::Type::kPbkdf2 || keyslot.kdf.hash == digest.hash,
         fmt::format("uses the hash {}, the volume key's digest {}: LUKS1 has one for all "
                     "(lukskeep key convert)",
                     printable(keyslot.kdf.hash), printable(digest.hash)));
  unless(keyslot.af.hash == digest.hash && keyslot.af.stripes == kNewStripes,
         "is split in another way than LUKS1 would");
  unless(keyslot.area.encryption == segment.encryption &&
             keyslot.area.key_size_bytes == keyslot.key_size_bytes,
         fmt::format("is encrypted with {}, the payload with {}: LUKS1 has one cipher for both",
                     printable(keyslot.area.encryption), printable(segment.encryption)));
  unless(keyslot.priority == Priority::kNormal,
         "has a priority (lukskeep config --priority KEYSLOT:normal)");
  unless(keyslot.kdf.salt.size() == kLuks1SaltBytes, "has a salt of another length");
  unless(keyslot.unknown.empty() && keyslot.kdf.unknown.empty() && keyslot.area.unknown.empty() &&
             keyslot.af.unknown.empty(),
         "has members that this program does not know");
}

void check_luks1_digest(const Digest& digest, Obstacles& obstacles) {
  if (digest.type != Digest::Type::kPbkdf2 || digest.digest.size() < kLuks1DigestBytes ||
      digest.salt.size() != kLuks1SaltBytes || !digest.unknown.empty()) {
    obstacles.emplace_back("the digest of the volume key is none that LUKS1 can hold");
  }
}

// LUKS1 names a place for each of its eight keyslots: those that are not used get theirs anew,
// where they always are if that is free. False if there is not enough room.
bool place_unused(Header& header, std::uint64_t room_bytes) {
  const std::uint64_t size = keyslot_area_bytes(header.luks1_key_size_bytes);
  Header taken = header;
  for (int id = 0; id < kLuks1KeyslotCount; ++id) {
    std::uint64_t offset = kLuks1KeyslotsOffsetBytes + static_cast<std::uint64_t>(id) * size;
    if (const auto found = header.keyslots.find(id); found != header.keyslots.end()) {
      offset = found->second.area.offset_bytes;
    } else {
      if (offset + size > room_bytes || !is_free(taken, offset, size, id)) {
        const auto place = find_free_place(
            taken, {.begin_bytes = kLuks1KeyslotsOffsetBytes, .end_bytes = room_bytes}, size);
        if (!place) return false;
        offset = *place;
      }
      taken.keyslots[id].area = {.offset_bytes = offset, .size_bytes = size};
    }
    if (offset / 512 > UINT32_MAX) return false;
    header.luks1_slots.at(static_cast<std::size_t>(id)).material_offset_sectors =
        static_cast<std::uint32_t>(offset / 512);
  }
  return true;
}

// Where LUKS1 has its keyslots by custom: one behind the other by number. cryptsetup converts only
// headers of which one starts at the first place; there LUKS2 has its metadata, so that keyslot 0
// takes the place of an unused one, and that one the first.
std::map<int, std::uint64_t> luks1_places(const Header& header) {
  std::map<int, std::uint64_t> places;
  const std::uint64_t size = keyslot_area_bytes(header.keyslots.begin()->second.key_size_bytes);
  for (const auto& [id, keyslot] : header.keyslots) {
    int place = id;
    while (id == 0 && (place == 0 || header.keyslots.contains(place))) ++place;
    places[id] = kLuks1KeyslotsOffsetBytes + static_cast<std::uint64_t>(place) * size;
  }
  return places;
}

Plan plan_luks1(const HeaderFile& file) {
  Plan plan;
  const Header& present = file.header();
  check_luks1_config(present, plan.obstacles);
  check_luks1_segments(present, plan.obstacles);
  if (present.segments.empty() || present.digests.empty()) return plan;
  const Digest& digest = present.digests.begin()->second;
  check_luks1_digest(digest, plan.obstacles);
  for (const auto& [id, keyslot] : present.keyslots) {
    check_luks1_keyslot(present, id, keyslot, plan.obstacles);
  }
  if (present.keyslots.empty()) {
    plan.obstacles.emplace_back("no keyslot is left that tells the size of the volume key");
  }
  if (!plan.obstacles.empty()) return plan;
  Header& header = plan.header;
  header.version = Version::kLuks1;
  header.uuid = present.uuid;
  header.luks1_key_size_bytes = present.keyslots.begin()->second.key_size_bytes;
  header.segments[0] = present.segments.begin()->second;
  Header arranged = present;
  plan.moves = plan_arrangement(
      arranged, luks1_places(present),
      {.begin_bytes = 2 * present.metadata_size_bytes, .end_bytes = header_end_bytes(present)});
  header.keyslots = arranged.keyslots;
  for (auto& [id, keyslot] : header.keyslots) {
    keyslot.area.size_bytes = material_bytes(keyslot.key_size_bytes, keyslot.af.stripes);
  }
  // PBKDF2's output does not depend on how much of it is asked for: the start of the digest is the
  // digest of LUKS1 (RFC 8018 §5.2).
  Digest& shorter = header.digests[0] = digest;
  shorter.segments = {0};
  shorter.digest.resize(kLuks1DigestBytes);
  if (!place_unused(header, header_room_bytes(file))) {
    plan.obstacles.emplace_back("there is no room for the eight keyslots of LUKS1");
  }
  plan.obsolete.push_back(
      {.offset_bytes = kLuks1KeyslotsOffsetBytes,
       .size_bytes = 2 * present.metadata_size_bytes - kLuks1KeyslotsOffsetBytes});
  return plan;
}

Plan plan_conversion(const HeaderFile& file, Version target) {
  if (file.header().version == target) {
    Plan plan;
    plan.obstacles.emplace_back(target == Version::kLuks1 ? "it is LUKS1 already"
                                                          : "it is LUKS2 already");
    return plan;
  }
  Plan plan = target == Version::kLuks2 ? plan_luks2(file) : plan_luks1(file);
  // By it the two versions know each other when power fails between the writes.
  if (file.header().uuid.empty()) plan.obstacles.emplace_back("it has no UUID");
  return plan;
}

// ---- geometry --------------------------------------------------------------------------------

void check_geometry(const Header& changed, std::uint64_t room_bytes, Obstacles& obstacles) {
  const auto& sizes = kLuks2MetadataSizes;
  const std::uint64_t metadata = changed.metadata_size_bytes;
  const std::uint64_t keyslots = changed.config.keyslots_size_bytes;
  if (std::find(sizes.begin(), sizes.end(), metadata) == sizes.end()) {
    obstacles.push_back(
        fmt::format("a metadata size of {} bytes is none of the nine that LUKS2 has "
                    "(16 KiB, doubled up to 4 MiB)",
                    metadata));
  }
  if (keyslots % kAreaAlignmentBytes != 0 || keyslots > limits::kKeyslotsAreaBytesMax ||
      keyslots == 0) {
    obstacles.push_back(
        fmt::format("a keyslots area of {} bytes is no multiple of {} that is at most {}", keyslots,
                    kAreaAlignmentBytes, limits::kKeyslotsAreaBytesMax));
  } else if (room_bytes < 2 * metadata || room_bytes - 2 * metadata < keyslots) {
    obstacles.push_back(fmt::format(
        "two copies of {} bytes and a keyslots area of {} do not fit into the {} bytes before the "
        "payload (or of the header's device)",
        metadata, keyslots, room_bytes));
  }
}

// Moves in the model what would lie outside of the new keyslots area.
void plan_moves(const Header& present, const Header& changed, Plan& plan) {
  const auto end_of = [](const Header& header) {
    return 2 * header.metadata_size_bytes + header.config.keyslots_size_bytes;
  };
  const Room room = {
      .begin_bytes = 2 * std::max(present.metadata_size_bytes, changed.metadata_size_bytes),
      .end_bytes = std::min(end_of(present), end_of(changed))};
  Header moved = present;
  for (const auto& [id, keyslot] : present.keyslots) {
    const KeyslotArea& area = keyslot.area;
    if (area.offset_bytes >= 2 * changed.metadata_size_bytes &&
        area.offset_bytes + area.size_bytes <= end_of(changed)) {
      continue;
    }
    const auto place = find_free_place(moved, room, area.size_bytes);
    if (!place) {
      plan.obstacles.push_back(
          fmt::format("there is no room for keyslot {} in the new keyslots area", id));
      continue;
    }
    plan.moves.push_back({.keyslot = id, .offset_bytes = *place, .swaps_with = {}});
    // Its old place stays taken until it is there.
    moved.keyslots[-1 - id].area = area;
    move_in_model(moved, plan.moves.back());
  }
  plan.header = changed;
  for (auto& [id, keyslot] : plan.header.keyslots) keyslot.area = moved.keyslots.at(id).area;
}

Plan plan_resize(const HeaderFile& file, const HeaderGeometry& geometry) {
  Plan plan;
  const Header& present = file.header();
  if (present.version == Version::kLuks1) {
    plan.obstacles.emplace_back("LUKS1 has no choice of sizes (lukskeep header convert)");
    return plan;
  }
  object_to_requirements(present, plan.obstacles);
  Header changed = present;
  changed.metadata_size_bytes = geometry.metadata_size_bytes.value_or(present.metadata_size_bytes);
  changed.config.json_size_bytes = changed.metadata_size_bytes - kLuks2BinaryHeaderBytes;
  const std::uint64_t room = header_room_bytes(file);
  const std::uint64_t left =
      room > 2 * changed.metadata_size_bytes ? room - 2 * changed.metadata_size_bytes : 0;
  changed.config.keyslots_size_bytes = geometry.keyslots_size_bytes.value_or(
      std::min(left - left % kAreaAlignmentBytes, limits::kKeyslotsAreaBytesMax));
  check_geometry(changed, room, plan.obstacles);
  if (!plan.obstacles.empty()) return plan;
  plan_moves(present, changed, plan);
  if (changed.metadata_size_bytes < present.metadata_size_bytes) {
    plan.obsolete.push_back(
        {.offset_bytes = 2 * changed.metadata_size_bytes,
         .size_bytes = 2 * (present.metadata_size_bytes - changed.metadata_size_bytes)});
  }
  return plan;
}

}  // namespace

std::uint64_t header_room_bytes(const HeaderFile& file) {
  const std::uint64_t payload = payload_offset_bytes(file.header());
  const std::uint64_t device = file.device()->size_bytes();
  return payload == 0 ? device : std::min(payload, device);
}

std::vector<std::string> conversion_obstacles(const HeaderFile& file, Version target) {
  return plan_conversion(file, target).obstacles;
}

void convert_header(HeaderFile& file, Version target) {
  carry_out(file, plan_conversion(file, target), "convert");
  if (target == Version::kLuks1) return;
  // In the order of their numbers, as cryptsetup lays them out.
  std::map<int, std::uint64_t> places;
  for (const auto& [id, keyslot] : file.header().keyslots) {
    places[id] =
        2 * kConvertedMetadataBytes + static_cast<std::uint64_t>(id) * keyslot.area.size_bytes;
  }
  Header arranged = file.header();
  for (const Move& move : plan_arrangement(arranged, places,
                                           {.begin_bytes = 2 * kConvertedMetadataBytes,
                                            .end_bytes = header_end_bytes(file.header())})) {
    carry_out(file, move);
  }
}

std::vector<std::string> resize_obstacles(const HeaderFile& file, const HeaderGeometry& geometry) {
  return plan_resize(file, geometry).obstacles;
}

void resize_header(HeaderFile& file, const HeaderGeometry& geometry) {
  carry_out(file, plan_resize(file, geometry), "resize");
}

}  // namespace lukskeep::luks
