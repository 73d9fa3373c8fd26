// All keys of a Tang server with their states in one file: signed by its signing keys, and sealed
// to age recipients.
//
// Sealed is: one line with a JWS (general or flattened JSON) whose payload is the manifest
// {"format", "created","keys":[{"name","size","sha256","thumbprint"}]}, then the bytes of the key
// files one after the other. Hidden keys are those whose name starts with a dot.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "archive/age.h"
#include "server/tang_key_folder.h"

namespace lukskeep::server {

// Throws Error: kNotFound (no key that signs), kInvalidArgument (no recipients).
Bytes make_tang_backup(const std::vector<TangKeyFile>& keys,
                       std::span<const archive::AgeRecipient> recipients, std::int64_t now_s);

struct TangBackup {
  std::vector<TangKeyFile> keys;
  std::vector<std::string> signers;  // thumbprints of the keys that signed it: all that could
  std::int64_t created_s = 0;
};

// Checks every digest, and the signatures of all signing keys that are in it. Whose keys they are
// is for the caller to know. Throws Error: kWrongPassphrase (none of `identities` opens it),
// kDamaged naming `what`.
TangBackup read_tang_backup(ByteView sealed, std::span<const archive::AgeIdentity> identities,
                            std::string_view what);

}  // namespace lukskeep::server
