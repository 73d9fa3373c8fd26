// Errors of system calls as this project's.
#pragma once

#include <string>
#include <system_error>

#include <fmt/format.h>

#include <lukskeep/error.h>

namespace lukskeep::archive {

[[noreturn]] inline void throw_system(const std::error_code& error, const std::string& what) {
  Code code = Code::kIo;
  if (error == std::errc::permission_denied || error == std::errc::operation_not_permitted) {
    code = Code::kPermissionDenied;
  } else if (error == std::errc::no_space_on_device) {
    code = Code::kNoSpace;
  } else if (error == std::errc::read_only_file_system) {
    code = Code::kReadOnly;
  } else if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) {
    code = Code::kNotFound;
  }
  throw Error(code, fmt::format("{}: {}", what, error.message()));
}

[[noreturn]] inline void throw_system(int error, const std::string& what) {
  throw_system(std::error_code(error, std::generic_category()), what);
}

}  // namespace lukskeep::archive
