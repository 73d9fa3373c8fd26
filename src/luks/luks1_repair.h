// LUKS1 headers that are damaged in fields whose right values are known.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <lukskeep/device.h>

#include "base/bytes.h"
#include "luks/luks1_codec.h"

namespace lukskeep::luks {

struct Luks1Repair {
  Bytes header;                      // kLuks1HeaderBytes that decode_luks1 accepts
  std::vector<std::string> changes;  // what was written anew, one sentence each; never empty
};

// Mends magic and version, stripes, the offsets of keyslots (as all programs lay them out) and an
// unreadable UUID. Salts, digests, iterations and ciphers cannot be known: absent if one of those
// is unusable, or if nothing says that `damaged` was a LUKS1 header (cipher and hash have to be
// known ones). Pure.
std::optional<Luks1Repair> mend_luks1(ByteView damaged);

// Writes it over `damaged`, which is what the start of `device` held when it was mended; durable
// and read back when it returns. Throws kConflict if the device holds something else by now,
// kReadOnly, kIo.
void write_mended(Device& device, ByteView damaged, const Luks1Repair& repair);

}  // namespace lukskeep::luks
