#include "cli/archive_place.h"

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include <unistd.h>

namespace lukskeep::cli {
namespace {

namespace fs = std::filesystem;

// `variable`, or `fallback` below the home directory, or the place of root.
fs::path user_folder(const char* variable, const char* fallback) {
  if (const char* value = std::getenv(variable); value != nullptr && *value == '/') return value;
  const char* home = std::getenv("HOME");
  return fs::path(home != nullptr && *home == '/' ? home : "/var/tmp") / fallback;
}

}  // namespace

std::optional<std::string> default_store() {
  if (const char* value = std::getenv("LUKSKEEP_ARCHIVE"); value != nullptr && *value != '\0') {
    if (std::string_view(value) == "off") return std::nullopt;
    return value;
  }
  if (geteuid() == 0) return "/var/lib/lukskeep/archive";
  return (user_folder("XDG_DATA_HOME", ".local/share") / "lukskeep/archive").string();
}

std::string default_identity() {
  if (const char* value = std::getenv("LUKSKEEP_ARCHIVE_KEY"); value != nullptr && *value != '\0') {
    return value;
  }
  if (geteuid() == 0) return "/etc/lukskeep/archive-key";
  return (user_folder("XDG_CONFIG_HOME", ".config") / "lukskeep/archive-key").string();
}

}  // namespace lukskeep::cli
