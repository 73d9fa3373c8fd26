// The one exception type of LuksKeep.
//
// Callers branch on `code()`, never on text. `what()` is one lower-case sentence that names the
// object; `hint()` says what to do about it and may be empty. What is expected (a passphrase that
// opens no keyslot, a record that is absent) is a value, not an Error.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>

#include <lukskeep/export.h>

namespace lukskeep {

enum class Code : std::uint8_t {
  kUsage,             // the command line does not make sense
  kInvalidArgument,   // a parameter is out of its range or contradicts another
  kNotFound,          // the file, keyslot, token or record is not there
  kWrongPassphrase,   // no keyslot opens with what was given
  kPermissionDenied,  // the system refuses access
  kOutOfMemory,       // memory, or the memory a KDF asks for, is not to be had
  kNotLuks,           // no LUKS header found
  kDamaged,           // a header or payload is inconsistent
  kUnsupported,       // valid, but not something this program can do
  kTooSmall,          // the device ends before what it must hold
  kReadOnly,          // the device cannot be written
  kIo,                // the system failed to read or write
  kNoSpace,           // the storage is full
  kExists,            // something that must not be overwritten is there
  kBusy,              // somebody else holds the device
  kConflict,          // the header changed under us (sequence id)
  kUnsafe,            // refused: allowed only when spelt out
  kKdfLimit,          // a keyslot costs more than the limit in force
  kLastKeyslot,       // would leave no usable keyslot
  kNoFreeKeyslot,     // all keyslots, or the room for them, are taken
  kRemote,            // a remote service failed or answered nonsense
  kTimeout,           // a time limit ran out
  kInterrupted,       // cancelled by the caller or a signal
  kInternal,          // a fault of this program
};

// Stable lower-case name, e.g. "wrong-passphrase"; used in JSON.
LUKSKEEP_API std::string_view code_name(Code code) noexcept;

// The one table of meanings: process exit status, HTTP status and NBD errno (a Linux errno).
LUKSKEEP_API int exit_status(Code code) noexcept;
LUKSKEEP_API int http_status(Code code) noexcept;
LUKSKEEP_API int nbd_errno(Code code) noexcept;

class LUKSKEEP_API Error : public std::exception {
 public:
  explicit Error(Code code, std::string message, std::string hint = {});

  Code code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  Code code_;
  std::string message_;
  std::string hint_;
};

}  // namespace lukskeep
