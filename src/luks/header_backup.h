// Plain copies of a header in the format of `cryptsetup luksHeaderBackup`: the header's bytes as
// they stand, from the start of the device to the end of the keyslots area.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/header.h>

#include "base/bytes.h"
#include "luks/header_file.h"

namespace lukskeep::luks {

// The bytes a backup file holds.
Bytes backup_header(const HeaderFile& file);

struct RestorePlan {
  Header from_backup;
  std::vector<std::string> objections;  // what makes it unsafe: other UUID, older, other geometry …
};

// Reads and validates the backup, compares it with what `target` holds now. Throws kNotLuks or
// kDamaged (the backup itself), kTooSmall (target).
RestorePlan plan_restore(const Device& backup, const Device& target);

// Writes the backup over the header of `target`, durable when it returns: keyslot areas first, then
// the copies. The caller has dealt with the objections.
void restore_header(const Device& backup, Device& target);

}  // namespace lukskeep::luks
