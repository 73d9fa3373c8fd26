// A header for people and for programs; the JSON is the same for LUKS1 and LUKS2.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include <lukskeep/header.h>

#include "base/json.h"
#include "luks/header_file.h"

namespace lukskeep::cli {

// "LUKS1" or "LUKS2".
std::string_view version_name(luks::Version version);

// "prefer", "normal", "ignore" and back.
std::string_view priority_name(luks::Priority priority);
luks::Priority priority_of(std::string_view name);

// "a, b", fit for a terminal.
std::string printable_list(const std::set<std::string>& names);

// The parts that several commands print.
OrderedJson keyslots_json(const luks::Header& header);
OrderedJson tokens_json(const luks::Header& header);
std::string keyslots_text(const luks::Header& header);
std::string tokens_text(const luks::Header& header);

// What a header says, and what reading it found.
struct VolumeView {
  std::string name;  // as the user named it
  const luks::Header& header;
  const luks::ReadReport& report;
  std::optional<std::uint64_t> payload_size_bytes;  // absent: the payload's device is not known
  // LUKS in qcow2: the payload is in clusters all over the file. The header says that it starts
  // somewhere, which nobody reads.
  bool in_image = false;
};
OrderedJson info_json(const VolumeView& view);
std::string info_text(const VolumeView& view);

// {"type","uuid","cipher","key_bits","sector_size","payload_offset", …}: what identifies a volume.
OrderedJson summary_json(const luks::Header& header);
// "LUKS2, aes-xts-plain64 with a 512-bit key, 4096-byte sectors".
std::string summary_text(const luks::Header& header);

}  // namespace lukskeep::cli
