#include "base/shared_library.h"

#include <dlfcn.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

namespace lukskeep {

SharedLibrary::SharedLibrary(const char* file, const char* purpose, const char* package)
    // Its exit handlers may stand in it: it stays.
    : handle_(dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)), file_(file), package_(package) {
  if (handle_ == nullptr) {
    throw Error(Code::kUnsupported, fmt::format("cannot load {}, which {}", file, purpose),
                fmt::format("install the package {}", package));
  }
}

void* SharedLibrary::find(const char* name) const {
  void* const function = dlsym(handle_, name);
  if (function == nullptr) {
    throw Error(Code::kUnsupported, fmt::format("{} has no function {}", file_, name),
                fmt::format("install a newer {}", package_));
  }
  return function;
}

}  // namespace lukskeep
