// What an inspection can find, each by a stable name.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>

namespace lukskeep::image {

enum class Severity : std::uint8_t {
  kNote,    // worth knowing
  kUnsafe,  // the file is not to be used, unless somebody says that this is well
};

// "note", "unsafe".
std::string_view severity_name(Severity severity) noexcept;

struct FindingKind {
  std::string_view name;  // e.g. "qcow2-backing-file"; never changes
  Severity severity = Severity::kUnsafe;
  std::string_view remedy;  // what to do about it
};

// All of them, in the order of the manual.
std::span<const FindingKind> all_finding_kinds() noexcept;
// Null if there is none of that name.
const FindingKind* find_finding_kind(std::string_view name) noexcept;

struct Finding {
  std::string_view name;  // of its kind
  Severity severity = Severity::kUnsafe;
  std::string format;  // in which it was found, e.g. "qcow2"
  std::string what;    // one sentence without a full stop, fit for messages
  std::string_view remedy;
  bool allowed = false;  // of kUnsafe: its name is among those allowed

  bool dangerous() const noexcept { return severity == Severity::kUnsafe && !allowed; }
};

// Names of findings that do not count as unsafe.
using AllowList = std::set<std::string, std::less<>>;
// "NAME,NAME": throws Error{kUsage} naming one that is no finding's.
AllowList parse_allow_list(std::string_view text);

}  // namespace lukskeep::image
