// qcow2 images as devices: what the guest sees. The format is QEMU's docs/interop/qcow2.txt.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <lukskeep/device.h>

#include "storage/pending_device.h"

namespace lukskeep::storage {

using lukskeep::Access;

// An image that encrypts what is in it, cluster by cluster, with a header of its own: LUKS in qcow2
// (crypt_method 2). As a device it *is* the area of that header. What the guest sees is behind a
// cipher which storage does not know:
//
//     device with sectors()  ──cipher──►  decrypted  ──contents(decrypted)──►  the guest's disk
//
// Sectors are numbered by their place in the file, from 0, whatever they are to the guest.
class EncryptedImage : public Device {
 public:
  // The file with the encrypted clusters in it.
  virtual std::shared_ptr<Device> sectors() const = 0;
  // `decrypted` is sectors() behind the cipher. The result keeps both alive.
  virtual std::unique_ptr<Device> contents(std::shared_ptr<Device> decrypted) const = 0;
  // Of the guest's disk.
  virtual std::uint64_t contents_bytes() const = 0;
};

// Gives the contents of an encrypted backing file, with a key of its own; `above` counts the
// encrypted backing files above it in its chain. What it throws, opening throws.
using OpenEncrypted =
    std::function<std::unique_ptr<Device>(std::shared_ptr<Device> image, unsigned above)>;

struct Qcow2Options {
  Access access = Access::kRead;
  // Locks as QEMU does (its file-posix.c): readers keep writers out, writers everybody; throws
  // kBusy where QEMU or another of these has the image.
  bool lock = true;
  bool direct = false;  // as FileOptions::direct
  // Images name other files, which whoever made the image chose: they are read only if allowed.
  bool allow_backing = false;
  bool allow_data_file = false;
  // Absent: encrypted backing files are not read (kUnsupported).
  OpenEncrypted open_encrypted;
};

// The guest's disk in the image at `path`, or an EncryptedImage. Backing files are opened too, for
// reading, and theirs in turn; their format must be named, and they must be files. A raw one is
// data as it stands, whatever it looks like. Throws Error: what open_file throws; kUnsafe (backing
// or data file not allowed, or of no named format, or no plain path); kUnsupported, kDamaged as
// qcow2::Image; kBusy.
//
// The result may be used by many threads. Writing is safe against power cuts: what flush() was
// called for is there, and the image needs no repair. Images with internal snapshots, dirty bitmaps
// or a data file are not written (kUnsupported).
std::unique_ptr<Device> open_qcow2(const std::string& path, const Qcow2Options& options);

// The same on devices that are open already. `backing` and `data_file` are used if the image has
// such files, and must be there then (kUnsafe).
struct Qcow2Devices {
  std::shared_ptr<Device> file;
  std::shared_ptr<Device> backing;
  std::shared_ptr<Device> data_file;
  bool writable = false;
};
std::unique_ptr<Device> open_qcow2_on(Qcow2Devices devices);

struct Qcow2CreateOptions {
  std::uint64_t size_bytes = 0;  // of the guest's disk
  std::uint32_t cluster_bits = 16;
  std::uint32_t refcount_order = 4;
  bool extended_l2 = false;
  // Above 0: an EncryptedImage, with so much room for its header.
  std::uint64_t crypto_header_bytes = 0;
};

// Makes an empty image of version 3 of `file`, whose contents are lost; it must be able to grow, or
// be large enough. Throws kInvalidArgument for sizes that qcow2 cannot hold.
void format_qcow2(Device& file, const Qcow2CreateOptions& options);

// A new image that appears at `path` when it is whole (see PendingFile). Its device() is what
// open_qcow2 gives.
std::unique_ptr<PendingDevice> create_qcow2(const std::string& path,
                                            const Qcow2CreateOptions& options, bool replace,
                                            bool direct);

}  // namespace lukskeep::storage
