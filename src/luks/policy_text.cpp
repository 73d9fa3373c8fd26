// A Policy as JSON, and as the text of a policy file.
#include <fmt/format.h>

#include "base/bytes.h"
#include "luks/policy.h"

namespace lukskeep::luks {
namespace {

constexpr Bounds kAny;

template <typename Set>
void put(OrderedJson& json, const char* name, const std::optional<Set>& set) {
  if (set) json[name] = *set;
}

void put(OrderedJson& json, const char* name, const Bounds& bounds) {
  if (bounds == kAny) return;
  OrderedJson& limits = json[name] = OrderedJson::object();
  if (bounds.min != kAny.min) limits["min"] = bounds.min;
  if (bounds.max != kAny.max) limits["max"] = bounds.max;
}

void put(OrderedJson& json, const char* name, const OrderedJson& section) {
  if (!section.empty()) json[name] = section;
}

OrderedJson to_json(const std::map<std::string, KdfRule>& kdfs) {
  OrderedJson json = OrderedJson::object();
  for (const auto& [type, rule] : kdfs) {
    OrderedJson& one = json[type] = OrderedJson::object();
    put(one, "hashes", rule.hashes);
    put(one, type == "pbkdf2" ? "iterations" : "time", rule.iterations);
    put(one, "memory_kib", rule.memory_kib);
    put(one, "parallel", rule.parallel);
    put(one, "time_memory_kib", rule.time_memory_kib);
  }
  return json;
}

// The next character of `text`, which is UTF-8, and takes it away.
char32_t take_character(std::string_view& text) {
  const auto first = static_cast<unsigned char>(text.front());
  const std::size_t size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  char32_t character = size == 1 ? first : first & (0xffU >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    character = (character << 6) | (static_cast<unsigned char>(text[i]) & 0x3fU);
  }
  text.remove_prefix(size);
  return character;
}

// Only ASCII, as parse_policy wants it.
std::string quoted(const std::string& text) {
  const std::string safe = is_utf8(text) ? text : printable(text, text.size() * 4);
  std::string out = "\"";
  for (std::string_view rest = safe; !rest.empty();) {
    const char32_t c = take_character(rest);
    if (c == U'"' || c == U'\\') {
      out += {'\\', static_cast<char>(c)};
    } else if (c >= U' ' && c <= U'~') {
      out += static_cast<char>(c);
    } else {
      out += c <= 0xffff ? fmt::format("\\u{:04X}", static_cast<std::uint32_t>(c))
                         : fmt::format("\\U{:08X}", static_cast<std::uint32_t>(c));
    }
  }
  return out + '"';
}

std::string value_text(const OrderedJson& value) {
  if (value.is_string()) return quoted(value.get<std::string>());
  if (value.is_array()) {
    std::string text;
    for (const OrderedJson& one : value) text += (text.empty() ? "" : ", ") + value_text(one);
    return "[" + text + "]";
  }
  if (value.is_object()) {
    std::string text;
    for (const auto& [name, one] : value.items()) {
      text += fmt::format("{}{} = {}", text.empty() ? "" : ", ", name, value_text(one));
    }
    return text.empty() ? "{}" : "{ " + text + " }";
  }
  return value.dump();
}

// Ciphers have names that are no bare keys.
std::string key_text(const std::string& name) {
  const bool bare =
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
  return bare ? name : quoted(name);
}

void append_values(const OrderedJson& table, std::string& text) {
  for (const auto& [name, value] : table.items()) {
    text += fmt::format("{} = {}\n", key_text(name), value_text(value));
  }
}

bool is_section(const std::string& name) {
  return name == "ciphers" || name == "keyslot_ciphers" || name == "digest" || name == "af" ||
         name == "pin";
}

}  // namespace

OrderedJson to_json(const Policy& policy) {
  OrderedJson json = OrderedJson::object();
  if (!policy.description.empty()) json["description"] = policy.description;
  put(json, "versions", policy.versions);
  put(json, "segment_types", policy.segment_types);
  put(json, "segment_flags", policy.segment_flags);
  put(json, "segments", policy.segments);
  put(json, "requirements", policy.requirements);
  put(json, "flags", policy.flags);
  put(json, "keyslot_types", policy.keyslot_types);
  put(json, "keyslots", policy.keyslots);
  put(json, "token_types", policy.token_types);
  put(json, "sector_sizes", policy.sector_sizes);
  if (!policy.integrity) json["integrity"] = false;
  put(json, "ciphers", policy.ciphers);
  put(json, "keyslot_ciphers", policy.keyslot_ciphers);
  if (policy.kdfs) json["kdf"] = to_json(*policy.kdfs);
  OrderedJson digest;
  put(digest, "hashes", policy.digest_hashes);
  put(digest, "iterations", policy.digest_iterations);
  put(digest, "size_bytes", policy.digest_size_bytes);
  put(json, "digest", digest);
  OrderedJson af;
  put(af, "hashes", policy.af_hashes);
  put(af, "stripes", policy.af_stripes);
  put(json, "af", af);
  OrderedJson pin;
  put(pin, "fingerprints", policy.fingerprints);
  put(pin, "volume_key_digests", policy.volume_key_digests);
  put(json, "pin", pin);
  return json;
}

std::string to_toml(const Policy& policy) {
  OrderedJson values = OrderedJson::object();
  std::string sections;
  const OrderedJson json = to_json(policy);
  for (const auto& [name, value] : json.items()) {
    if (name == "kdf") {
      sections += "\n[kdf]\n";
      for (const auto& [type, rule] : value.items()) {
        sections += fmt::format("\n[kdf.{}]\n", type);
        append_values(rule, sections);
      }
    } else if (is_section(name)) {
      sections += fmt::format("\n[{}]\n", name);
      append_values(value, sections);
    } else {
      values[name] = value;
    }
  }
  std::string text;
  append_values(values, text);
  return text + sections;
}

}  // namespace lukskeep::luks
