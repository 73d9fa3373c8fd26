// Files that are in memory only, to hand bytes to another process by descriptor.
#pragma once

#include "base/bytes.h"
#include "storage/unique_fd.h"

namespace lukskeep::storage {

// Holds `contents` and stands at its start; closed on exec. As swappable as any memory of the
// kernel's. Throws Error: kOutOfMemory, kNoSpace, kIo.
UniqueFd memory_file(ByteView contents);

}  // namespace lukskeep::storage
