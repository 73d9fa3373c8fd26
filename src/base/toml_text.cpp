#include "base/toml_text.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"

namespace lukskeep {
namespace {

struct Line {
  std::string_view code;  // without its comment
  std::string bare;       // what of that is outside of strings
};

// `text` starts outside of strings.
Line split_line(std::string_view text) {
  Line line{.code = text, .bare = {}};
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != 0) {
      if (c == '\\' && quote == '"') ++i;
      if (c == quote) quote = 0;
      continue;
    }
    if (c == '#') {
      line.code = text.substr(0, i);
      break;
    }
    if (c == '"' || c == '\'') quote = c;
    line.bare += c;
  }
  return line;
}

// Whether a line starts as a table's header does, but goes on with something else than a name.
bool is_nameless_table(std::string_view bare) {
  const auto trim = [&] {
    bare.remove_prefix(std::min(bare.size(), bare.find_first_not_of(" \t")));
  };
  trim();
  if (!bare.starts_with('[')) return false;
  bare.remove_prefix(1);
  if (bare.starts_with('[')) bare.remove_prefix(1);
  trim();
  if (bare.empty()) return true;
  const char c = bare.front();
  return std::isalnum(static_cast<unsigned char>(c)) == 0 &&
         std::string_view("_-\"']").find(c) == std::string_view::npos;
}

bool is_printable_ascii(char c) { return c == '\t' || (' ' <= c && c <= '~'); }

// Why a line is not to be shown to the parser; empty: it may be.
std::string problem_of(const Line& line) {
  if (line.code.find(R"(""")") != std::string_view::npos ||
      line.code.find("'''") != std::string_view::npos) {
    return "strings of many lines are not taken";
  }
  if (!std::ranges::all_of(line.code, is_printable_ascii)) {
    return "only comments may have other characters than those of ASCII (write them as \\u00E9)";
  }
  if (is_nameless_table(line.bare)) return "a table wants a name";
  if (std::cmp_greater(std::ranges::count(line.bare, '.'), limits::kTomlKeyDotsMax)) {
    return fmt::format("more than {} dots in keys", limits::kTomlKeyDotsMax);
  }
  return {};
}

}  // namespace

std::string fit_for_toml_parser(
    std::string_view text,
    const std::function<void(std::uint64_t line, const std::string& problem)>& refuse) {
  std::string fit;
  for (std::uint64_t number = 1; !text.empty(); ++number) {
    std::string_view whole = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), whole.size() + 1));
    if (whole.ends_with('\r')) whole.remove_suffix(1);
    const Line line = split_line(whole);
    const std::string problem = problem_of(line);
    if (!problem.empty()) refuse(number, problem);
    fit += fmt::format("{}\n", line.code);
  }
  return fit;
}

}  // namespace lukskeep
