#include "luks/luks1_codec.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "luks/luks1_fields.h"

namespace lukskeep::luks {
namespace {

using namespace luks1;

[[noreturn]] void damaged(std::string_view what, std::string_view problem) {
  throw Error(Code::kDamaged, fmt::format("{}: {}", what, problem));
}

// A string field, up to its terminating NUL; whatever stands behind that has no meaning.
std::string read_text(ByteView header, std::size_t offset, std::size_t size_bytes,
                      std::string_view what, std::string_view field) {
  const std::string_view text = as_string_view(header.subspan(offset, size_bytes));
  const std::size_t end = text.find('\0');
  if (end == std::string_view::npos) {
    damaged(what, fmt::format("LUKS1 {} '{}' has no terminating zero", field, printable(text)));
  }
  const std::string_view value = text.substr(0, end);
  const auto is_plain = [](char c) { return c > 0x20 && c < 0x7f; };
  if (!std::all_of(value.begin(), value.end(), is_plain)) {
    damaged(what, fmt::format("LUKS1 {} '{}' has characters that are not printable ASCII", field,
                              printable(value)));
  }
  return std::string(value);
}

// "aes" and "xts-plain64" become "aes-xts-plain64"; the mode may be empty (cryptsetup's repair
// knows such headers).
std::string read_encryption(ByteView header, std::string_view what) {
  const std::string name = read_text(header, kCipherNameOffset, kNameBytes, what, "cipher name");
  const std::string mode = read_text(header, kCipherModeOffset, kNameBytes, what, "cipher mode");
  if (name.empty()) damaged(what, "LUKS1 cipher name is empty");
  if (name.find('-') != std::string::npos) {
    damaged(what, fmt::format("LUKS1 cipher name '{}' holds a '-'", printable(name)));
  }
  return mode.empty() ? name : name + "-" + mode;
}

Bytes read_bytes(ByteView header, std::size_t offset, std::size_t size_bytes) {
  const ByteView bytes = header.subspan(offset, size_bytes);
  return {bytes.begin(), bytes.end()};
}

void read_magic(ByteView bytes, std::string_view what) {
  const ByteView magic = std::as_bytes(std::span(kMagic));
  if (bytes.size() < magic.size() || !std::equal(magic.begin(), magic.end(), bytes.begin())) {
    throw Error(Code::kNotLuks, fmt::format("{}: no LUKS header", what));
  }
  if (bytes.size() < kLuks1HeaderBytes) {
    damaged(what,
            fmt::format("LUKS1 header ends after {} of {} bytes", bytes.size(), kLuks1HeaderBytes));
  }
  const auto version = load_be<std::uint16_t>(&bytes[kVersionOffset]);
  if (version != 1) {
    throw Error(Code::kUnsupported, fmt::format("{}: LUKS version {} is not LUKS1", what, version));
  }
}

struct RawSlot {
  std::uint32_t state = 0;
  std::uint32_t iterations = 0;
  std::uint32_t material_offset_sectors = 0;
  std::uint32_t stripes = 0;
  Bytes salt;

