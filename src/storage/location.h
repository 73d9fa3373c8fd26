// Where a volume, a header or an image is, as users name it: a path, or a URI.
//
//   PATH                        a file or block device
//   nbd+unix:///EXPORT?socket=PATH, nbd://HOST:PORT/EXPORT, nbds+unix:…, nbds:…
//                               what an NBD server has
//   rbd:POOL/IMAGE[@SNAPSHOT]   an image in Ceph
//   qcow2:PATH                  what the guest of a qcow2 file sees
//
// A file whose name starts like a URI is named './nbd:…'.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <lukskeep/device.h>
#include <lukskeep/progress.h>

#include "storage/pending_device.h"
#include "storage/qcow2.h"

namespace lukskeep::storage {

using lukskeep::Access;

enum class Scheme : std::uint8_t { kFile, kNbd, kRbd, kQcow2 };

// How `location` starts says it; the rest may still be nonsense.
Scheme scheme_of(const std::string& location) noexcept;

// The file or block device on this machine that holds the data; absent for what is elsewhere.
std::optional<std::string> local_path(const std::string& location);

// The same place, named so that it stays the same when the current directory is another: paths are
// absolute and without symbolic links as far as there are any.
std::string absolute_location(const std::string& location);

// Whether both are known to be the same file, device, export or image, whatever they are called.
// Two names of one server cannot be told from two servers.
bool same_place(const std::string& a, const std::string& b);

struct OpenOptions {
  Access access = Access::kRead;
  // As FileOptions::lock. An NBD server knows no locks; an RBD image has an exclusive one.
  bool lock = true;
  // As in FileOptions, for files and block devices.
  std::uint64_t lock_from_bytes = 0;
  std::uint64_t lock_length_bytes = 0;
  // As FileOptions::direct; means nothing for what is not local.
  bool direct = false;
  // qcow2: may read the backing files that the image names.
  bool allow_backing = false;
  // qcow2: may read the data file that the image names.
  bool allow_data_file = false;
  OpenEncrypted open_encrypted;  // as Qcow2Options::open_encrypted
  // Waiting for a server ends with Error{kInterrupted} when it is cancelled. Must outlive the
  // device.
  const CancelToken* cancel = nullptr;
};

// Opens what is there. Throws what open_file, open_nbd and open_rbd throw.
std::unique_ptr<Device> open_location(const std::string& location, const OpenOptions& options);

enum class PathKind : std::uint8_t {
  kAbsent,
  kFile,    // replaced as a whole by what is made in its place
  kDevice,  // has a size of its own, and is written in place: a block device, export or image
};

// What is there now. Throws Error{kUnsupported} for a directory or anything else that holds no data
// of its own; kPermissionDenied, kNotFound or kIo for a path that cannot be looked at. An NBD
// export is not asked for.
PathKind kind_of(const std::string& location);

struct CreateOptions {
  std::uint64_t size_bytes = 0;
  bool replace = false;  // an existing file may be replaced by commit()
  bool direct = false;
  // qcow2: size_bytes is what the guest sees. Above 0: the device is a storage::EncryptedImage,
  // with so much room for its header.
  std::uint64_t crypto_header_bytes = 0;
};

// Makes a new volume where nothing is, or a file that may be replaced. Throws what PendingFile and
// create_rbd throw; Error{kUnsupported} for an NBD export, which only its server can make.
std::unique_ptr<PendingDevice> create_location(const std::string& location,
                                               const CreateOptions& options);

}  // namespace lukskeep::storage
