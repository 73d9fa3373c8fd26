// A volume's plain contents as a Device: the function everything else is built on.
//
//     (header, payload device, volume key)  ->  a plain block device
#pragma once

#include <cstdint>
#include <memory>

#include <lukskeep/device.h>
#include <lukskeep/header.h>

#include "base/bytes.h"

namespace lukskeep::luks {

struct ActivationOptions {
  bool allow_insecure = false;  // segments of cipher_null, or "linear" ones that are not encrypted
  bool writable = false;
  // Sectors stored as zeroes read as zeroes, holes of the payload show in extents(), and
  // write_zeroes(kPunch) makes some. Other programs read noise there (what zeroes decrypt to), and
  // anybody sees which sectors are in use. (An encrypted sector is all zero by chance once in
  // 2^4096.) Off: stored zeroes are data like any other, and extents() reports no holes.
  bool holes_as_zeroes = false;
};

// `key` is copied into round keys. Requests need no alignment; those not aligned to the sector
// size read, change and write whole sectors, guarded against each other. resize() works where the
// payload device can be resized and the last segment is dynamic.
// If `payload` is a storage::EncryptedImage, the result is what its guest sees; where the header
// says that the payload starts means nothing then.
// Throws Error: kUnsupported (requirements, integrity, unknown segments or ciphers: all named),
// kUnsafe (see options), kDamaged (segments that overlap), kTooSmall (payload ends before its
// segments).
std::unique_ptr<Device> make_crypt_device(const Header& header, std::shared_ptr<Device> payload,
                                          ByteView key, const ActivationOptions& options);

// Where the payload starts, and how large it is on a device of `device_size_bytes` (0 if that ends
// before the payload starts).
// Throws kUnsafe if the payload of `header`, read from `payload`, would start inside the header: a
// detached header is taken for a volume. To be called where both are one device.
void check_payload_apart(const Header& header, const Device& payload);

// Whether the key of `digest` opens what the volume holds now: a segment that is no backup of an
// earlier state, as a re-encryption keeps one.
bool opens_active_segment(const Header& header, const Digest& digest);

std::uint64_t payload_offset_bytes(const Header& header);
std::uint64_t payload_size_bytes(const Header& header, std::uint64_t device_size_bytes);

}  // namespace lukskeep::luks
