#include "luks/luks1_codec.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "base/uuid.h"

namespace lukskeep::luks {
namespace {

// LUKS1 §2.1, "phdr": all numbers are big endian.
constexpr std::array<unsigned char, 6> kMagic = {'L', 'U', 'K', 'S', 0xba, 0xbe};
constexpr std::size_t kVersionOffset = 6;
constexpr std::size_t kCipherNameOffset = 8;
constexpr std::size_t kCipherModeOffset = 40;
constexpr std::size_t kHashSpecOffset = 72;
constexpr std::size_t kNameBytes = 32;
constexpr std::size_t kPayloadOffsetOffset = 104;
constexpr std::size_t kKeyBytesOffset = 108;
constexpr std::size_t kDigestOffset = 112;
constexpr std::size_t kDigestBytes = 20;
constexpr std::size_t kDigestSaltOffset = 132;
constexpr std::size_t kSaltBytes = 32;
constexpr std::size_t kDigestIterationsOffset = 164;
constexpr std::size_t kUuidOffset = 168;
constexpr std::size_t kUuidBytes = 40;
constexpr std::size_t kKeyslotsOffset = 208;
constexpr std::size_t kKeyslotBytes = 48;
// Within a keyslot.
constexpr std::size_t kSlotIterationsOffset = 4;
constexpr std::size_t kSlotSaltOffset = 8;
constexpr std::size_t kSlotMaterialOffset = 40;
constexpr std::size_t kSlotStripesOffset = 44;

constexpr std::uint32_t kSlotActive = 0x00ac71f3;
constexpr std::uint32_t kSlotInactive = 0x0000dead;
constexpr std::uint32_t kStripes = 4000;
constexpr std::uint64_t kSectorBytes = 512;
static_assert(kKeyslotsOffset + kLuks1KeyslotCount * kKeyslotBytes == kLuks1HeaderBytes);

std::uint64_t round_up_to_sector(std::uint64_t size_bytes) {
  return (size_bytes + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
}

// Bytes of key material in one keyslot, in whole sectors (LUKS1 §2.4).
std::uint64_t material_bytes(std::uint32_t key_size_bytes) {
  return round_up_to_sector(std::uint64_t{key_size_bytes} * kStripes);
}

// --- decoding ------------------------------------------------------------------------------------

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
  if (slot.state != kSlotActive && slot.state != kSlotInactive) {
    fail(fmt::format("state 0x{:08x} is neither active nor inactive", slot.state));
  }
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
  if (!is_uuid(head.uuid)) {
    damaged(what, fmt::format("LUKS1 UUID '{}' is not a UUID", printable(head.uuid)));
  }
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
    }
  }
}

// --- encoding ------------------------------------------------------------------------------------

void require(bool holds, std::string_view problem) {
  if (!holds) {
    throw Error(Code::kInvalidArgument, fmt::format("LUKS1 cannot hold {}", problem));
  }
}

const Segment& check_segment(const Header& header) {
  require(header.segments.size() == 1 && header.segments.contains(0),
          "segments other than exactly one, numbered 0");
  const Segment& segment = header.segments.at(0);
  require(segment.type == Segment::Type::kCrypt && segment.type_name == "crypt",
          fmt::format("a segment of type '{}'", printable(segment.type_name)));
  require(!segment.size_bytes.has_value(), "a segment of fixed size");
  require(segment.iv_tweak == 0, "an IV tweak");
  require(segment.sector_size_bytes == kSectorBytes,
          fmt::format("sectors of {} bytes", segment.sector_size_bytes));
  require(!segment.has_integrity, "integrity");
  require(segment.flags.empty(), "segment flags");
  require(segment.unknown.empty(), "unknown members of a segment");
  require(
      segment.offset_bytes % kSectorBytes == 0 && segment.offset_bytes / kSectorBytes <= UINT32_MAX,
      fmt::format("a payload at byte {}", segment.offset_bytes));
  return segment;
}

const Digest& check_digest(const Header& header) {
  require(header.digests.size() == 1 && header.digests.contains(0),
          "digests other than exactly one, numbered 0");
  const Digest& digest = header.digests.at(0);
  require(digest.type == Digest::Type::kPbkdf2 && digest.type_name == "pbkdf2",
          fmt::format("a digest of type '{}'", printable(digest.type_name)));
  require(digest.segments == std::set<int>{0}, "unbound keyslots");
  std::set<int> active;
  for (const auto& [number, keyslot] : header.keyslots) active.insert(number);
  require(digest.keyslots == active, "a keyslot without digest");
  require(digest.digest.size() == kDigestBytes,
          fmt::format("a digest of {} bytes", digest.digest.size()));
  require(digest.salt.size() == kSaltBytes,
          fmt::format("a digest salt of {} bytes", digest.salt.size()));
  require(digest.iterations != 0, "a digest of 0 iterations");
  require(digest.unknown.empty(), "unknown members of a digest");
  return digest;
}

