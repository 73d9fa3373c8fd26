#include "crypto/random.h"

#include <cerrno>
#include <system_error>

#include <sys/random.h>

#include <lukskeep/error.h>

namespace lukskeep::crypto {

void random_fill(MutableBytes out) {
  while (!out.empty()) {
    // Longer requests may come back short (getrandom(2)).
    const ssize_t got = getrandom(out.data(), out.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      throw Error(Code::kIo, "cannot get random bytes from the system: " +
                                 std::generic_category().message(errno));
    }
    out = out.subspan(static_cast<std::size_t>(got));
  }
}

Bytes random_bytes(std::size_t size_bytes) {
  Bytes bytes(size_bytes);
  random_fill(bytes);
  return bytes;
}

SecretBytes random_secret(std::size_t size_bytes) {
  SecretBytes secret(size_bytes);
  random_fill(secret.span());
  return secret;
}

}  // namespace lukskeep::crypto
