// Reading the key material of a keyslot and testing it for noise: where it is damaged or
// overwritten, without any key.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/progress.h>

#include "luks/header_file.h"

namespace lukskeep::luks {

// A stretch of bad blocks.
struct BadRange {
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
  bool unreadable = false;
  std::string is;  // what stands there (see noise.h), or why it cannot be read
};

struct MaterialCheck {
  std::vector<BadRange> ranges;  // by offset, neighbours joined
  std::uint64_t blocks = 0;      // of 512 bytes; the last may be shorter
  std::uint64_t bad_blocks = 0;
};

// Tests `range` of the device, which reaches no further than the device, in blocks of 512 and 4096
// bytes from its start, limits::kCheckPieceBytes at a time. What cannot be read is tried again in
// pages of 4096 bytes. `cancel` may be null. Throws kInterrupted.
MaterialCheck check_material(const Device& device, const AreaRange& range,
                             const CancelToken* cancel);

}  // namespace lukskeep::luks
