// A snapshot small enough for narrow channels: what no keyslot uses is left out.
#pragma once

#include "archive/snapshot.h"

namespace lukskeep::archive {

// As capture, with zeroes for everything but metadata and keyslot areas: all that opens the volume,
// and the same content_id. Most of a header is unused room that was filled with noise, which no
// compression makes smaller. Of a header with a damaged copy nothing is left out. Throws what
// capture throws.
Capture capture_compact(const luks::HeaderFile& file, const std::string& path);

}  // namespace lukskeep::archive
