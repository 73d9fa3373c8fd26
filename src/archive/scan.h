// Finding the LUKS volumes of a machine.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <lukskeep/progress.h>

#include "luks/header_file.h"

namespace lukskeep::archive {

struct ScanReport {
  std::size_t looked_at = 0;
  std::size_t unreadable = 0;  // files, folders and devices that could not be read
  // Devices with a header that are members of a RAID which is not assembled: the volume is on the
  // whole, and a change of one alone would make the others differ.
  std::vector<std::string> members;
};

// Calls `found` for each header below `root` (a folder, whose symbolic links are not followed and
// whose other file systems are entered; or one file or block device), in the order of the names.
// Reads of other files no more than their first bytes and the places of LUKS2's second copy. What
// cannot be read is counted and passed over. Throws kNotFound (no `root`), kInterrupted, and what
// `found` throws.
ScanReport scan(const std::string& root,
                const std::function<void(const luks::HeaderFile&, const std::string& path)>& found,
                const CancelToken* cancel);

// The same for the block devices of this machine. Those that are a part of another (a path of
// multipath, a member of a RAID) are passed over, and so are drives without a medium; members of a
// RAID that is not assembled are noted. A device
// without a name in /dev cannot be read.
ScanReport scan_block_devices(
    const std::function<void(const luks::HeaderFile&, const std::string& path)>& found,
    const CancelToken* cancel);

}  // namespace lukskeep::archive
