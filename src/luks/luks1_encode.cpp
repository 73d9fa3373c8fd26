#include <algorithm>
#include <cstdint>
#include <set>
#include <string>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "luks/luks1_codec.h"
#include "luks/luks1_fields.h"

namespace lukskeep::luks {
namespace {

using namespace luks1;

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
  check(stored.inactive_state == kSlotInactive && stored.inactive_iterations == 0 &&
            all_zero(std::as_bytes(std::span(stored.inactive_salt))),
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
  store_be(&out[at], active ? kSlotActive : stored.inactive_state);
  store_be(&out[at + kSlotIterationsOffset],
           active ? found->second.kdf.iterations : stored.inactive_iterations);
  write_bytes(out, at + kSlotSaltOffset,
              active ? ByteView(found->second.kdf.salt) : ByteView(stored.inactive_salt));
  store_be(&out[at + kSlotMaterialOffset], stored.material_offset_sectors);
  store_be(&out[at + kSlotStripesOffset], stored.stripes);
}

}  // namespace

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
