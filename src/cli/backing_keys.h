// --backing-key: the keys of encrypted files that a qcow2 image names as its backing files.
#pragma once

#include <vector>

#include <lukskeep/secret_bytes.h>

#include "cli/session.h"

namespace lukskeep::cli {

// From now on open_device and the like open encrypted backing files with the keys that are given,
// if any are. The first is that of the first encrypted one below the image itself, the last that of
// all further ones; no other key is tried on files that an image names. Each file is asked for its
// key once, however often it is opened. `session` must outlive all that is opened. Throws
// Error{kUsage} for keys without --allow-backing, or sources that are none.
void use_backing_keys(const Session& session);

// The volume keys of the encrypted backing files of the image that was opened last, from the top,
// for another process that opens it; none if nothing has such files since this was called last.
std::vector<SecretBytes> take_backing_volume_keys();

}  // namespace lukskeep::cli
