// The volume key of a running dm-crypt mapping, from the kernel's table.
//
// Source: Linux, include/uapi/linux/dm-ioctl.h; Documentation/admin-guide/device-mapper/
// dm-crypt.rst ("Parameters").
#pragma once

#include <string>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::storage {

// Asks the kernel for the table of the mapping `name`, as in /dev/mapper. Needs root. Throws Error:
// kNotFound (no such mapping, or no device-mapper), kPermissionDenied, kUnsupported (no dm-crypt
// mapping of one segment, or its key is in a keyring), kInvalidArgument (no name of a mapping).
SecretBytes read_mapping_key(const std::string& name);

// From the parameters of a "crypt" target: "CIPHER KEY IV_OFFSET DEVICE OFFSET …" with KEY in hex.
// Throws kUnsupported if the key is in a keyring (":SIZE:TYPE:NAME"), kDamaged for anything else
// that is no key; `name` is for the message.
SecretBytes parse_mapping_key(ByteView parameters, const std::string& name);

}  // namespace lukskeep::storage
