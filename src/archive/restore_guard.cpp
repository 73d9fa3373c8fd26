#include "archive/restore_guard.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "archive/device_identity.h"
#include "base/bytes.h"

namespace lukskeep::archive {

using luks::RestoreRisk;

void compare_device(luks::RestorePlan& plan, const DeviceIdentity& snapshot,
                    const DeviceIdentity& target) {
  const auto compare = [&](std::string_view noun, const std::string& then, const std::string& now) {
    if (then == now || then.empty() || now.empty()) return;
    plan.objections.push_back(
        {.risk = RestoreRisk::kDevice,
         .text = fmt::format("the snapshot is of a device with the {} {}, this one has {}", noun,
                             printable(then), printable(now))});
  };
  compare("serial number", snapshot.serial, target.serial);
  compare("world wide name", snapshot.wwn, target.wwn);
  if (snapshot.size_bytes != target.size_bytes) {
    plan.objections.push_back(
        {.risk = RestoreRisk::kSize,
         .text = fmt::format("the snapshot is of a device of {} bytes, this one has {}",
                             snapshot.size_bytes, target.size_bytes)});
  }
}

void compare_newest(luks::RestorePlan& plan, const Manifest& newest) {
  std::set<std::string> known;
  for (const SnapshotKey& key : newest.keyslots) known.insert(key.fingerprint);
  for (const SnapshotKey& key : describe_keyslots(plan.from_backup)) {
    if (!known.contains(key.fingerprint)) plan.revived.insert(key.number);
  }
  const unsigned version = plan.from_backup.version == luks::Version::kLuks1 ? 1 : 2;
  if (newest.version == version && newest.sequence_id > plan.from_backup.sequence_id) {
    plan.objections.push_back(
        {.risk = RestoreRisk::kOlder,
         .text = fmt::format("the archive has a newer header of this volume (sequence id {} "
                             "against {})",
                             newest.sequence_id, plan.from_backup.sequence_id)});
  }
}

void object_to_users(luks::RestorePlan& plan, const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    const std::vector<std::string> users = users_of(path);
    if (users.empty()) continue;
    plan.objections.push_back({.risk = RestoreRisk::kInUse,
                               .text = fmt::format("'{}' is in use by {}", printable(path, 256),
                                                   fmt::join(users, ", "))});
  }
}

}  // namespace lukskeep::archive
