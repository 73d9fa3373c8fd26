// Random bytes for keys, salts and fillers, from the kernel (getrandom).
#pragma once

#include <cstddef>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::crypto {

// Fills `out`. Thread-safe. Throws Error{kIo} if the system gives no random bytes.
void random_fill(MutableBytes out);

Bytes random_bytes(std::size_t size_bytes);
SecretBytes random_secret(std::size_t size_bytes);

}  // namespace lukskeep::crypto
