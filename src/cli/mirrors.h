// The mirrors of an archive, as commands use them.
#pragma once

#include <string>

#include "archive/mirror.h"
#include "cli/session.h"

namespace lukskeep::cli {

// With the credentials of this user: LUKSKEEP_S3_CREDENTIALS, or lukskeep/s3-credentials where the
// key of the archive is too.
archive::MirrorOptions mirror_options(const Session& session);

// After a command that may have added to `store`: its mirrors get what is new, and all they lack if
// they were left behind before. What fails is a warning: the archive itself has it.
void settle_mirrors(const Session& session, archive::Store& store);

}  // namespace lukskeep::cli
