// One place that starts libgcrypt: only programs that use one of its algorithms pay for it.
#pragma once

namespace lukskeep::crypto {

// Must be called before any other libgcrypt function. Cheap after the first call; thread-safe.
// libgcrypt gets no secure memory (keys live in SecretBytes) and runs no self-tests.
// Throws Error{kUnsupported} if the library at run time is older than the headers.
void ensure_gcrypt();

}  // namespace lukskeep::crypto
