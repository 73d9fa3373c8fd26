// What the commands of a Tang server have in common.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/options.h"
#include "nbde/ec_point.h"
#include "server/tang_key_folder.h"

namespace lukskeep::cli {

// --keys.
struct KeyFolderArgs {
  std::string path = "/var/db/tang";  // as tangd's package has it

  void declare(Options& options);
  server::TangKeyFolder folder() const { return server::TangKeyFolder(path); }
};

// --usage.
struct UsageArgs {
  std::optional<std::string> file;

  void declare(Options& options);
  // Absent with "none".
  std::optional<std::string> chosen(const KeyFolderArgs& keys) const;
};

// --curve.
struct CurveArgs {
  std::string name = "P-521";

  void declare(Options& options);
  nbde::Curve chosen() const { return nbde::find_curve(name).value_or(nbde::Curve::kP521); }
};

// "90s", "12h", "30d", or seconds. Throws Error{kUsage}.
std::int64_t parse_period_s(const std::string& text);
// "2026-01-31 23:59:59", UTC.
std::string time_text(std::int64_t seconds);
std::string state_name(const server::TangKeyFile& key);    // "advertised" or "hidden"
std::string purpose_name(const server::TangKeyFile& key);  // "signing", "exchange" or "other"

}  // namespace lukskeep::cli
