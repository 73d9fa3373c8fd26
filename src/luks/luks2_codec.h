// One metadata copy of LUKS2 (LUKS2 §2, §3) to and from luks::Header. Pure: no I/O, no clock, no
// keys; hashing for the checksum is the only computation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include <lukskeep/header.h>

#include "base/bytes.h"

namespace lukskeep::luks {

inline constexpr std::size_t kLuks2BinaryHeaderBytes = 4096;
// Legal sizes of a metadata copy, and so the offsets at which a secondary can start.
inline constexpr std::array<std::uint64_t, 9> kLuks2MetadataSizes = {
    0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000};

enum class Luks2Copy : std::uint8_t { kPrimary, kSecondary };

// Random bytes in each copy.
inline constexpr std::size_t kLuks2SaltBytes = 64;

// What the binary header says before anything else is believed.
struct Luks2Prefix {
  Luks2Copy copy = Luks2Copy::kPrimary;
  std::uint64_t metadata_size_bytes = 0;  // one of kLuks2MetadataSizes
  std::uint64_t sequence_id = 0;
  std::uint64_t offset_bytes = 0;  // hdr_offset, checked against `expected_offset_bytes`
};

// Looks at the first kLuks2BinaryHeaderBytes of a copy. Absent if the magic is not that of LUKS2 at
// this place. Throws kDamaged/kUnsupported if it is, but size, offset or version are impossible.
std::optional<Luks2Prefix> decode_luks2_prefix(ByteView bytes, std::uint64_t expected_offset_bytes,
                                               std::string_view what);

// Decodes one whole copy (exactly metadata_size_bytes): checksum, binary header, JSON and all of
// its rules (LUKS2 §3.2-§3.6; see docs/format/luks2.md for each). Unknown keyslot, segment, digest
// and token types, unknown requirements and members are kept. Throws kDamaged, message starting
// with `what` and naming object and rule.
Header decode_luks2(ByteView copy, std::uint64_t expected_offset_bytes, std::string_view what);

// One whole copy of header.metadata_size_bytes. `salt` is the 64 random bytes of this copy (the two
// copies have different ones). Throws kInvalidArgument if validate_luks2 would, and kNoSpace if the
// JSON does not fit, saying by how much.
Bytes encode_luks2(const Header& header, Luks2Copy copy, ByteView salt);

// The rules of decode_luks2 that concern the model; every writer calls it before and after.
// Throws kDamaged as decode_luks2.
void validate_luks2(const Header& header, std::string_view what);

// The JSON area as it would be written, without padding: for `info --json` and exports.
std::string luks2_json(const Header& header);

// Requirements that this program does not know or cannot honour (then the volume is readable as a
// header, never activated).
std::set<std::string> unsupported_requirements(const Header& header);

// Parses a token as cryptsetup's `token import` does: an object with `type` and `keyslots`.
// Throws kDamaged starting with `what`.
Token parse_token(std::string_view json, std::string_view what);
// Replaces the `keyslots` member of token.json and nothing else.
void set_token_keyslots(Token& token, std::set<int> keyslots);

}  // namespace lukskeep::luks
