// A library that is loaded when something first needs it: start time, and an optional package.
#pragma once

#include <string>

namespace lukskeep {

class SharedLibrary {
 public:
  // `file` as dlopen takes it, e.g. "libnbd.so.0"; never unloaded. Throws Error{kUnsupported} with
  // `purpose` ("talks to NBD servers") and a hint to install `package`.
  SharedLibrary(const char* file, const char* purpose, const char* package);

  // Throws Error{kUnsupported} if the library is too old to have it.
  template <typename Function>
  void resolve(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(find(name));
  }

 private:
  void* find(const char* name) const;

  void* handle_;
  std::string file_;
  std::string package_;
};

}  // namespace lukskeep
