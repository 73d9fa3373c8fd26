// What only the archive and the system know about a restore: whether this is the disk that the
// header was taken from, who uses it, and which keys were there last.
#pragma once

#include <string>
#include <vector>

#include "archive/snapshot.h"
#include "luks/header_backup.h"

namespace lukskeep::archive {

// Objects (kDevice, kSize) if `target` is not the device of the snapshot, as far as both are known.
void compare_device(luks::RestorePlan& plan, const DeviceIdentity& snapshot,
                    const DeviceIdentity& target);

// For a target whose header cannot be read: `newest` is the last one that is known of it. Marks as
// revived what the plan brings back that it did not have, and objects (kOlder) if it is newer.
void compare_newest(luks::RestorePlan& plan, const Manifest& newest);

// Objects (kInUse) if somebody uses one of `paths`: see users_of().
void object_to_users(luks::RestorePlan& plan, const std::vector<std::string>& paths);

}  // namespace lukskeep::archive
