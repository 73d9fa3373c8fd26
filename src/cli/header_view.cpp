#include "cli/header_view.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/units.h"
#include "luks/crypt_device.h"
#include "luks/keyslots.h"
#include "luks/layout.h"
#include "luks/luks2_codec.h"

namespace lukskeep::cli {
namespace {

using luks::Header;
using luks::Kdf;
using luks::Keyslot;

std::string_view type_name(luks::Version version) {
  return version == luks::Version::kLuks1 ? "luks1" : "luks2";
}

std::optional<int> digest_of(const Header& header, int keyslot) {
  for (const auto& [id, digest] : header.digests) {
    if (digest.keyslots.contains(keyslot)) return id;
  }
  return {};
}

std::vector<int> tokens_of(const Header& header, int keyslot) {
  std::vector<int> ids;
  for (const auto& [id, token] : header.tokens) {
    if (token.keyslots.contains(keyslot)) ids.push_back(id);
  }
  return ids;
}

// The segment that holds the data; others may describe a re-encryption on its way.
const luks::Segment* data_segment(const Header& header) {
  for (const auto& [id, segment] : header.segments) {
    if (segment.type == luks::Segment::Type::kCrypt) return &segment;
  }
  return nullptr;
}

// Bits of the volume key, 0 if no keyslot tells.
std::uint32_t key_bits(const Header& header) {
  if (header.version == luks::Version::kLuks1) return header.luks1_key_size_bytes * 8;
  for (const auto& [id, keyslot] : header.keyslots) {
    if (luks::opens_segment(header, id)) return keyslot.key_size_bytes * 8;
  }
  return 0;
}

template <typename T>
OrderedJson or_null(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

OrderedJson kdf_json(const Kdf& kdf) {
  OrderedJson json = {{"type", kdf.type_name}};
  if (kdf.type == Kdf::Type::kPbkdf2) {
    json["hash"] = kdf.hash;
    json["iterations"] = kdf.iterations;
  } else if (kdf.type != Kdf::Type::kUnknown) {
    json["time"] = kdf.iterations;
    json["memory_kib"] = kdf.memory_kib;
    json["parallel"] = kdf.parallel;
  }
  json["salt"] = to_base64(kdf.salt);
  return json;
}

OrderedJson keyslot_json(const Header& header, int number, const Keyslot& keyslot) {
  const bool known = keyslot.type == Keyslot::Type::kLuks2;
  OrderedJson json = {
      {"slot", number},
      {"type", known ? std::string(type_name(header.version)) : keyslot.type_name},
      {"priority", priority_name(keyslot.priority)},
      {"key_bits", keyslot.key_size_bytes * 8},
      {"kdf", known ? kdf_json(keyslot.kdf) : OrderedJson(nullptr)},
      {"area",
       {{"type", keyslot.area.type},
        {"offset", keyslot.area.offset_bytes},
        {"size", keyslot.area.size_bytes},
        {"encryption", keyslot.area.encryption},
        {"key_bits", keyslot.area.key_size_bytes * 8}}},
      {"af", {{"stripes", keyslot.af.stripes}, {"hash", keyslot.af.hash}}},
  };
  if (!known) json["af"] = nullptr;
  json["bound"] = luks::opens_segment(header, number);
  json["digest"] = or_null(digest_of(header, number));
  json["tokens"] = tokens_of(header, number);
  return json;
}

OrderedJson offset_json(const VolumeView& view, std::uint64_t offset_bytes) {
  return view.in_image ? OrderedJson(nullptr) : OrderedJson(offset_bytes);
}

OrderedJson segments_json(const VolumeView& view) {
  OrderedJson list = OrderedJson::array();
  for (const auto& [id, segment] : view.header.segments) {
    OrderedJson json = {{"segment", id},
                        {"type", segment.type_name},
                        {"offset", offset_json(view, segment.offset_bytes)},
                        {"size", or_null(segment.size_bytes)}};
    if (segment.type == luks::Segment::Type::kCrypt) {
      json["cipher"] = segment.encryption;
      json["sector_size"] = segment.sector_size_bytes;
      json["iv_tweak"] = segment.iv_tweak;
    }
    json["integrity"] = segment.has_integrity;
    json["flags"] = segment.flags;
    list.push_back(json);
  }
  return list;
}

OrderedJson digests_json(const Header& header) {
  OrderedJson list = OrderedJson::array();
  for (const auto& [id, digest] : header.digests) {
    OrderedJson json = {{"digest", id},
                        {"type", digest.type_name},
                        {"keyslots", digest.keyslots},
                        {"segments", digest.segments}};
    if (digest.type == luks::Digest::Type::kPbkdf2) {
      json["hash"] = digest.hash;
      json["iterations"] = digest.iterations;
      json["salt"] = to_base64(digest.salt);
      json["value"] = to_base64(digest.digest);
    }
    list.push_back(json);
  }
  return list;
}

OrderedJson copies_json(const luks::ReadReport& report) {
  return {{"primary", luks::copy_state_name(report.primary)},
          {"secondary", luks::copy_state_name(report.secondary)},
          {"secondary_offset", report.secondary_offset_bytes}};
}

std::string kdf_text(const Kdf& kdf) {
  if (kdf.type == Kdf::Type::kPbkdf2) {
    return fmt::format("pbkdf2-{}, {} iterations", printable(kdf.hash), kdf.iterations);
  }
  if (kdf.type == Kdf::Type::kUnknown) {
    return fmt::format("unknown kdf '{}'", printable(kdf.type_name));
  }
  return fmt::format("{}, time {}, {}, {} lane{}", kdf.type_name, kdf.iterations,
                     human_size(kdf.memory_kib * limits::kKiB), kdf.parallel,
                     kdf.parallel == 1 ? "" : "s");
}

std::string keyslot_remarks(const Header& header, int number, const Keyslot& keyslot) {
  std::string text;
  if (keyslot.priority != luks::Priority::kNormal) {
    text += fmt::format(", priority {}", priority_name(keyslot.priority));
  }
  if (!luks::opens_segment(header, number)) text += ", unbound";
  const std::vector<int> tokens = tokens_of(header, number);
  if (!tokens.empty()) {
    text += fmt::format(", token{} {}", tokens.size() == 1 ? "" : "s", fmt::join(tokens, ", "));
  }
  return text;
}

std::string keyslot_text(const Header& header, int number, const Keyslot& keyslot) {
  if (keyslot.type != Keyslot::Type::kLuks2) {
    return fmt::format("  {:>2}  of type '{}'\n", number, printable(keyslot.type_name));
  }
  return fmt::format("  {:>2}  {}, {}/{}{}\n", number, kdf_text(keyslot.kdf),
                     printable(keyslot.area.encryption), keyslot.area.key_size_bytes * 8,
                     keyslot_remarks(header, number, keyslot));
}

std::string field(std::string_view name, std::string_view value) {
  return fmt::format("  {:<14}{}\n", name, value);
}

std::string header_line(const VolumeView& view) {
  const Header& header = view.header;
  std::string size = human_size(luks::header_size_bytes(header));
  if (header.version == luks::Version::kLuks1) return size;
  return fmt::format("{}: two copies of {}, sequence id {}", size,
                     human_size(header.metadata_size_bytes), header.sequence_id);
}

std::string payload_line(const VolumeView& view) {
  if (view.in_image && view.payload_size_bytes) {
    return fmt::format("{}, in clusters of the image", exact_size(*view.payload_size_bytes));
  }
  const std::uint64_t offset = luks::payload_offset_bytes(view.header);
  if (!view.payload_size_bytes) return fmt::format("from byte {} of its device", offset);
  return fmt::format("{} from byte {}", exact_size(*view.payload_size_bytes), offset);
}

std::string copies_line(const luks::ReadReport& report) {
  return fmt::format("primary {}, secondary {} (at byte {})", luks::copy_state_name(report.primary),
                     luks::copy_state_name(report.secondary), report.secondary_offset_bytes);
}

// Only if there is more than the one segment that the summary describes.
std::string segments_text(const Header& header) {
  if (header.segments.size() < 2) return {};
  std::string text = "\nsegments\n";
  for (const auto& [id, segment] : header.segments) {
    text += fmt::format("  {:>2}  {} from byte {}, {}\n", id, printable(segment.type_name),
                        segment.offset_bytes,
                        segment.size_bytes ? human_size(*segment.size_bytes) : "to the end");
  }
  return text;
}

}  // namespace

std::string_view version_name(luks::Version version) {
  return version == luks::Version::kLuks1 ? "LUKS1" : "LUKS2";
}

std::string_view priority_name(luks::Priority priority) {
  switch (priority) {
    case luks::Priority::kIgnore:
      return "ignore";
    case luks::Priority::kPrefer:
      return "prefer";
    case luks::Priority::kNormal:
      break;
  }
  return "normal";
}

luks::Priority priority_of(std::string_view name) {
  if (name == "prefer") return luks::Priority::kPrefer;
  if (name == "ignore") return luks::Priority::kIgnore;
  return luks::Priority::kNormal;
}

std::string printable_list(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + printable(name);
  return text;
}

OrderedJson keyslots_json(const Header& header) {
  OrderedJson list = OrderedJson::array();
  for (const auto& [number, keyslot] : header.keyslots) {
    list.push_back(keyslot_json(header, number, keyslot));
  }
  return list;
}

OrderedJson tokens_json(const Header& header) {
  OrderedJson list = OrderedJson::array();
  for (const auto& [id, token] : header.tokens) {
    list.push_back({{"id", id},
                    {"type", token.type},
                    {"keyslots", token.keyslots},
                    {"json", OrderedJson::parse(token.json)}});
  }
  return list;
}

std::string keyslots_text(const Header& header) {
  std::string text;
  for (const auto& [number, keyslot] : header.keyslots) {
    text += keyslot_text(header, number, keyslot);
  }
  return text.empty() ? "  none: nobody can open this volume\n" : text;
}

std::string tokens_text(const Header& header) {
  std::string text;
  for (const auto& [id, token] : header.tokens) {
    text += fmt::format("  {:>2}  {}", id, printable(token.type));
    if (!token.keyslots.empty()) {
      text += fmt::format(", keyslot{} {}", token.keyslots.size() == 1 ? "" : "s",
                          fmt::join(token.keyslots, ", "));
    }
    text += '\n';
  }
  return text;
}

OrderedJson summary_json(const Header& header) {
  const luks::Segment* segment = data_segment(header);
  return {
      {"type", type_name(header.version)},
      {"uuid", header.uuid},
      {"label", header.label},
      {"subsystem", header.subsystem},
      {"header_size", luks::header_size_bytes(header)},
      {"payload_offset", luks::payload_offset_bytes(header)},
      {"cipher", segment == nullptr ? OrderedJson(nullptr) : OrderedJson(segment->encryption)},
      {"key_bits", key_bits(header)},
      {"sector_size",
       segment == nullptr ? OrderedJson(nullptr) : OrderedJson(segment->sector_size_bytes)},
  };
}

std::string summary_text(const Header& header) {
  std::string text(version_name(header.version));
  const luks::Segment* segment = data_segment(header);
  if (segment == nullptr) return text + ", no encrypted segment";
  text += fmt::format(", {}", printable(segment->encryption));
  if (key_bits(header) != 0) text += fmt::format(" with a {}-bit key", key_bits(header));
  return text + fmt::format(", {}-byte sectors", segment->sector_size_bytes);
}

OrderedJson info_json(const VolumeView& view) {
  const Header& header = view.header;
  OrderedJson json = {{"volume", view.name}};
  json.update(summary_json(header));
  json["payload_offset"] = offset_json(view, luks::payload_offset_bytes(header));
  json["payload_size"] = or_null(view.payload_size_bytes);
  json["sequence_id"] = header.sequence_id;
  json["metadata_size"] = header.metadata_size_bytes;
  json["keyslots"] = keyslots_json(header);
  json["segments"] = segments_json(view);
  json["digests"] = digests_json(header);
  json["tokens"] = tokens_json(header);
  json["flags"] = header.config.flags;
  json["requirements"] = header.config.requirements;
  json["unsupported_requirements"] = luks::unsupported_requirements(header);
  json["copies"] = copies_json(view.report);
  json["problems"] = view.report.problems;
  return json;
}

std::string info_text(const VolumeView& view) {
  const Header& header = view.header;
  std::string text = fmt::format("{}: {}\n\n", printable(view.name, 256), summary_text(header));
  text += field("UUID", printable(header.uuid));
  if (!header.label.empty()) text += field("label", printable(header.label));
  if (!header.subsystem.empty()) text += field("subsystem", printable(header.subsystem));
  text += field("payload", payload_line(view));
  text += field("header", header_line(view));
  if (header.version == luks::Version::kLuks2) text += field("copies", copies_line(view.report));
  if (!header.config.flags.empty()) text += field("flags", printable_list(header.config.flags));
  if (!header.config.requirements.empty()) {
    text += field("requirements", printable_list(header.config.requirements));
    const auto unsupported = luks::unsupported_requirements(header);
    if (!unsupported.empty()) text += field("unsupported", printable_list(unsupported));
  }
  text += segments_text(header);
  text += fmt::format("\nkeyslots ({} of {})\n{}", header.keyslots.size(),
                      header.version == luks::Version::kLuks1 ? luks::kLuks1KeyslotCount
                                                              : luks::kLuks2KeyslotCountMax,
                      keyslots_text(header));
  if (!header.tokens.empty()) text += "\ntokens\n" + tokens_text(header);
  if (!view.report.problems.empty()) {
    text += "\nproblems\n";
    for (const std::string& problem : view.report.problems) text += "  " + problem + "\n";
  }
  return text;
}

}  // namespace lukskeep::cli
