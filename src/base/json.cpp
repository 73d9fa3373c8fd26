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

// Watches a text being read. Nothing is built: nlohmann's parser with a callback, which could watch
// as well, looks through the whole parent after each object, which is quadratic.
class Watcher : public nlohmann::json_sax<Json> {
 public:
  explicit Watcher(std::string_view what) : what_(what) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    names_.emplace_back();
    return enter();
  }
  bool end_object() override {
    names_.pop_back();
    return leave();
  }
  bool start_array(std::size_t) override { return enter(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    if (names_.back().insert(name).second) return true;
    throw Error(Code::kDamaged,
                fmt::format("{}: JSON member '{}' is there twice", what_, printable(name)));
  }
  bool parse_error(std::size_t at, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // 406: a number beyond the range of a double.
    throw Error(Code::kDamaged, error.id == 406
                                    ? fmt::format("{}: JSON holds a number out of range", what_)
                                    : fmt::format("{}: not valid JSON (at byte {})", what_, at));
  }

 private:
  bool enter() {
    if (++depth_ <= limits::kJsonDepthMax) return true;
    throw Error(Code::kDamaged,
                fmt::format("{}: JSON is nested deeper than {}", what_, limits::kJsonDepthMax));
  }
  bool leave() {
    --depth_;
    return true;
  }

  std::string_view what_;
  std::size_t depth_ = 0;
  std::vector<std::set<std::string>> names_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view what) {
  if (!is_utf8(text)) throw Error(Code::kDamaged, fmt::format("{}: not valid UTF-8", what));
  Watcher watcher(what);
  Json::sax_parse(text, &watcher);
  return Json::parse(text);
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
