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
};

// Reads and validates the backup and compares it with what `target` holds now. Writes nothing.
// Throws kNotLuks or kDamaged (the backup itself), kTooSmall (target, or a backup that is cut).
RestorePlan plan_restore(std::shared_ptr<Device> backup, std::shared_ptr<Device> target);

// Writes the backup over the header of `target`: keyslot areas, then the metadata, durable and read
// back when it returns. The caller has dealt with the objections. If power fails in the middle,
// doing it again completes it: the backup is not touched.
void restore_header(std::shared_ptr<Device> backup, std::shared_ptr<Device> target);

}  // namespace lukskeep::luks
