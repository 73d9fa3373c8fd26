#include "luks/luks2_json_object.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/format.h>

#include <lukskeep/error.h>

namespace lukskeep::luks {
namespace {

// Digits only and no leading zero, so that each number has one spelling.
std::optional<std::uint64_t> parse_decimal(std::string_view text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (text.empty() || !std::all_of(text.begin(), text.end(), is_digit)) return std::nullopt;
  if (text.size() > 1 && text.front() == '0') return std::nullopt;
  std::uint64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc{}) return std::nullopt;
  return value;
}

std::optional<int> parse_id(std::string_view text, int count_max) {
  const std::optional<std::uint64_t> id = parse_decimal(text);
  if (!id || *id >= static_cast<std::uint64_t>(count_max)) return std::nullopt;
  return static_cast<int>(*id);
}

}  // namespace

JsonReader::JsonReader(const Json& value, std::string_view text, std::string where)
    : value_(&value), spelling_(text), where_(std::move(where)) {
  if (!value.is_object()) fail("not a JSON object");
  texts_ = json_member_texts(text);
}

void JsonReader::fail(std::string_view problem) const {
  throw Error(Code::kDamaged, fmt::format("{}: {}", where_, problem));
}

void JsonReader::fail(const std::string& name, std::string_view expected) const {
  fail(fmt::format("'{}' is {}, not {}", name, printable(texts_.at(name)), expected));
}

bool JsonReader::has(const std::string& name) const { return texts_.contains(name); }

bool JsonReader::is_array(const std::string& name) const {
  return has(name) && value_->at(name).is_array();
}

const Json& JsonReader::take(const std::string& name) {
  const auto found = value_->find(name);
  if (found == value_->end()) fail(fmt::format("'{}' is missing", name));
  taken_.insert(name);
  return *found;
}

std::string JsonReader::text(const std::string& name) {
  const Json& member = take(name);
  if (!member.is_string()) fail(name, "a string");
  auto text = member.get<std::string>();
  if (text.empty()) fail(fmt::format("'{}' is empty", name));
  if (text.find('\0') != std::string::npos) fail(name, "free of zero bytes");
  return text;
}

std::uint32_t JsonReader::u32(const std::string& name, U32Range range) {
  const Json& member = take(name);
  const bool fits = member.is_number_unsigned() && member.get<std::uint64_t>() >= range.min &&
                    member.get<std::uint64_t>() <= range.max;
  if (!fits) fail(name, fmt::format("an integer from {} to {}", range.min, range.max));
  return member.get<std::uint32_t>();
}

std::uint64_t JsonReader::u64(const std::string& name) {
  const Json& member = take(name);
  const std::optional<std::uint64_t> value =
      member.is_string() ? parse_decimal(member.get_ref<const std::string&>()) : std::nullopt;
  if (!value) fail(name, "a string of decimal digits below 2^64");
  return *value;
}

Bytes JsonReader::base64(const std::string& name, std::size_t size_min, std::size_t size_max) {
  const Json& member = take(name);
  std::optional<Bytes> bytes =
      member.is_string() ? from_base64(member.get_ref<const std::string&>()) : std::nullopt;
  if (!bytes) fail(name, "a base64 string");
  if (bytes->size() < size_min || bytes->size() > size_max) {
    fail(fmt::format("'{}' has {} bytes, not {} to {}", name, bytes->size(), size_min, size_max));
  }
  return *std::move(bytes);
}

std::set<std::string> JsonReader::texts(const std::string& name) {
  const Json& member = take(name);
  std::set<std::string> texts;
  const auto is_text = [](const Json& element) {
    return element.is_string() && !element.get_ref<const std::string&>().empty() &&
           element.get_ref<const std::string&>().find('\0') == std::string::npos;
  };
  if (!member.is_array() || !std::all_of(member.begin(), member.end(), is_text)) {
    fail(name, "an array of strings");
  }
  for (const Json& element : member) texts.insert(element.get<std::string>());
  return texts;
}

std::set<int> JsonReader::ids(const std::string& name, int count_max) {
  const Json& member = take(name);
  if (!member.is_array()) fail(name, "an array of ids");
  std::set<int> ids;
  for (const Json& element : member) {
    const std::optional<int> id = element.is_string()
                                      ? parse_id(element.get_ref<const std::string&>(), count_max)
                                      : std::nullopt;
    if (!id) fail(name, fmt::format(R"(an array of ids, strings from "0" to "{}")", count_max - 1));
    ids.insert(*id);
  }
  return ids;
}

JsonReader JsonReader::object(const std::string& name) {
  const Json& member = take(name);
  return {member, texts_.at(name), fmt::format("{}: {}", where_, name)};
}

std::vector<std::pair<int, JsonReader>> JsonReader::numbered(const std::string& name,
                                                             std::string_view kind, int count_max) {
  const Json& member = take(name);
  if (!member.is_object()) fail(name, "a JSON object");
  const auto spellings = json_member_texts(texts_.at(name));
  std::vector<std::pair<int, JsonReader>> objects;
  for (const auto& [id_text, value] : member.items()) {
    const std::optional<int> id = parse_id(id_text, count_max);
    if (!id) {
      fail(fmt::format("{} id '{}' is not a number from 0 to {}", kind, printable(id_text),
                       count_max - 1));
    }
    objects.emplace_back(
        *id, JsonReader(value, spellings.at(id_text), fmt::format("{}: {} {}", where_, kind, *id)));
  }
  return objects;
}

UnknownMembers JsonReader::rest() const {
  UnknownMembers members;
  for (const auto& [name, text] : texts_) {
    if (!taken_.contains(name)) members.emplace(name, text);
  }
  return members;
}

void JsonWriter::add_json(std::string_view name, std::string_view json) {
  if (!members_.empty()) members_ += ',';
  members_ += quote_json(name);
  members_ += ':';
  members_ += json;
}

void JsonWriter::add_text(std::string_view name, std::string_view text) {
  add_json(name, quote_json(text));
}

void JsonWriter::add_u32(std::string_view name, std::uint32_t value) {
  add_json(name, fmt::format("{}", value));
}

void JsonWriter::add_u64(std::string_view name, std::uint64_t value) {
  add_json(name, fmt::format("\"{}\"", value));
}

void JsonWriter::add_base64(std::string_view name, ByteView bytes) {
  add_json(name, fmt::format("\"{}\"", to_base64(bytes)));
}

void JsonWriter::add_texts(std::string_view name, const std::set<std::string>& texts) {
  std::string json;
  for (const std::string& text : texts) json += (json.empty() ? "" : ",") + quote_json(text);
  add_json(name, "[" + json + "]");
}

void JsonWriter::add_ids(std::string_view name, const std::set<int>& ids) {
  add_json(name, spell_ids(ids));
}

void JsonWriter::add_all(const UnknownMembers& members) {
  for (const auto& [name, json] : members) add_json(name, json);
}

std::string spell_ids(const std::set<int>& ids) {
  std::string json;
  for (const int id : ids) json += fmt::format("{}\"{}\"", json.empty() ? "" : ",", id);
  return "[" + json + "]";
}

std::string quote_json(std::string_view text) {
  if (!is_utf8(text)) {
    throw Error(Code::kDamaged, fmt::format("'{}' is not valid UTF-8", printable(text)));
  }
  return Json(text).dump();
}

}  // namespace lukskeep::luks
