// Where this user's archive of headers is, and the options that say otherwise.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "archive/age.h"
#include "archive/store.h"
#include "cli/options.h"
#include "cli/session.h"

namespace lukskeep::cli {

// `variable` if it holds an absolute path, else `fallback` below the home directory. Absent for a
// user who has none: a folder that everybody can write to would let others choose what is used.
std::optional<std::filesystem::path> user_folder(const char* variable, const char* fallback);

// LUKSKEEP_ARCHIVE, else /var/lib/lukskeep/archive for root, else below XDG_DATA_HOME.
// "off" switches archiving by itself off: then absent, as for a user whose HOME is no directory.
std::optional<std::string> default_store();
// The private key that opens snapshots of a store that was made by itself:
// LUKSKEEP_ARCHIVE_KEY, else /etc/lukskeep/archive-key for root, else below XDG_CONFIG_HOME.
// Throws Error{kUsage} for a user without a home directory. Needed only where a store is made.
std::string default_identity();

// Says that the archive at `directory` is new, which nobody asked for by name, and that only the
// key at `identity_path` opens it. Nothing with --quiet.
void tell_of_new_archive(const Session& session, const std::string& directory,
                         const std::string& identity_path);
// The archive at `directory`; where there is none it is made with default_identity() and told of.
archive::Store open_or_make_archive(const Session& session, const std::string& directory);
// Warns of files that are no sound snapshots, if the catalogue had to be made anew on opening.
void warn_of_problems(const archive::Store& store);

// --store.
struct StoreArgs {
  std::string directory;

  void declare(Options& options);
  // Throws Error{kUsage} if there is none.
  std::string chosen() const;
  // With warn_of_problems().
  archive::Store open() const;
};

// --identity.
struct IdentityArgs {
  std::string source;

  void declare(Options& options);
  std::vector<archive::AgeIdentity> read(const Session& session) const;
  // None if it was not named and is not on this machine.
  std::vector<archive::AgeIdentity> read_if_any(const Session& session) const;
};

}  // namespace lukskeep::cli
