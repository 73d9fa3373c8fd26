// Where this user's archive of headers is, and the options that say otherwise.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "archive/age.h"
#include "archive/store.h"
#include "cli/options.h"
#include "cli/session.h"

namespace lukskeep::cli {

// LUKSKEEP_ARCHIVE, else /var/lib/lukskeep/archive for root, else below XDG_DATA_HOME.
// "off" switches archiving by itself off: then absent, as for a user without a home directory.
std::optional<std::string> default_store();
// The private key that opens snapshots of a store that was made by itself:
// LUKSKEEP_ARCHIVE_KEY, else /etc/lukskeep/archive-key for root, else below XDG_CONFIG_HOME.
// Throws Error{kUsage} for a user without a home directory.
std::string default_identity();

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
};

}  // namespace lukskeep::cli
