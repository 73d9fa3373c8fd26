// Bytes that are text most of the time (paths, labels, UUIDs) as the text that a manifest can hold.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lukskeep::archive {

// `bytes` as they are if they are UTF-8; else each byte that is not (and those of U+FFFD itself) as
// U+FFFD and two hex digits. Different bytes give different texts. Cut to `bytes_max` bytes first.
std::string manifest_text(std::string_view bytes, std::size_t bytes_max = 4096);

// The bytes of a text that manifest_text made. Of any other text: something harmless.
std::string manifest_bytes(std::string_view text);

}  // namespace lukskeep::archive
