// What speaks against a LUKS header from a stranger.
#pragma once

#include <lukskeep/header.h>

#include "base/bytes.h"
#include "image/probe.h"

namespace lukskeep::image {

// Adds what the policy "untrusted" does not allow, under the names of our findings.
void judge_luks(const luks::Header& header, Match& match);

// Decodes and judges a LUKS1 header (at least luks::kLuks1HeaderBytes). Absent if it is damaged,
// which is a finding as well.
std::optional<luks::Header> judge_luks1(ByteView bytes, Match& match);

}  // namespace lukskeep::image
