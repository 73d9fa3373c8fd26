#include "keys/keyring.h"

#include <cerrno>
#include <system_error>

#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::keys {
namespace {

// The kernel's limit for keys of type "user".
constexpr std::size_t kKernelKeyBytesMax = 32767;

[[noreturn]] void fail(const std::string& name, int error) {
  Code code = Code::kIo;
  std::string_view hint;
  if (error == ENOKEY) {
    code = Code::kNotFound;
    hint = "put it there: keyctl padd user NAME @u < FILE";
  }
  if (error == EACCES || error == EKEYEXPIRED || error == EKEYREVOKED || error == EPERM) {
    code = Code::kPermissionDenied;
  }
  if (error == ENOSYS) code = Code::kUnsupported;
  throw Error(code,
              fmt::format("key '{}' of the kernel's keyrings: {}", printable(name, 128),
                          std::generic_category().message(error)),
              std::string(hint));
}

}  // namespace

SecretBytes read_keyring(const std::string& name) {
  const long serial = syscall(SYS_request_key, "user", name.c_str(), nullptr, 0);
  if (serial < 0) fail(name, errno);
  SecretBytes bytes(kKernelKeyBytesMax);
  const long size = syscall(SYS_keyctl, KEYCTL_READ, serial, bytes.data(), bytes.size());
  if (size < 0) fail(name, errno);
  if (static_cast<std::size_t>(size) > bytes.size()) fail(name, EFBIG);
  bytes.truncate(static_cast<std::size_t>(size));
  return bytes;
}

}  // namespace lukskeep::keys
