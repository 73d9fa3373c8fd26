// The locks that QEMU takes on image files (its block/file-posix.c, "permissions"): single bytes of
// open file description locks, one for each thing a program does, and one for each that it bears
// from nobody else. Such a lock is respected by every QEMU since 2.10, and respects them.
#pragma once

#include <lukskeep/device.h>

namespace lukskeep::storage {

// `device` is a file that was opened without a lock of its own; anything else, and a file system
// without locks, is passed over. The lock is held until the device is closed. For reading it keeps
// out who writes, for writing everybody who does not bear that. Throws Error{kBusy}.
void lock_image(Device& device, Access access);

}  // namespace lukskeep::storage
