// The header of a LUKS volume as values: one model for both versions. No I/O, no secrets.
//
// Sources: "LUKS1 On-Disk Format Specification" 1.2.3 and "LUKS2 On-Disk Format Specification"
// 1.1.4, named "LUKS1 §n" and "LUKS2 §n" below. Where cryptsetup's code differs from the text, the
// code is followed; docs/format/luks2.md lists the places.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <lukskeep/export.h>

namespace lukskeep::luks {

enum class Version : std::uint8_t { kLuks1 = 1, kLuks2 = 2 };

// JSON members that this program does not know, kept as they came: name -> JSON text of the value.
// Always empty for LUKS1.
using UnknownMembers = std::map<std::string, std::string>;

// How a passphrase becomes the key of a keyslot area (LUKS1 §2.3; LUKS2 §3.2.5).
struct Kdf {
  enum class Type : std::uint8_t { kPbkdf2, kArgon2i, kArgon2id, kUnknown };
  Type type = Type::kPbkdf2;
  std::string type_name;         // as on disk; "pbkdf2", "argon2i", "argon2id" or unknown
  std::string hash;              // pbkdf2 only
  std::uint32_t iterations = 0;  // pbkdf2: iterations; argon2: time cost
  std::uint32_t memory_kib = 0;  // argon2 only
  std::uint32_t parallel = 0;    // argon2 only: lanes ("cpus")
  std::vector<std::byte> salt;
  UnknownMembers unknown;

  bool operator==(const Kdf&) const = default;
};

// Where a keyslot keeps its material, relative to the start of the header device.
struct KeyslotArea {
  std::string type = "raw";  // LUKS2; "raw", or of a re-encryption slot "none", "journal"…
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
  // Of kLuks2 keyslots only; other types have members of these names, if at all, in `unknown`.
  std::string encryption;            // e.g. "aes-xts-plain64"
  std::uint32_t key_size_bytes = 0;  // of the key that encrypts the area
  UnknownMembers unknown;

  bool operator==(const KeyslotArea&) const = default;
};

// Anti-forensic splitter (LUKS1 §2.4; LUKS2 §3.2.4). The only known type is "luks1".
struct AfSplitter {
  std::string type = "luks1";
  std::uint32_t stripes = 4000;
  std::string hash;
  UnknownMembers unknown;

  bool operator==(const AfSplitter&) const = default;
};

enum class Priority : std::uint8_t { kIgnore = 0, kNormal = 1, kPrefer = 2 };

struct Keyslot {
  // kLuks2 covers the keyslots of both versions; kReencrypt and kUnknown never open a volume.
  enum class Type : std::uint8_t { kLuks2, kReencrypt, kUnknown };
  Type type = Type::kLuks2;
  std::string type_name = "luks2";
  std::uint32_t key_size_bytes = 0;  // of the volume key (or unbound key) it holds
  AfSplitter af;
  KeyslotArea area;
  Kdf kdf;
  Priority priority = Priority::kNormal;
  UnknownMembers unknown;  // for kReencrypt and kUnknown: every member but type, key_size, area

  bool operator==(const Keyslot&) const = default;
};

struct Segment {
  enum class Type : std::uint8_t { kCrypt, kLinear, kUnknown };
  Type type = Type::kCrypt;
  std::string type_name = "crypt";
  std::uint64_t offset_bytes = 0;           // on the payload device
  std::optional<std::uint64_t> size_bytes;  // absent: "dynamic", to the end of the device
  // Of kCrypt only; other types have members of these names, if at all, in `unknown`.
  std::uint64_t iv_tweak = 0;  // added to the sector number, in 512-byte sectors
  std::string encryption;      // e.g. "aes-xts-plain64"
  std::uint32_t sector_size_bytes = 512;
  bool has_integrity = false;  // the member itself is in `unknown`
  std::set<std::string> flags;
  UnknownMembers unknown;

  bool operator==(const Segment&) const = default;
};

// Proves that a key is the right one (LUKS1 mk-digest; LUKS2 §3.4).
struct Digest {
  enum class Type : std::uint8_t { kPbkdf2, kUnknown };
  Type type = Type::kPbkdf2;
  std::string type_name = "pbkdf2";
  std::set<int> keyslots;
  std::set<int> segments;  // none: the keys of its keyslots are unbound
  std::string hash;
  std::uint32_t iterations = 0;
  std::vector<std::byte> salt;
  std::vector<std::byte> digest;
  UnknownMembers unknown;

  bool operator==(const Digest&) const = default;
};

struct Token {
  std::string type;
  std::set<int> keyslots;
  // The whole object as JSON text, byte for byte as it came, `type` and `keyslots` included.
  // Writers that change `keyslots` call luks::set_token_keyslots, which rewrites that member only.
  std::string json;

  bool operator==(const Token&) const = default;
};

// LUKS2 §3.5.
struct Config {
  std::uint64_t json_size_bytes = 0;  // metadata_size_bytes - 4096
  std::uint64_t keyslots_size_bytes = 0;
  std::set<std::string> flags;          // persistent activation flags, e.g. "allow-discards"
  std::set<std::string> requirements;   // "mandatory"; an unknown one forbids activation
  UnknownMembers requirements_unknown;  // other members of the object "requirements"
  UnknownMembers unknown;

  bool operator==(const Config&) const = default;
};

// What LUKS1 stores for all eight keyslots, active or not.
struct Luks1Slot {
  std::uint32_t material_offset_sectors = 0;
  std::uint32_t stripes = 4000;
  // Stored, though without meaning, in inactive slots.
  std::uint32_t inactive_iterations = 0;
  std::array<std::byte, 32> inactive_salt{};
  // Anything but the mark of an active keyslot: others than "dead" are damage that opens nothing.
  std::uint32_t inactive_state = 0x0000dead;

  bool operator==(const Luks1Slot&) const = default;
};

inline constexpr int kLuks1KeyslotCount = 8;
inline constexpr int kLuks2KeyslotCountMax = 32;
inline constexpr int kLuks2TokenCountMax = 32;
inline constexpr int kLuks2SegmentCountMax = 32;
inline constexpr int kLuks2DigestCountMax = 8;

struct Header {
  Version version = Version::kLuks2;
  std::string uuid;       // as on disk: printable ASCII, not necessarily a UUID
  std::string label;      // LUKS2 only, at most 47 bytes
  std::string subsystem;  // LUKS2 only, at most 47 bytes

  std::map<int, Keyslot> keyslots;
  std::map<int, Segment> segments;
  std::map<int, Digest> digests;
  std::map<int, Token> tokens;
  Config config;

  // LUKS2: size of one metadata copy (binary header and JSON), one of the nine legal ones, and
  // the sequence id of this state. LUKS1: 0.
  std::uint64_t metadata_size_bytes = 0;
  std::uint64_t sequence_id = 0;
  // LUKS2: hash of the checksum over a copy, as spelt on disk. LUKS1 has none and leaves it so.
  std::string checksum_algorithm = "sha256";
  UnknownMembers unknown;  // of the JSON's top level

  // LUKS1 only: the size of the volume key ("key-bytes"; known even when no keyslot is active) and
  // the fields of all eight slots.
  std::uint32_t luks1_key_size_bytes = 0;
  std::array<Luks1Slot, kLuks1KeyslotCount> luks1_slots{};

  bool operator==(const Header&) const = default;
};

}  // namespace lukskeep::luks
