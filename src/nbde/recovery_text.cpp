#include "nbde/recovery_text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::nbde {
namespace {

using Symbols = std::vector<std::uint8_t>;  // each below 32

constexpr std::string_view kAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
constexpr std::string_view kQrPrefix = "LUKSKEEP:";
constexpr std::string_view kTitlePrefix = "LUKSKEEP";
constexpr std::size_t kGroup = 5;
constexpr std::size_t kLine = 25;
constexpr std::size_t kCheck = 2;
// The largest prime that two characters hold, and a number that has no small power of 1 to it: a
// change of one character, or of two neighbours, changes the remainder.
constexpr std::uint32_t kCheckPrime = 1021;
constexpr std::uint32_t kCheckFactor = 37;

[[noreturn]] void fail(std::string_view what, std::string_view problem, std::string hint = {}) {
  throw Error(Code::kInvalidArgument, fmt::format("{} {}", what, problem), std::move(hint));
}

std::optional<std::uint8_t> symbol_of(char c) {
  const char upper = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (upper == 'O') return std::uint8_t{0};
  if (upper == 'I' || upper == 'L') return std::uint8_t{1};
  const std::size_t place = kAlphabet.find(upper);
  if (place == std::string_view::npos) return std::nullopt;
  return static_cast<std::uint8_t>(place);
}

bool starts_with_any_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::ranges::equal(text.substr(0, prefix.size()), prefix, {}, [](char c) {
           return static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
         });
}

Symbols to_symbols(ByteView bytes) {
  Symbols symbols;
  symbols.reserve((bytes.size() * 8 + 4) / 5);
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const std::byte byte : bytes) {
    bits = (bits << 8) | static_cast<std::uint32_t>(byte);
    for (count += 8; count >= 5; count -= 5) {
      symbols.push_back(static_cast<std::uint8_t>((bits >> (count - 5)) & 31));
    }
    bits &= 0xff;
  }
  if (count > 0) symbols.push_back(static_cast<std::uint8_t>((bits << (5 - count)) & 31));
  return symbols;
}

Bytes to_bytes(const Symbols& symbols, std::string_view what) {
  Bytes bytes;
  bytes.reserve(symbols.size() * 5 / 8);
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const std::uint8_t symbol : symbols) {
    bits = (bits << 5) | symbol;
    count += 5;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<std::byte>((bits >> count) & 0xff));
    bits &= (1U << count) - 1;
  }
  if (count >= 5 || bits != 0) fail(what, "ends in the middle: its last line is not whole");
  return bytes;
}

std::string check_of(std::size_t line, const std::uint8_t* symbols, std::size_t count) {
  std::uint32_t rest = static_cast<std::uint32_t>(line % kCheckPrime);
  for (std::size_t i = 0; i < count; ++i) rest = (rest * kCheckFactor + symbols[i]) % kCheckPrime;
  return {kAlphabet[rest / 32], kAlphabet[rest % 32]};
}

// What is left of a line without what only parts it.
std::string_view next_word(std::string_view& line) {
  constexpr std::string_view kSpace = " \t\r-.:";
  line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(kSpace));
  line.remove_prefix(word.size());
  return word;
}

std::optional<std::size_t> number_of(std::string_view word) {
  std::size_t number = 0;
  if (word.empty() || word.size() > 5) return std::nullopt;
  for (const char c : word) {
    const char digit = c == 'O' || c == 'o' ? '0' : c == 'l' || c == 'I' ? '1' : c;
    if (digit < '0' || digit > '9') return std::nullopt;
    number = number * 10 + static_cast<std::size_t>(digit - '0');
  }
  return number;
}

void read_line(std::string_view line, std::size_t expected, Symbols& symbols,
               std::string_view what) {
  const auto number = number_of(next_word(line));
  if (!number) fail(what, fmt::format("has no line number where line {} should be", expected));
  if (*number != expected) {
    fail(what, fmt::format("has line {} where line {} should be", *number, expected));
  }
  Symbols read;
  for (std::string_view word = next_word(line); !word.empty(); word = next_word(line)) {
    for (const char c : word) {
      const auto symbol = symbol_of(c);
      if (!symbol || read.size() >= kLine + kCheck) {
        fail(what, fmt::format("is wrong in line {}", expected), "read that line once more");
      }
      read.push_back(*symbol);
    }
  }
  const std::size_t count = read.size() - std::min(read.size(), kCheck);
  const std::string check = check_of(expected, read.data(), count);
  if (count == 0 || symbol_of(check[0]) != read[count] || symbol_of(check[1]) != read[count + 1]) {
    fail(what, fmt::format("is wrong in line {}", expected), "read that line once more");
  }
  read.resize(count);
  symbols.insert(symbols.end(), read.begin(), read.end());
}

Symbols read_lines(std::string_view text, std::string_view what) {
  Symbols symbols;
  std::size_t expected = 1;
  bool last = false;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    std::string_view rest = line;
    const std::string_view word = next_word(rest);
    if (word.empty() || starts_with_any_case(word, kTitlePrefix)) continue;
    if (last) fail(what, fmt::format("has a line {} that is too short", expected - 1));
    const std::size_t before = symbols.size();
    read_line(line, expected++, symbols, what);
    last = symbols.size() - before < kLine;
  }
  if (symbols.empty()) fail(what, "is empty");
  return symbols;
}

Symbols read_qr(std::string_view text, std::string_view what) {
  Symbols symbols;
  for (const char c : text) {
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
    const auto symbol = symbol_of(c);
    if (!symbol) fail(what, "has a character that no QR code of this program has");
    symbols.push_back(*symbol);
  }
  return symbols;
}

}  // namespace

std::string to_base32(ByteView bytes) {
  std::string text;
  for (const std::uint8_t symbol : to_symbols(bytes)) text += kAlphabet[symbol];
  return text;
}

std::string to_spoken_lines(ByteView bytes, std::string_view title) {
  const Symbols symbols = to_symbols(bytes);
  std::string text = fmt::format("{} {}\n", kTitlePrefix, title);
  for (std::size_t start = 0; start < symbols.size(); start += kLine) {
    const std::size_t line = start / kLine + 1;
    const std::size_t count = std::min(kLine, symbols.size() - start);
    text += fmt::format("{:02} ", line);
    for (std::size_t i = 0; i < count; ++i) {
      if (i % kGroup == 0) text += ' ';
      text += kAlphabet[symbols[start + i]];
    }
    text += fmt::format("  {}\n", check_of(line, &symbols[start], count));
  }
  return text;
}

std::string to_qr_text(ByteView bytes) { return std::string(kQrPrefix) + to_base32(bytes); }

Bytes parse_recovery_text(std::string_view text, std::string_view what) {
  if (text.size() > limits::kRecoveryTextBytesMax) fail(what, "is too large");
  const std::size_t start = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  text.remove_prefix(start);
  if (starts_with_any_case(text, kQrPrefix)) {
    return to_bytes(read_qr(text.substr(kQrPrefix.size()), what), what);
  }
  return to_bytes(read_lines(text, what), what);
}

}  // namespace lukskeep::nbde