void check_keyslot(const Header& header, int number, const Keyslot& keyslot,
                   const std::string& encryption, const std::string& hash) {
  require(number >= 0 && number < kLuks1KeyslotCount, fmt::format("a keyslot {}", number));
  const auto check = [&](bool holds, std::string_view problem) {
    require(holds, fmt::format("{} in keyslot {}", problem, number));
  };
  const Luks1Slot& stored = header.luks1_slots.at(static_cast<std::size_t>(number));
  check(keyslot.type == Keyslot::Type::kLuks2 && keyslot.type_name == "luks2",
        fmt::format("type '{}'", printable(keyslot.type_name)));
  check(keyslot.key_size_bytes == header.luks1_key_size_bytes,
        fmt::format("a key of {} bytes", keyslot.key_size_bytes));
  const AfSplitter af{.type = "luks1", .stripes = stored.stripes, .hash = hash, .unknown = {}};
  check(keyslot.af == af, "another AF splitter");
  const KeyslotArea area{.type = "raw",
                         .offset_bytes = stored.material_offset_sectors * kSectorBytes,
                         .size_bytes = material_bytes(header.luks1_key_size_bytes),
                         .encryption = encryption,
                         .key_size_bytes = header.luks1_key_size_bytes,
                         .unknown = {}};
  check(keyslot.area == area, "another area or encryption");
  check(keyslot.kdf.type == Kdf::Type::kPbkdf2 && keyslot.kdf.type_name == "pbkdf2",
        fmt::format("KDF '{}'", printable(keyslot.kdf.type_name)));
  check(keyslot.kdf.hash == hash, fmt::format("hash '{}'", printable(keyslot.kdf.hash)));
  check(keyslot.kdf.salt.size() == kSaltBytes,
        fmt::format("a salt of {} bytes", keyslot.kdf.salt.size()));
  check(keyslot.kdf.memory_kib == 0 && keyslot.kdf.parallel == 0, "memory costs");
  check(keyslot.kdf.unknown.empty() && keyslot.unknown.empty(), "unknown members");
  check(keyslot.priority == Priority::kNormal, "a priority");
  check(stored.inactive_iterations == 0 && all_zero(std::as_bytes(std::span(stored.inactive_salt))),
        "inactive values");
}

void check_luks1_only(const Header& header) {
  require(header.version == Version::kLuks1, "a LUKS2 header");
  require(header.label.empty(), "a label");
  require(header.subsystem.empty(), "a subsystem");
  require(header.tokens.empty(), "tokens");
  require(header.config.flags.empty(), "flags");
  require(header.config.requirements.empty(), "requirements");
  require(header.config == Config{}, "sizes of a LUKS2 configuration");
  require(header.metadata_size_bytes == 0 && header.sequence_id == 0, "a metadata size");
  require(header.checksum_algorithm == Header{}.checksum_algorithm, "a checksum");
  require(header.unknown.empty(), "unknown members");
}

void write_text(Bytes& out, std::size_t offset, std::size_t size_bytes, std::string_view text,
                std::string_view field) {
  require(text.size() < size_bytes && text.find('\0') == std::string_view::npos,
          fmt::format("the {} '{}'", field, printable(text)));
  std::copy_n(as_byte_view(text).begin(), text.size(),
              out.begin() + static_cast<std::ptrdiff_t>(offset));
}

void write_bytes(Bytes& out, std::size_t offset, ByteView bytes) {
  std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<std::ptrdiff_t>(offset));
}

void write_slot(Bytes& out, const Header& header, std::size_t index) {
  const std::size_t at = kKeyslotsOffset + index * kKeyslotBytes;
  const Luks1Slot& stored = header.luks1_slots.at(index);
  const auto found = header.keyslots.find(static_cast<int>(index));
  const bool active = found != header.keyslots.end();
  store_be(&out[at], active ? kSlotActive : kSlotInactive);
  store_be(&out[at + kSlotIterationsOffset],
           active ? found->second.kdf.iterations : stored.inactive_iterations);
  write_bytes(out, at + kSlotSaltOffset,
              active ? ByteView(found->second.kdf.salt) : ByteView(stored.inactive_salt));
  store_be(&out[at + kSlotMaterialOffset], stored.material_offset_sectors);
  store_be(&out[at + kSlotStripesOffset], stored.stripes);
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

Bytes encode_luks1(const Header& header) {
  check_luks1_only(header);
  const Segment& segment = check_segment(header);
  const Digest& digest = check_digest(header);
  for (const auto& [number, keyslot] : header.keyslots) {
    check_keyslot(header, number, keyslot, segment.encryption, digest.hash);
  }
  Bytes out(kLuks1HeaderBytes);
  write_bytes(out, 0, std::as_bytes(std::span(kMagic)));
  store_be(&out[kVersionOffset], std::uint16_t{1});
  const std::string& encryption = segment.encryption;
  const std::size_t dash = encryption.find('-');
  const bool has_mode = dash != std::string::npos;
  write_text(out, kCipherNameOffset, kNameBytes, encryption.substr(0, dash), "cipher name");
  write_text(out, kCipherModeOffset, kNameBytes, has_mode ? encryption.substr(dash + 1) : "",
             "cipher mode");
  write_text(out, kHashSpecOffset, kNameBytes, digest.hash, "hash");
  store_be(&out[kPayloadOffsetOffset],
           static_cast<std::uint32_t>(segment.offset_bytes / kSectorBytes));
  store_be(&out[kKeyBytesOffset], header.luks1_key_size_bytes);
  write_bytes(out, kDigestOffset, digest.digest);
  write_bytes(out, kDigestSaltOffset, digest.salt);
  store_be(&out[kDigestIterationsOffset], digest.iterations);
  write_text(out, kUuidOffset, kUuidBytes, header.uuid, "UUID");
  for (std::size_t i = 0; i < kLuks1KeyslotCount; ++i) write_slot(out, header, i);

  // What is left: rules that both directions share, and a cipher "aes-" (a mode that is empty).
  try {
    require(decode_luks1(out, "header") == header, "values that it has no field for");
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged) throw;
    throw Error(Code::kInvalidArgument, error.message());
  }
  return out;
}

}  // namespace lukskeep::luks
