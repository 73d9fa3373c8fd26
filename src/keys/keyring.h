// Keys of the kernel's keyrings, of type "user": what `keyctl padd user NAME @u` puts there.
#pragma once

#include <string>

#include <lukskeep/secret_bytes.h>

namespace lukskeep::keys {

// Looks where the kernel does: thread, process, session and user keyring. Throws Error: kNotFound,
// kPermissionDenied (also for a key that expired or was revoked), kUnsupported (no keyrings here),
// kInvalidArgument (larger than a kernel key may be).
SecretBytes read_keyring(const std::string& name);

}  // namespace lukskeep::keys
