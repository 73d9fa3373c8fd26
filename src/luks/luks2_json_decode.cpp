#include <array>
#include <cstddef>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/limits.h"
#include "luks/luks2_codec.h"
#include "luks/luks2_json.h"
#include "luks/luks2_json_object.h"

namespace lukskeep::luks {
namespace {

// Values within values, as json-c counts, which cryptsetup reads with: it gives up beyond.
constexpr std::size_t kDepthMax = 32;

constexpr U32Range kAtLeastOne{.min = 1};
constexpr U32Range kKeySize{.min = 1, .max = limits::kVolumeKeyBytesMax};
constexpr std::size_t kDigestBytesMin = 16;
constexpr std::size_t kDigestBytesMax = 64;

// What readers in C would understand differently: names that seem to end early, and objects that
// they refuse as too deep. The recursion is bounded by parse_json.
void check_tree(const Json& value, std::string_view what, std::size_t depth) {
  if (depth > kDepthMax) {
    throw Error(Code::kDamaged, fmt::format("{}: JSON is nested deeper than {}", what, kDepthMax));
  }
  if (value.is_array()) {
    for (const Json& element : value) check_tree(element, what, depth + 1);
    return;
  }
  if (!value.is_object()) return;
  for (const auto& [name, member] : value.items()) {
    if (name.find('\0') != std::string::npos) {
      throw Error(Code::kDamaged, fmt::format("{}: JSON member name '{}' holds a zero byte", what,
                                              printable(name)));
    }
    check_tree(member, what, depth + 1);
  }
}

// LUKS2 §3.2.5, "kdf".
Kdf decode_kdf(JsonReader reader) {
  Kdf kdf;
  kdf.type_name = reader.text("type");
  if (kdf.type_name == "pbkdf2") {
    kdf.type = Kdf::Type::kPbkdf2;
    kdf.hash = reader.text("hash");
    kdf.iterations = reader.u32("iterations", kAtLeastOne);
  } else if (kdf.type_name == "argon2i" || kdf.type_name == "argon2id") {
    kdf.type = kdf.type_name == "argon2i" ? Kdf::Type::kArgon2i : Kdf::Type::kArgon2id;
    kdf.iterations = reader.u32("time", kAtLeastOne);
    kdf.memory_kib = reader.u32("memory", kAtLeastOne);
    kdf.parallel = reader.u32("cpus", kAtLeastOne);
  } else {
    kdf.type = Kdf::Type::kUnknown;
  }
  if (kdf.type != Kdf::Type::kUnknown) kdf.salt = reader.base64("salt", 1, limits::kSaltBytesMax);
  kdf.unknown = reader.rest();
  return kdf;
}

// LUKS2 §3.2.4, "af".
AfSplitter decode_af(JsonReader reader) {
  AfSplitter af;
  af.type = reader.text("type");
  if (af.type != "luks1") reader.fail("type", "\"luks1\"");
  af.stripes = reader.u32("stripes", {.min = limits::kStripesMax, .max = limits::kStripesMax});
  af.hash = reader.text("hash");
  af.unknown = reader.rest();
  return af;
}

// LUKS2 §3.2.3, "area"; type, offset and size are all that is asked of areas of other keyslots.
KeyslotArea decode_area(JsonReader reader, Keyslot::Type keyslot_type) {
  KeyslotArea area;
  area.type = reader.text("type");
  area.offset_bytes = reader.u64("offset");
  area.size_bytes = reader.u64("size");
  if (keyslot_type == Keyslot::Type::kLuks2) {
    if (area.type != "raw") reader.fail("type", "\"raw\"");
    area.encryption = reader.text("encryption");
    area.key_size_bytes = reader.u32("key_size", kKeySize);
  }
  area.unknown = reader.rest();
  return area;
}

void check_one_of(JsonReader& reader, const std::string& name,
                  const std::set<std::string>& choices) {
  if (choices.contains(reader.text(name))) return;
  std::string list;
  for (const std::string& choice : choices) list += (list.empty() ? "" : ", ") + choice;
  reader.fail(name, "one of " + list);
}

// LUKS2 §3.2.2: members that the model keeps as JSON text. The readers are copies: what is checked
// here stays among the rest.
void check_reencrypt_keyslot(JsonReader reader) {
  reader.u32("key_size", kAtLeastOne);
  check_one_of(reader, "mode", {"reencrypt", "encrypt", "decrypt"});
  check_one_of(reader, "direction", {"forward", "backward"});
  JsonReader area = reader.object("area");
  const std::string type = area.text("type");
  if (type == "checksum" || type == "datashift-checksum") {
    area.text("hash");
    const std::uint32_t sector_size = area.u32("sector_size", {.min = 512});
    if ((sector_size & (sector_size - 1)) != 0) area.fail("sector_size", "a power of two");
  }
  if (type == "datashift" || type == "datashift-checksum" || type == "datashift-journal") {
    const std::uint64_t shift = area.u64("shift_size");
    if (shift == 0 || shift % 512 != 0) area.fail("shift_size", "a positive multiple of 512");
  }
}

Keyslot decode_keyslot(JsonReader reader) {
  Keyslot keyslot;
  keyslot.type_name = reader.text("type");
  if (keyslot.type_name == "luks2") {
    keyslot.key_size_bytes = reader.u32("key_size", kKeySize);
    keyslot.af = decode_af(reader.object("af"));
    keyslot.area = decode_area(reader.object("area"), keyslot.type);
    keyslot.kdf = decode_kdf(reader.object("kdf"));
    if (reader.has("priority")) {
      keyslot.priority = static_cast<Priority>(reader.u32("priority", {.min = 0, .max = 2}));
    }
  } else {
    const bool reencrypt = keyslot.type_name == "reencrypt";
    keyslot.type = reencrypt ? Keyslot::Type::kReencrypt : Keyslot::Type::kUnknown;
    if (reencrypt) check_reencrypt_keyslot(reader);
    keyslot.key_size_bytes =
        reencrypt ? reader.u32("key_size", {.min = 1, .max = 1}) : reader.u32("key_size");
    keyslot.area = decode_area(reader.object("area"), keyslot.type);
  }
  keyslot.unknown = reader.rest();
  return keyslot;
}

// LUKS2 §3.3.2, "integrity". The reader is a copy, as above.
void check_integrity(JsonReader reader) {
  JsonReader integrity = reader.object("integrity");
  for (const std::string name : {"type", "journal_encryption", "journal_integrity"}) {
    integrity.text(name);
  }
}

void decode_crypt_segment(JsonReader& reader, Segment& segment) {
  segment.type = Segment::Type::kCrypt;
  segment.iv_tweak = reader.u64("iv_tweak");
  segment.encryption = reader.text("encryption");
  segment.sector_size_bytes = reader.u32("sector_size");
  // cryptsetup asks for no more; a size that no cipher works with is readable, only not usable.
  const std::uint32_t sector = segment.sector_size_bytes;
  if (sector == 0 || sector % 512 != 0) {
    reader.fail("sector_size", "a positive multiple of 512");
  }
  segment.has_integrity = reader.has("integrity");
  if (segment.has_integrity) check_integrity(reader);
  if (segment.offset_bytes % sector != 0) {
    reader.fail("offset", "a multiple of the sector size");
  }
  if (segment.size_bytes.value_or(0) % sector != 0) {
    reader.fail("size", "a multiple of the sector size");
  }
  if (segment.iv_tweak % (sector / 512) != 0) {
    reader.fail("iv_tweak", "a multiple of the sector size");
  }
}

// LUKS2 §3.3.
Segment decode_segment(JsonReader reader) {
  Segment segment;
  segment.type_name = reader.text("type");
  segment.offset_bytes = reader.u64("offset");
  if (segment.offset_bytes % 512 != 0) reader.fail("offset", "a multiple of 512");
  if (reader.text("size") != "dynamic") {
    segment.size_bytes = reader.u64("size");
    if (*segment.size_bytes == 0 || *segment.size_bytes % 512 != 0) {
      reader.fail("size", "a positive multiple of 512");
    }
  }
  if (reader.has("flags")) segment.flags = reader.texts("flags");
  if (segment.type_name == "crypt") {
    decode_crypt_segment(reader, segment);
  } else {
    const bool linear = segment.type_name == "linear";
    segment.type = linear ? Segment::Type::kLinear : Segment::Type::kUnknown;
  }
  segment.unknown = reader.rest();
  return segment;
}

// LUKS2 §3.4.
Digest decode_digest(JsonReader reader) {
  Digest digest;
  digest.type_name = reader.text("type");
  digest.keyslots = reader.ids("keyslots", kLuks2KeyslotCountMax);
  digest.segments = reader.ids("segments", kLuks2SegmentCountMax);
  if (digest.type_name == "pbkdf2") {
    digest.hash = reader.text("hash");
    digest.iterations = reader.u32("iterations", kAtLeastOne);
    digest.salt = reader.base64("salt", 1, limits::kSaltBytesMax);
    digest.digest = reader.base64("digest", kDigestBytesMin, kDigestBytesMax);
  } else {
    digest.type = Digest::Type::kUnknown;
  }
  digest.unknown = reader.rest();
  return digest;
}

// LUKS2 §3.6: nothing else is asked of a token.
Token decode_token(JsonReader reader) {
  Token token;
  token.type = reader.text("type");
  token.keyslots = reader.ids("keyslots", kLuks2KeyslotCountMax);
  token.json = reader.spelling();
  return token;
}

// An object in what cryptsetup writes, an array in the text of the specification.
void decode_requirements(JsonReader& config_reader, Config& config) {
  if (config_reader.is_array("requirements")) {
    config.requirements = config_reader.texts("requirements");
    return;
  }
  JsonReader reader = config_reader.object("requirements");
  if (reader.has("mandatory")) config.requirements = reader.texts("mandatory");
  config.requirements_unknown = reader.rest();
}

// LUKS2 §3.5.
Config decode_config(JsonReader reader) {
  Config config;
  config.json_size_bytes = reader.u64("json_size");
  config.keyslots_size_bytes = reader.u64("keyslots_size");
  if (reader.has("flags")) config.flags = reader.texts("flags");
  if (reader.has("requirements")) decode_requirements(reader, config);
  config.unknown = reader.rest();
  return config;
}

// A token that cryptsetup would take from `token import`: it keeps the prefix "luks2-" for those
// that it knows the members of.
void check_importable(JsonReader reader, const Token& token) {
  if (!token.type.starts_with("luks2-")) return;
  if (token.type != "luks2-keyring") reader.fail("type", "a type outside of the prefix 'luks2-'");
  reader.text("key_description");
}

}  // namespace

void decode_luks2_json(std::string_view text, std::string_view what, Header& header) {
  const Json json = parse_json(text, what);
  check_tree(json, what, 1);
  JsonReader reader(json, text, std::string(what));
  for (auto& [id, object] : reader.numbered("keyslots", "keyslot", kLuks2KeyslotCountMax)) {
    header.keyslots.emplace(id, decode_keyslot(std::move(object)));
  }
  for (auto& [id, object] : reader.numbered("tokens", "token", kLuks2TokenCountMax)) {
    header.tokens.emplace(id, decode_token(std::move(object)));
  }
  for (auto& [id, object] : reader.numbered("segments", "segment", kLuks2SegmentCountMax)) {
    header.segments.emplace(id, decode_segment(std::move(object)));
  }
  for (auto& [id, object] : reader.numbered("digests", "digest", kLuks2DigestCountMax)) {
    header.digests.emplace(id, decode_digest(std::move(object)));
  }
  header.config = decode_config(reader.object("config"));
  header.unknown = reader.rest();
}

Token parse_token(std::string_view json, std::string_view what) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!json.empty() && is_space(json.front())) json.remove_prefix(1);
  while (!json.empty() && is_space(json.back())) json.remove_suffix(1);
  const Json value = parse_json(json, what);
  check_tree(value, what, 3);  // where it will stand in the metadata
  const JsonReader reader(value, json, std::string(what));
  Token token = decode_token(reader);
  check_importable(reader, token);
  return token;
}

}  // namespace lukskeep::luks
