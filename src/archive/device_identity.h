// What tells a disk from another: serial number and world wide name, as the kernel knows them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "archive/snapshot.h"

namespace lukskeep::archive {

// Absolute, without symbolic links as far as there are any; `path` itself where that fails.
std::string absolute_path(const std::string& path);

// Who uses the block device or file at `path`, fit for messages: mappings and RAIDs on it or on a
// partition of it, file systems mounted from it, loop devices made of a file. Empty if nobody is
// known to. `root` stands for "/", for tests. Never throws for what is not there.
std::vector<std::string> users_of(const std::string& path, const std::string& root = "/");

// Reads sysfs for a block device (of a partition, its disk). Never throws for what is not there.
DeviceIdentity identify_device(const std::string& path, std::uint64_t size_bytes);

}  // namespace lukskeep::archive
