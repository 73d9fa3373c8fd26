// A volume's plain contents as a Device: the function everything else is built on.
//
//     (header, payload device, volume key)  ->  a plain block device
#pragma once

#include <memory>

#include <lukskeep/device.h>
#include <lukskeep/header.h>

#include "base/bytes.h"

namespace lukskeep::luks {

struct ActivationOptions {
  bool allow_insecure = false;  // segments of cipher_null, or "linear" ones that are not encrypted
  bool writable = false;
};

// `key` is copied into round keys. Requests need no alignment; those not aligned to the sector
// size read, change and write whole sectors (guarded against each other). A hole of the payload
// is data here (it decrypts to noise), so extents() reports none as zero.
// Throws Error: kUnsupported (requirements, integrity, unknown segments or ciphers: all named),
// kUnsafe (see options), kDamaged (segments with gaps or overlaps), kTooSmall (payload ends before
// its segments).
std::unique_ptr<Device> make_crypt_device(const Header& header, std::shared_ptr<Device> payload,
                                          ByteView key, const ActivationOptions& options);

// Where the payload starts, and how large it is on a device of `device_size_bytes`.
std::uint64_t payload_offset_bytes(const Header& header);
std::uint64_t payload_size_bytes(const Header& header, std::uint64_t device_size_bytes);

}  // namespace lukskeep::luks
