// The LUKS1 header (LUKS1 §3.1, "phdr") to and from luks::Header. Pure: no I/O, no clock, no keys.
#pragma once

#include <cstddef>
#include <string_view>

#include <lukskeep/header.h>

#include "base/bytes.h"

namespace lukskeep::luks {

inline constexpr std::size_t kLuks1HeaderBytes = 592;
inline constexpr std::size_t kLuks1KeyslotsOffsetBytes = 4096;

// Decodes the first kLuks1HeaderBytes of `bytes` and checks every rule: strings terminated, UUID,
// stripes 4000, iterations of active keyslots and digest not 0, key size, keyslot states, areas
// that overlap neither each other, nor the header, nor (payload offset not 0) the payload. Offsets
// of legacy 1.0 images, unaligned but sound, are accepted. Names of ciphers and hashes are not
// judged here: an unknown one is readable, only not usable.
// Throws Error: kNotLuks (magic), kUnsupported (version), kDamaged (everything else); messages
// start with `what` and name the field and its value.
Header decode_luks1(ByteView bytes, std::string_view what);

// kLuks1HeaderBytes, what decode_luks1 makes `header` of. Throws kInvalidArgument for what LUKS1
// cannot hold, naming it.
Bytes encode_luks1(const Header& header);

}  // namespace lukskeep::luks
