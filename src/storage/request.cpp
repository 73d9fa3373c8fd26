#include "storage/request.h"

#include <cctype>
#include <cerrno>
#include <system_error>

#include <fmt/format.h>

namespace lukskeep::storage {

std::string failed_request(const Device& device, std::string_view verb, const Range& range) {
  return fmt::format("cannot {} {} bytes at offset {} of '{}'", verb, range.length_bytes,
                     range.offset_bytes, device.name());
}

void check_range(const Device& device, std::string_view verb, const Range& range) {
  const std::uint64_t size_bytes = device.size_bytes();
  if (range.offset_bytes <= size_bytes && range.length_bytes <= size_bytes - range.offset_bytes) {
    return;
  }
  throw Error(Code::kTooSmall, fmt::format("{}: it has only {} bytes",
                                           failed_request(device, verb, range), size_bytes));
}

void check_change(const Device& device, std::string_view verb, const Range& range) {
  if (!device.writable()) {
    throw Error(Code::kReadOnly,
                fmt::format("{}: it is read-only", failed_request(device, verb, range)));
  }
  check_range(device, verb, range);
}

bool ends_everything(const Error& error) noexcept {
  return error.code() == Code::kInterrupted || error.code() == Code::kOutOfMemory ||
         error.code() == Code::kRemote || error.code() == Code::kTimeout;
}

Code code_of_errno(int error) noexcept {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ENXIO:
    case ENODEV:
      return Code::kNotFound;
    case EACCES:
    case EPERM:
      return Code::kPermissionDenied;
    case EROFS:
      return Code::kReadOnly;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Code::kNoSpace;
    case EEXIST:
      return Code::kExists;
    case EBUSY:
    case ETXTBSY:
    case EAGAIN:
      return Code::kBusy;
    case ENOMEM:
      return Code::kOutOfMemory;
    case EISDIR:
    case EOPNOTSUPP:
    case ENOSYS:
      return Code::kUnsupported;
    default:
      return Code::kIo;
  }
}

std::string errno_text(int error) {
  std::string text = std::generic_category().message(error);
  if (!text.empty()) {
    text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  }
  return text;
}

void throw_errno(int error, std::string_view what) {
  throw Error(code_of_errno(error), fmt::format("{}: {}", what, errno_text(error)));
}

}  // namespace lukskeep::storage
