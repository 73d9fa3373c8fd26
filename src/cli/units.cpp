#include "cli/units.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>
#include <string>
#include <system_error>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"

namespace lukskeep::cli {
namespace {

constexpr std::string_view kUnitLetters = "KMGTPE";

[[noreturn]] void bad_text(std::string_view text, std::string_view what) {
  throw Error(Code::kUsage, fmt::format("'{}' is not {}", printable(text), what));
}

// The number at the start of `text`; the rest stays in `text`.
std::uint64_t take_number(std::string_view& text, std::string_view what) {
  const std::string_view whole = text;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) bad_text(whole, what);
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

// Bytes in `unit`, 0 if there is no such unit.
std::uint64_t unit_bytes(std::string_view unit) {
  std::string upper(unit);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (upper.empty() || upper == "B") return 1;
  const std::size_t power = kUnitLetters.find(upper[0]);
  if (power == std::string_view::npos) return 0;
  const std::string_view rest = std::string_view(upper).substr(1);
  if (!rest.empty() && rest != "IB" && rest != "B") return 0;
  const std::uint64_t base = rest == "B" ? 1000 : 1024;
  std::uint64_t bytes = 1;
  for (std::size_t i = 0; i <= power; ++i) bytes *= base;
  return bytes;
}

bool is_decimal(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isdigit(c) != 0; });
}

}  // namespace

std::uint64_t parse_size(std::string_view text) {
  constexpr std::string_view what = "a size (write e.g. 10G, 512M, 4KiB or plain bytes)";
  std::string_view rest = text;
  const std::uint64_t number = take_number(rest, what);
  const std::uint64_t unit = unit_bytes(rest);
  if (unit == 0) bad_text(text, what);
  if (number > std::numeric_limits<std::int64_t>::max() / unit) {
    bad_text(text, "a size that any storage has");
  }
  return number * unit;
}

std::uint32_t parse_memory_kib(std::string_view text) {
  const std::uint64_t kib = is_decimal(text) ? parse_size(text) : parse_size(text) / limits::kKiB;
  if (kib > std::numeric_limits<std::uint32_t>::max()) {
    bad_text(text, "an amount of memory below 4 TiB");
  }
  return static_cast<std::uint32_t>(kib);
}

std::uint32_t parse_number(std::string_view text) {
  constexpr std::string_view what = "a whole number from 0 to 4294967295";
  std::string_view rest = text;
  const std::uint64_t number = take_number(rest, what);
  if (!rest.empty() || number > std::numeric_limits<std::uint32_t>::max()) bad_text(text, what);
  return static_cast<std::uint32_t>(number);
}

crypto::KdfLimit parse_kdf_limit(std::string_view text) {
  crypto::KdfLimit limit;
  std::string_view rest = text;
  try {
    while (true) {
      const std::string_view item = rest.substr(0, rest.find(','));
      if (item.ends_with('s')) {
        limit.seconds_max = parse_number(item.substr(0, item.size() - 1));
      } else {
        // A number without unit could be either.
        limit.memory_kib_max = parse_memory_kib(is_decimal(item) ? std::string_view() : item);
      }
      if (item.size() == rest.size()) return limit;
      rest.remove_prefix(item.size() + 1);
    }
  } catch (const Error&) {
    bad_text(text, "a limit of seconds and memory such as 300s,4GiB");
  }
}

std::string human_size(std::uint64_t size_bytes) {
  if (size_bytes < limits::kKiB) {
    return fmt::format("{} byte{}", size_bytes, size_bytes == 1 ? "" : "s");
  }
  constexpr std::array<std::string_view, 6> units = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  std::uint64_t divisor = limits::kKiB;
  while (unit + 1 < units.size() && size_bytes / limits::kKiB >= divisor) {
    divisor *= limits::kKiB;
    ++unit;
  }
  // Tenths, cut rather than rounded: a size is never shown larger than it is.
  const std::uint64_t whole = size_bytes / divisor;
  const std::uint64_t tenths = (size_bytes % divisor) / (divisor / 1024) * 10 / 1024;
  if (tenths == 0 || whole >= 100) return fmt::format("{} {}", whole, units[unit]);
  return fmt::format("{}.{} {}", whole, tenths, units[unit]);
}

std::string exact_size(std::uint64_t size_bytes) {
  if (size_bytes < limits::kKiB) return human_size(size_bytes);
  return fmt::format("{} ({} bytes)", human_size(size_bytes), size_bytes);
}

std::string human_duration(std::uint64_t seconds) {
  const std::uint64_t hours = seconds / 3600;
  const std::uint64_t minutes = seconds / 60 % 60;
  if (hours == 0) return fmt::format("{}:{:02}", minutes, seconds % 60);
  return fmt::format("{}:{:02}:{:02}", hours, minutes, seconds % 60);
}

}  // namespace lukskeep::cli