  bool active() const { return state == kSlotActive; }
};

RawSlot read_slot(ByteView header, std::size_t index) {
  const std::size_t at = kKeyslotsOffset + index * kKeyslotBytes;
  const auto number = [&](std::size_t offset) {
    return load_be<std::uint32_t>(&header[at + offset]);
  };
  return {.state = number(0),
          .iterations = number(kSlotIterationsOffset),
          .material_offset_sectors = number(kSlotMaterialOffset),
          .stripes = number(kSlotStripesOffset),
          .salt = read_bytes(header, at + kSlotSaltOffset, kSaltBytes)};
}

// The rules of one keyslot. As in cryptsetup, all but the iterations hold for inactive ones too.
void check_slot(const RawSlot& slot, std::size_t index, std::uint32_t key_size_bytes,
                std::uint64_t payload_offset_bytes, std::string_view what) {
  const auto fail = [&](const std::string& problem) {
    damaged(what, fmt::format("LUKS1 keyslot {}: {}", index, problem));
  };
  if (slot.stripes != kStripes) fail(fmt::format("{} stripes, not {}", slot.stripes, kStripes));
  if (slot.active() && slot.iterations == 0) fail("iterations are 0");
  const std::uint64_t begin = slot.material_offset_sectors * kSectorBytes;
  const std::uint64_t end = begin + material_bytes(key_size_bytes);
  if (begin < kLuks1HeaderBytes) {
    fail(
        fmt::format("key material at sector {} overlaps the header", slot.material_offset_sectors));
  }
  // A payload offset of 0 belongs to a detached header: the payload is on another device.
  if (payload_offset_bytes != 0 && end > payload_offset_bytes) {
    fail(fmt::format("key material at sector {} overlaps the payload at sector {}",
                     slot.material_offset_sectors, payload_offset_bytes / kSectorBytes));
  }
}

void check_slots_apart(const std::vector<RawSlot>& slots, std::uint32_t key_size_bytes,
                       std::string_view what) {
  std::vector<std::pair<std::uint64_t, std::size_t>> starts;
  starts.reserve(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    starts.emplace_back(slots[i].material_offset_sectors * kSectorBytes, i);
  }
  std::sort(starts.begin(), starts.end());
  for (std::size_t i = 1; i < starts.size(); ++i) {
    if (starts[i].first - starts[i - 1].first < material_bytes(key_size_bytes)) {
      const auto [low, high] = std::minmax(starts[i].second, starts[i - 1].second);
      damaged(what, fmt::format("LUKS1 keyslots {} and {} overlap", low, high));
    }
  }
}

// What the fields above the keyslots say.
struct RawHead {
  std::string encryption;
  std::string hash;
  std::string uuid;
  std::uint64_t payload_offset_bytes = 0;
  std::uint32_t key_size_bytes = 0;
  std::uint32_t digest_iterations = 0;
};

RawHead read_head(ByteView header, std::string_view what) {
  RawHead head;
  head.encryption = read_encryption(header, what);
  head.hash = read_text(header, kHashSpecOffset, kNameBytes, what, "hash");
  if (head.hash.empty()) damaged(what, "LUKS1 hash is empty");
  head.payload_offset_bytes = load_be<std::uint32_t>(&header[kPayloadOffsetOffset]) * kSectorBytes;
  head.key_size_bytes = load_be<std::uint32_t>(&header[kKeyBytesOffset]);
  if (head.key_size_bytes == 0 || head.key_size_bytes > limits::kVolumeKeyBytesMax) {
    damaged(what, fmt::format("LUKS1 key size of {} bytes is not in 1 to {}", head.key_size_bytes,
                              limits::kVolumeKeyBytesMax));
  }
  head.digest_iterations = load_be<std::uint32_t>(&header[kDigestIterationsOffset]);
  if (head.digest_iterations == 0) damaged(what, "LUKS1 digest iterations are 0");
  head.uuid = read_text(header, kUuidOffset, kUuidBytes, what, "UUID");
  return head;
}

Keyslot make_keyslot(const RawSlot& slot, const RawHead& head) {
  Keyslot keyslot;
  keyslot.key_size_bytes = head.key_size_bytes;
  keyslot.af.hash = head.hash;
  keyslot.af.stripes = slot.stripes;
  keyslot.area.offset_bytes = slot.material_offset_sectors * kSectorBytes;
  keyslot.area.size_bytes = material_bytes(head.key_size_bytes);
  keyslot.area.encryption = head.encryption;
  keyslot.area.key_size_bytes = head.key_size_bytes;
  keyslot.kdf.type_name = "pbkdf2";
  keyslot.kdf.hash = head.hash;
  keyslot.kdf.iterations = slot.iterations;
  keyslot.kdf.salt = slot.salt;
  return keyslot;
}

void put_slots(Header& header, const std::vector<RawSlot>& slots, const RawHead& head) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const RawSlot& slot = slots[i];
    Luks1Slot& stored = header.luks1_slots.at(i);
    stored.material_offset_sectors = slot.material_offset_sectors;
    stored.stripes = slot.stripes;
    if (slot.active()) {
      header.keyslots.emplace(static_cast<int>(i), make_keyslot(slot, head));
      header.digests[0].keyslots.insert(static_cast<int>(i));
    } else {
      stored.inactive_iterations = slot.iterations;
      std::copy(slot.salt.begin(), slot.salt.end(), stored.inactive_salt.begin());
      stored.inactive_state = slot.state;
    }
  }
}

}  // namespace

Header decode_luks1(ByteView bytes, std::string_view what) {
  read_magic(bytes, what);
  const RawHead head = read_head(bytes, what);
  std::vector<RawSlot> slots;
  for (std::size_t i = 0; i < kLuks1KeyslotCount; ++i) {
    slots.push_back(read_slot(bytes, i));
    check_slot(slots.back(), i, head.key_size_bytes, head.payload_offset_bytes, what);
  }
  check_slots_apart(slots, head.key_size_bytes, what);

  Header header;
  header.version = Version::kLuks1;
  header.uuid = head.uuid;
  header.luks1_key_size_bytes = head.key_size_bytes;
  Segment& segment = header.segments[0];
  segment.offset_bytes = head.payload_offset_bytes;
  segment.encryption = head.encryption;
  Digest& digest = header.digests[0];
  digest.segments = {0};
  digest.hash = head.hash;
  digest.iterations = head.digest_iterations;
  digest.salt = read_bytes(bytes, kDigestSaltOffset, kSaltBytes);
  digest.digest = read_bytes(bytes, kDigestOffset, kDigestBytes);
  put_slots(header, slots, head);
  return header;
}

}  // namespace lukskeep::luks
