#include "crypto/gcrypt_init.h"

#include <mutex>

#include <gcrypt.h>

#include <lukskeep/error.h>

namespace lukskeep::crypto {
namespace {

void start() {
  // Another library of the process may have done it all already; its settings stay.
  if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P) != 0) return;
  if (gcry_check_version(GCRYPT_VERSION) == nullptr) {
    throw Error(Code::kUnsupported, "libgcrypt is older than " GCRYPT_VERSION,
                "install the libgcrypt that this program was built with, or a newer one");
  }
  gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
  gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
}

}  // namespace

void ensure_gcrypt() {
  static std::once_flag once;
  std::call_once(once, start);
}

}  // namespace lukskeep::crypto
