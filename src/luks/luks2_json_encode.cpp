#include <string>

#include <lukskeep/header.h>

#include "base/json.h"
#include "luks/luks2_codec.h"
#include "luks/luks2_json_object.h"

namespace lukskeep::luks {
namespace {

std::string encode_kdf(const Kdf& kdf) {
  JsonWriter out;
  out.add_text("type", kdf.type_name);
  if (kdf.type == Kdf::Type::kPbkdf2) {
    out.add_text("hash", kdf.hash);
    out.add_u32("iterations", kdf.iterations);
  } else if (kdf.type != Kdf::Type::kUnknown) {
    out.add_u32("time", kdf.iterations);
    out.add_u32("memory", kdf.memory_kib);
    out.add_u32("cpus", kdf.parallel);
  }
  if (kdf.type != Kdf::Type::kUnknown) out.add_base64("salt", kdf.salt);
  out.add_all(kdf.unknown);
  return out.finish();
}

std::string encode_af(const AfSplitter& af) {
  JsonWriter out;
  out.add_text("type", af.type);
  out.add_u32("stripes", af.stripes);
  out.add_text("hash", af.hash);
  out.add_all(af.unknown);
  return out.finish();
}

std::string encode_area(const KeyslotArea& area, Keyslot::Type keyslot_type) {
  JsonWriter out;
  out.add_text("type", area.type);
  out.add_u64("offset", area.offset_bytes);
  out.add_u64("size", area.size_bytes);
  if (keyslot_type == Keyslot::Type::kLuks2) {
    out.add_text("encryption", area.encryption);
    out.add_u32("key_size", area.key_size_bytes);
  }
  out.add_all(area.unknown);
  return out.finish();
}

std::string encode_keyslot(const Keyslot& keyslot) {
  JsonWriter out;
  out.add_text("type", keyslot.type_name);
  out.add_u32("key_size", keyslot.key_size_bytes);
  if (keyslot.type == Keyslot::Type::kLuks2) out.add_json("af", encode_af(keyslot.af));
  out.add_json("area", encode_area(keyslot.area, keyslot.type));
  if (keyslot.type == Keyslot::Type::kLuks2) {
    out.add_json("kdf", encode_kdf(keyslot.kdf));
    if (keyslot.priority != Priority::kNormal) {
      out.add_u32("priority", static_cast<std::uint32_t>(keyslot.priority));
    }
  }
  out.add_all(keyslot.unknown);
  return out.finish();
}

std::string encode_segment(const Segment& segment) {
  JsonWriter out;
  out.add_text("type", segment.type_name);
  out.add_u64("offset", segment.offset_bytes);
  if (segment.size_bytes.has_value()) {
    out.add_u64("size", *segment.size_bytes);
  } else {
    out.add_text("size", "dynamic");
  }
  if (segment.type == Segment::Type::kCrypt) {
    out.add_u64("iv_tweak", segment.iv_tweak);
    out.add_text("encryption", segment.encryption);
    out.add_u32("sector_size", segment.sector_size_bytes);
  }
  if (!segment.flags.empty()) out.add_texts("flags", segment.flags);
  out.add_all(segment.unknown);
  return out.finish();
}

std::string encode_digest(const Digest& digest) {
  JsonWriter out;
  out.add_text("type", digest.type_name);
  out.add_ids("keyslots", digest.keyslots);
  out.add_ids("segments", digest.segments);
  if (digest.type == Digest::Type::kPbkdf2) {
    out.add_text("hash", digest.hash);
    out.add_u32("iterations", digest.iterations);
    out.add_base64("salt", digest.salt);
    out.add_base64("digest", digest.digest);
  }
  out.add_all(digest.unknown);
  return out.finish();
}

std::string encode_config(const Config& config) {
  JsonWriter out;
  out.add_u64("json_size", config.json_size_bytes);
  out.add_u64("keyslots_size", config.keyslots_size_bytes);
  if (!config.flags.empty()) out.add_texts("flags", config.flags);
  if (!config.requirements.empty() || !config.requirements_unknown.empty()) {
    JsonWriter requirements;
    if (!config.requirements.empty()) requirements.add_texts("mandatory", config.requirements);
    requirements.add_all(config.requirements_unknown);
    out.add_json("requirements", requirements.finish());
  }
  out.add_all(config.unknown);
  return out.finish();
}

// {"0":…,"3":…}
template <typename Objects, typename Encode>
std::string encode_numbered(const Objects& objects, const Encode& encode) {
  JsonWriter out;
  for (const auto& [id, object] : objects) out.add_json(std::to_string(id), encode(object));
  return out.finish();
}

}  // namespace

std::string luks2_json(const Header& header) {
  JsonWriter out;
  out.add_json("keyslots", encode_numbered(header.keyslots, encode_keyslot));
  const auto token_json = [](const Token& token) { return token.json; };
  out.add_json("tokens", encode_numbered(header.tokens, token_json));
  out.add_json("segments", encode_numbered(header.segments, encode_segment));
  out.add_json("digests", encode_numbered(header.digests, encode_digest));
  out.add_json("config", encode_config(header.config));
  out.add_all(header.unknown);
  return out.finish();
}

void set_token_keyslots(Token& token, std::set<int> keyslots) {
  const std::string_view old = json_member_texts(token.json).at("keyslots");
  token.json.replace(static_cast<std::size_t>(old.data() - token.json.data()), old.size(),
                     spell_ids(keyslots));
  token.keyslots = std::move(keyslots);
}

}  // namespace lukskeep::luks
