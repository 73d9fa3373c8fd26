// Who else has a block device, as sysfs tells.
#pragma once

#include <filesystem>
#include <string>

namespace lukskeep::storage {

// Whether anything but dm-crypt and its kin (verity, integrity) has the device, or the disk that it
// is a partition of: what looks like a volume there is a part of something else, a path of
// multipath or a member of a RAID. `device` is its folder in sysfs, or a link to that. True as well
// if there is no such folder: nobody knows then. Throws nothing.
bool is_part_of_another(const std::filesystem::path& device) noexcept;

// Whether anything has the device. False as well if nobody knows.
bool has_holders(const std::filesystem::path& device) noexcept;

// The folder of the block device of that name in /dev. Empty: it is none, or not there.
std::filesystem::path sysfs_folder(const std::string& path);

}  // namespace lukskeep::storage
