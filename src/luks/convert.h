// Headers that change their version or their geometry, in place and without losing a passphrase to
// a power cut.
//
// No journal is needed: what is in the way of the new metadata is moved first, in commits of their
// own; then the new metadata goes to free room, and HeaderFile::commit makes it count.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "luks/header_file.h"

namespace lukskeep::luks {

// Everything that forbids to make `file` a header of `target`, one sentence each with the remedy
// where there is one. Empty: convert_header() will do it. Needs no key and writes nothing.
std::vector<std::string> conversion_obstacles(const HeaderFile& file, Version target);

// LUKS1 to LUKS2 or back, with the same UUID, keyslots and payload. Throws kUnsupported naming all
// obstacles, and what commit throws.
void convert_header(HeaderFile& file, Version target);

struct HeaderGeometry {
  std::optional<std::uint64_t> metadata_size_bytes;  // of one copy; absent: as it is
  // Absent: what is left of the room that the header has.
  std::optional<std::uint64_t> keyslots_size_bytes;
};

// As conversion_obstacles, for resize_header(). LUKS2 only.
std::vector<std::string> resize_obstacles(const HeaderFile& file, const HeaderGeometry& geometry);

// Changes the sizes of metadata and keyslots area. Keyslots that are in the way are moved; the
// payload never is. Throws kUnsupported naming all obstacles, and what commit throws.
void resize_header(HeaderFile& file, const HeaderGeometry& geometry);

// Bytes that belong to the header if it grows: to the start of the payload, or to the end of the
// device of a detached header.
std::uint64_t header_room_bytes(const HeaderFile& file);

}  // namespace lukskeep::luks
