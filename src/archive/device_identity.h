// What tells a disk from another: serial number and world wide name, as the kernel knows them.
#pragma once

#include <cstdint>
#include <string>

#include "archive/snapshot.h"

namespace lukskeep::archive {

// Absolute, without symbolic links as far as there are any; `path` itself where that fails.
std::string absolute_path(const std::string& path);

// Reads sysfs for a block device (of a partition, its disk). Never throws for what is not there.
DeviceIdentity identify_device(const std::string& path, std::uint64_t size_bytes);

}  // namespace lukskeep::archive
