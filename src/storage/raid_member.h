// Members of Linux' software RAID, known by the superblock that md leaves behind the data.
#pragma once

#include <lukskeep/device.h>

namespace lukskeep::storage {

// Whether md has marked the device as a member in one of the formats (0.90, 1.0) whose data starts
// at 0, so that a member of a mirror looks like the volume that the whole is. Reads less than 1
// KiB; what cannot be read counts as no mark.
bool is_raid_member(const Device& device);

}  // namespace lukskeep::storage
