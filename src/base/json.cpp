#include "base/json.h"

#include <cstddef>
#include <set>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"

namespace lukskeep {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::size_t skip_space(std::string_view text, std::size_t at) {
  while (at < text.size() && is_space(text[at])) ++at;
  return at;
}

// `at` is on the opening quote; returns the place behind the closing one.
std::size_t skip_string(std::string_view text, std::size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return at + 1;
}

// Returns the place behind the value that starts at `at`, in text known to be valid.
std::size_t skip_value(std::string_view text, std::size_t at) {
  std::size_t depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = skip_string(text, at);
    } else {
      if (depth == 0 && (c == ',' || c == '}' || c == ']' || is_space(c))) break;
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
      ++at;
    }
    if (depth == 0 && (c == '"' || c == '}' || c == ']')) break;
  }
  return at;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view what) {
  if (!is_utf8(text)) throw Error(Code::kDamaged, fmt::format("{}: not valid UTF-8", what));
  std::vector<std::set<std::string>> names;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (static_cast<std::size_t>(depth) > limits::kJsonDepthMax) {
      throw Error(Code::kDamaged,
                  fmt::format("{}: JSON is nested deeper than {}", what, limits::kJsonDepthMax));
    }
    if (event == Json::parse_event_t::object_start) {
      names.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      names.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (!names.back().insert(name).second) {
        throw Error(Code::kDamaged,
                    fmt::format("{}: JSON member '{}' is there twice", what, printable(name)));
      }
    }
    return true;
  };
  try {
    return Json::parse(text, callback);
  } catch (const Json::parse_error& error) {
    throw Error(Code::kDamaged, fmt::format("{}: not valid JSON (at byte {})", what, error.byte));
  } catch (const Json::exception&) {
    // A number beyond the range of a double.
    throw Error(Code::kDamaged, fmt::format("{}: JSON holds a number out of range", what));
  }
}

std::map<std::string, std::string_view> json_member_texts(std::string_view text) {
  std::map<std::string, std::string_view> members;
  std::size_t at = skip_space(text, 0);
  if (at >= text.size() || text[at] != '{') return members;
  at = skip_space(text, at + 1);
  while (at < text.size() && text[at] == '"') {
    const std::size_t name_end = skip_string(text, at);
    const auto name = Json::parse(text.substr(at, name_end - at)).get<std::string>();
    at = skip_space(text, skip_space(text, name_end) + 1);  // behind the colon
    const std::size_t value_end = skip_value(text, at);
    members.emplace(name, text.substr(at, value_end - at));
    at = skip_space(text, value_end);
    if (at >= text.size() || text[at] != ',') break;
    at = skip_space(text, at + 1);
  }
  return members;
}

}  // namespace lukskeep
