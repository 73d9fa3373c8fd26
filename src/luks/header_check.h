// Looking for damage and weakness in a header, without any key: what is wrong, where, and what to
// do about it. Nothing is decrypted and nothing written.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/error.h>
#include <lukskeep/header.h>
#include <lukskeep/progress.h>

#include "luks/header_file.h"

namespace lukskeep::luks {

// A note needs nothing done. A warning is a weakness, or what may do harm later. An error is
// damage: something is lost already, or does not work.
enum class Severity : std::uint8_t { kNote, kWarning, kError };

// "note", "warning", "error".
std::string_view severity_name(Severity severity) noexcept;

struct Finding {
  Severity severity = Severity::kNote;
  std::string code;    // which check found it; stable, e.g. "keyslot-not-random"
  std::string object;  // "header", "keyslot 3", "segment 0", "payload", …; fit for messages
  // Bytes on the header's device; of "payload" and segments on the payload's.
  std::optional<std::uint64_t> offset_bytes;
  std::uint64_t size_bytes = 0;  // 0 without an offset
  std::string problem;           // one sentence, as a message
  std::string advice;            // what to do; may be empty
};

// What stands where on the header's device, by offset and without gaps.
struct LayoutPart {
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
  std::string name;  // "primary", "secondary", "header", "keyslot 0", "unused", "payload"
};

struct KeyslotCheck {
  int keyslot = 0;
  std::uint64_t blocks = 0;      // of 512 bytes that were read and tested
  std::uint64_t bad_blocks = 0;  // of those, or unreadable
  // See guess_rate.h; absent if the KDF is unknown.
  std::optional<double> guesses_per_second;
};

struct HeaderCheck {
  std::vector<Finding> findings;  // the worst first, then by place
  std::vector<LayoutPart> layout;
  std::vector<KeyslotCheck> keyslots;  // those that hold a key
};

struct CheckOptions {
  // Where the payload is. Null: behind the header on the same device.
  std::shared_ptr<Device> payload;
  const CancelToken* cancel = nullptr;
};

// Reads all areas of active keyslots (at most 128 MiB, 64 KiB at a time) and little else. At most
// limits::kCheckRangesMax places are listed for one keyslot. Throws kInterrupted; what cannot be
// read is a finding.
HeaderCheck check_header(const HeaderFile& file, const CheckOptions& options);

// For a header that HeaderFile::open refused with `why`: that, and what overwrote it.
HeaderCheck check_broken_header(const Device& device, const Error& why);

// The part of check_header that needs no device: settings that make the volume weak, and parts that
// do not fit together. `payload_size_bytes` if it is known. Pure.
std::vector<Finding> check_settings(const Header& header,
                                    std::optional<std::uint64_t> payload_size_bytes);

}  // namespace lukskeep::luks
