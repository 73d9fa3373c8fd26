#include "cli/tang_args.h"

#include <charconv>
#include <filesystem>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::cli {

void KeyFolderArgs::declare(Options& options) {
  options.add({.name = "--keys",
               .value = "DIR",
               .help = "the folder of the server's keys (default: /var/db/tang)"},
              path);
}

void UsageArgs::declare(Options& options) {
  options.add({.name = "--usage",
               .value = "FILE",
               .help = "the record of who used which key (default: usage.sqlite among the keys)"},
              file);
}

std::optional<std::string> UsageArgs::chosen(const KeyFolderArgs& keys) const {
  if (!file) return (std::filesystem::path(keys.path) / "usage.sqlite").string();
  if (*file == "none") return std::nullopt;
  return file;
}

void CurveArgs::declare(Options& options) {
  options.add({.name = "--curve",
               .value = "CURVE",
               .help = "of the new keys (default: P-521)",
               .choices = {"P-256", "P-384", "P-521"}},
              name);
}

std::int64_t parse_period_s(const std::string& text) {
  std::uint32_t number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(stop, static_cast<std::size_t>(text.data() + text.size() - stop));
  if (error == std::errc()) {
    if (unit.empty() || unit == "s") return number;
    if (unit == "m") return std::int64_t{number} * 60;
    if (unit == "h") return std::int64_t{number} * 3600;
    if (unit == "d") return std::int64_t{number} * 86'400;
  }
  throw Error(Code::kUsage,
              fmt::format("'{}' is no period such as 90s, 12h or 30d", printable(text)));
}

std::string time_text(std::int64_t seconds) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

std::string state_name(const server::TangKeyFile& key) {
  return key.hidden ? "hidden" : "advertised";
}

std::string purpose_name(const server::TangKeyFile& key) {
  if (server::is_signing_key(key.key)) return "signing";
  return server::is_exchange_key(key.key) ? "exchange" : "other";
}

}  // namespace lukskeep::cli
