// The JSON area of LUKS2 to and from luks::Header, and the rules between its objects. Internal to
// the LUKS2 codec; luks2_codec.h is what others include.
#pragma once

#include <string_view>

#include <lukskeep/header.h>

namespace lukskeep::luks {

// Fills in keyslots, segments, digests, tokens, config and unknown members of `header` from the
// JSON `text`. Checks each object on its own; check_luks2_rules checks them against each other.
// Throws Error{kDamaged} starting with `what`.
void decode_luks2_json(std::string_view text, std::string_view what, Header& header);

// The rules between objects, and those of sizes and strings outside of the JSON. Throws
// Error{kDamaged} starting with `what`.
void check_luks2_rules(const Header& header, std::string_view what);

}  // namespace lukskeep::luks
