#include "nbde/jwk_text.h"

#include <algorithm>
#include <cstddef>

#include <fmt/format.h>

#include <lukskeep/error.h>

namespace lukskeep::nbde {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

// `at` is on the opening quote; returns the place behind the closing one, or the end.
std::size_t skip_string(std::string_view text, std::size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

std::size_t skip_space(std::string_view text, std::size_t at) {
  return std::min(text.find_first_not_of(kSpace, at), text.size());
}

}  // namespace

SplitJson split_secret(ByteView text_bytes, std::string_view name) {
  const std::string_view text = as_string_view(text_bytes);
  const std::string quoted = fmt::format("\"{}\"", name);
  std::size_t depth = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '{' || text[at] == '[') ++depth;
    if (text[at] == '}' || text[at] == ']') depth = depth > 0 ? depth - 1 : 0;
    if (text[at] != '"') {
      ++at;
      continue;
    }
    const std::size_t end = skip_string(text, at);
    const std::size_t colon = skip_space(text, end);
    const bool found = depth == 1 && text.substr(at, end - at) == quoted && colon < text.size() &&
                       text[colon] == ':';
    at = end;
    if (!found) continue;
    const std::size_t value = skip_space(text, colon + 1);
    if (value >= text.size() || text[value] != '"') continue;
    const std::size_t value_end = skip_string(text, value);
    if (value_end < value + 2) continue;
    SplitJson split;
    split.rest = text.substr(0, value + 1);
    split.rest += text.substr(value_end - 1);
    split.secret = text_bytes.subspan(value + 1, value_end - value - 2);
    return split;
  }
  return {.rest = std::string(text), .secret = {}};
}

SecretBytes join_secret(std::string_view rest, std::string_view name, ByteView secret) {
  const std::string empty = fmt::format(R"("{}":"")", name);
  const std::size_t place = rest.find(empty);
  if (place == std::string_view::npos) throw Error(Code::kInternal, "a key has lost its secret");
  const std::size_t before = place + empty.size() - 1;
  SecretBytes text(rest.size() + secret.size());
  const auto put = [out = text.data()](ByteView part) mutable {
    out = std::ranges::copy(part, out).out;
  };
  auto write = put;
  write(as_byte_view(rest.substr(0, before)));
  write(secret);
  write(as_byte_view(rest.substr(before)));
  return text;
}

}  // namespace lukskeep::nbde
