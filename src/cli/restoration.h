// Putting a header over what is there: what restore, repair and attach have in common.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include <lukskeep/device.h>

#include "archive/store.h"
#include "cli/archive_args.h"
#include "cli/options.h"
#include "cli/session.h"
#include "cli/volume_access.h"
#include "luks/header_backup.h"

namespace lukskeep::cli {

// --allow, --kill-revived, --key with its limits, --store, --identity.
struct RestoreArgs {
  std::set<luks::RestoreRisk> allowed;
  bool kill_revived = false;
  KeyArgs key{.key = {}};
  StoreArgs store;
  IdentityArgs identity;

  void declare(Options& options);
};

// A header that is to be put back, and where it comes from.
struct RestoreSource {
  std::shared_ptr<Device> backup;
  std::string name;                           // as the user names it
  std::optional<archive::Manifest> manifest;  // of a snapshot
};

// Opens a snapshot of `store`. Throws what the store throws.
RestoreSource open_snapshot(const Session& session, archive::Store& store,
                            const archive::Entry& entry, const IdentityArgs& identity);

// Puts `source` over the header of `volume`. Throws Error{kUnsafe}, before anything is written,
// unless each objection is allowed by its name.
void restore_to(const Session& session, const VolumeArgs& volume, const RestoreArgs& args,
                const RestoreSource& source);

}  // namespace lukskeep::cli
