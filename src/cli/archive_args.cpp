#include "cli/archive_args.h"

#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/keeper.h"
#include "base/bytes.h"
#include "cli/key_manager_args.h"
#include "keys/key_source.h"

namespace lukskeep::cli {

namespace fs = std::filesystem;

std::optional<fs::path> user_folder(const char* variable, const char* fallback) {
  if (const char* value = std::getenv(variable); value != nullptr && *value == '/') return value;
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/' || std::string_view(home) == "/") return std::nullopt;
  // "/nonexistent" is what Debian gives to users of services.
  std::error_code ignored;
  if (!fs::is_directory(home, ignored)) return std::nullopt;
  return fs::path(home) / fallback;
}

std::optional<std::string> default_store() {
  if (const char* value = std::getenv("LUKSKEEP_ARCHIVE"); value != nullptr && *value != '\0') {
    if (std::string_view(value) == "off") return std::nullopt;
    return value;
  }
  if (geteuid() == 0) return "/var/lib/lukskeep/archive";
  const auto folder = user_folder("XDG_DATA_HOME", ".local/share");
  if (!folder) return std::nullopt;
  return (*folder / "lukskeep/archive").string();
}

std::string default_identity() {
  if (const char* value = std::getenv("LUKSKEEP_ARCHIVE_KEY"); value != nullptr && *value != '\0') {
    return value;
  }
  if (geteuid() == 0) return "/etc/lukskeep/archive-key";
  const auto folder = user_folder("XDG_CONFIG_HOME", ".config");
  if (!folder) {
    throw Error(Code::kUsage, "this user has no home directory for the key of the archive",
                "name a file in LUKSKEEP_ARCHIVE_KEY");
  }
  return (*folder / "lukskeep/archive-key").string();
}

void tell_of_new_archive(const Session& session, const std::string& directory,
                         const std::string& identity_path) {
  if (session.quiet) return;
  warn(
      fmt::format("headers are archived in '{}', which is new; only the key '{}' opens the "
                  "archive: keep a copy of it somewhere else",
                  printable(directory, 256), printable(identity_path, 256)));
}

archive::Store open_or_make_archive(const Session& session, const std::string& directory) {
  std::optional<std::string> made_with;
  // At once: what follows may fail, and nobody would be told a second time.
  const auto tell = [&] {
    if (made_with) tell_of_new_archive(session, directory, *made_with);
  };
  try {
    archive::Store store = archive::open_or_make(directory, default_identity, made_with);
    tell();
    warn_of_problems(store);
    return store;
  } catch (...) {
    tell();
    throw;
  }
}

void StoreArgs::declare(Options& options) {
  options.add({.name = "--store",
               .value = "DIR",
               .help = "the archive (default: LUKSKEEP_ARCHIVE, or the user's own)"},
              directory);
}

std::string StoreArgs::chosen() const {
  if (!directory.empty()) return directory;
  if (auto found = default_store()) return *found;
  throw Error(Code::kUsage,
              "no archive is named: LUKSKEEP_ARCHIVE is off, or this user has no home directory",
              "name one with --store");
}

void warn_of_problems(const archive::Store& store) {
  for (const std::string& problem : store.problems()) warn(problem);
}

archive::Store StoreArgs::open() const {
  archive::Store store(chosen());
  warn_of_problems(store);
  return store;
}

void IdentityArgs::declare(Options& options) {
  options.add(
      {.name = "--identity",
       .value = "SOURCE",
       .help = "the private key that opens snapshots: file:PATH, fd:N, manager:ID (default: "
               "the one that was made with the archive)"},
      source);
}

std::vector<archive::AgeIdentity> IdentityArgs::read(const Session& session) const {
  const std::string uri =
      source.empty()
          ? keys::to_string({.kind = keys::KeySource::Kind::kFile, .path = default_identity()})
          : source;
  const SecretBytes text = read_bytes_of(session, keys::parse_key_source(uri));
  return archive::parse_age_identities(text.span(), printable(uri, 256));
}

std::vector<archive::AgeIdentity> IdentityArgs::read_if_any(const Session& session) const {
  try {
    return read(session);
  } catch (const Error& error) {
    const bool absent = error.code() == Code::kNotFound || error.code() == Code::kUsage ||
                        error.code() == Code::kPermissionDenied;
    if (!source.empty() || !absent) throw;
    return {};
  }
}

}  // namespace lukskeep::cli
