// Plain copies of a header in the format of `cryptsetup luksHeaderBackup`: the header's bytes as
// they stand, from the start of the device to the end of the keyslots area.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/header.h>

#include "base/bytes.h"
#include "luks/header_file.h"

namespace lukskeep::luks {

// The bytes a backup file holds. Throws kDamaged if the device ends before its header does, or if
// one of two LUKS2 copies is not good (a backup must not preserve damage), unless `allow_damaged`.
Bytes backup_header(const HeaderFile& file, bool allow_damaged = false);

struct RestorePlan {
  Header from_backup;
  std::optional<Header> present;        // what the target holds now, if that is readable
  std::vector<std::string> objections;  // what makes it unsafe: other UUID, older, other geometry …
  std::vector<std::string> notes;       // what will change: keyslots and tokens that come or go
  Bytes bytes;                          // what is to stand at the start of the target …
  Bytes replaced;                       // … where this stands now
  bool secondary_first = false;         // LUKS2: the target's primary copy is the better one
};

// Reads and validates the backup and compares it with what `target` holds now. Writes nothing.
// Throws kNotLuks or kDamaged (the backup itself), kTooSmall (target, or a backup that is cut).
RestorePlan plan_restore(std::shared_ptr<Device> backup, const std::shared_ptr<Device>& target);

// Carries out a plan that was made for `target`: what the backup's keyslots need is written first,
// then each copy of the metadata by itself, then the rest; durable and read back when it returns.
// The caller has dealt with the objections. If power fails in the middle, the volume opens with the
// old header or the new one as long as a keyslot of either is untouched by the other; in any case
// doing it again completes it.
// Throws kConflict if the target is not what the plan saw, and kBusy, kReadOnly, kIo.
void restore_header(const RestorePlan& plan, Device& target);

}  // namespace lukskeep::luks
