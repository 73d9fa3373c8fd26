// Disks of a running virtual machine: given to it and taken from it over QMP.
//
// All that belongs to the disk ID is called lk.ID.*: the nodes lk.ID.payload (the file),
// lk.ID.header and lk.ID.raw (if the header is another file), lk.ID.luks, or lk.ID.nbd alone; the
// guest's device, or the export of a storage daemon, is called ID; lk.ID.server says that the
// daemon's NBD server was started for it. QEMU itself is the only record of what is attached.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "vm/qmp.h"

namespace lukskeep::vm {

struct DiskRequest {
  std::string id;  // see check_disk_id
  // Paths as QEMU's process opens them. `header` is empty unless it is another file.
  std::string payload;
  std::string header;
  ByteView passphrase;
  // Instead of these: a server of the decrypted contents, and the name of its export.
  std::string nbd_socket;
  std::string nbd_export;

  bool read_only = false;
  // A driver of QEMU's, "virtio-scsi" for a disk on a controller of its own, or of a storage daemon
  // "vhost-user-blk" or "nbd"; empty: the usual one.
  std::string device;
  std::string bus;            // empty: QEMU chooses
  std::string export_socket;  // where a storage daemon exports; may be empty for "nbd"
};

// Throws Error{kUsage} unless it is a letter followed by letters, digits, '-' and '_', 20
// characters at most: what guests see as serial number.
void check_disk_id(std::string_view id);
// The first of lukskeep0, lukskeep1 … that nothing is called.
std::string free_disk_id(Qmp& qmp);

// How the passphrase reached QEMU: kSealed needs a monitor that takes descriptors.
enum class KeyTransfer : std::uint8_t { kNone, kSealed, kPlain };

// All or nothing: what was done is undone when a step fails; what cannot be undone is named in the
// error. QEMU keeps no secret once the volume is open. Throws Error: kExists (the ID), kUnsupported
// (this QEMU is too old), kBusy (a storage daemon's NBD server runs already), kUsage, and what
// Qmp::execute throws.
KeyTransfer attach_disk(Qmp& qmp, const DiskRequest& request);

// Waits for the guest, at most `timeout_ms`. May be repeated until all is gone. Throws Error:
// kNotFound, kTimeout or kBusy (the guest keeps it), and what Qmp::execute throws. Returns the
// socket of a server of ours that decrypted for the disk and has not ended within
// `server_timeout_ms`, or before a signal: the volume is still unlocked and locked there. Otherwise
// empty.
std::string detach_disk(Qmp& qmp, const std::string& id, std::uint32_t timeout_ms,
                        std::uint32_t server_timeout_ms = 10'000);

struct AttachedDisk {
  std::string id;
  bool via_nbd = false;
  bool read_only = false;
  std::string payload;  // of an NBD server the export
  std::string header;   // empty: within the payload
  std::string device;   // the guest's driver or the kind of export; empty: none (any more)
};
// Ascending by ID.
std::vector<AttachedDisk> list_disks(Qmp& qmp);

}  // namespace lukskeep::vm
