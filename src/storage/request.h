// What every device checks, and how it words its failures.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <lukskeep/device.h>
#include <lukskeep/error.h>

namespace lukskeep::storage {

struct Range {
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
};

// E.g. "cannot read 4096 bytes at offset 123 of 'x'"; `verb` as in "read", "write", "zero".
std::string failed_request(const Device& device, std::string_view verb, const Range& range);

// Throws kTooSmall if `range` leaves the device.
void check_range(const Device& device, std::string_view verb, const Range& range);
// As check_range, and throws kReadOnly if the device cannot be written.
void check_change(const Device& device, std::string_view verb, const Range& range);

// Whether `error` says nothing of the bytes that were asked for, so that reading others is no way
// out: interrupted, out of memory, or the server is not to be reached.
bool ends_everything(const Error& error) noexcept;

// The code for a Linux errno; kIo for those without a meaning of their own.
Code code_of_errno(int error) noexcept;
// "no space left on device"; from any thread.
std::string errno_text(int error);
// Throws Error{code_of_errno(error), "`what`: reason"}.
[[noreturn]] void throw_errno(int error, std::string_view what);

}  // namespace lukskeep::storage
