// What a plain payload looks like: proof that a header and a key belong to it.
#pragma once

#include <string>

#include <lukskeep/device.h>

namespace lukskeep::luks {

// The name of the file system, partition table or volume format whose magic stands where it belongs
// ("ext", "xfs", "btrfs", "gpt", "mbr", "lvm2", "swap", "ntfs", "iso9660", "luks", "qcow2"), or
// empty. A wrong key gives noise, in which a magic appears by chance once in 65 536 times (ext,
// mbr) or less. Reads a few hundred bytes. Throws what reading throws.
std::string probe_payload(const Device& plain);

}  // namespace lukskeep::luks
