// Regular files and block devices.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <lukskeep/device.h>

#include "storage/pending_device.h"

namespace lukskeep::storage {

using lukskeep::Access;

struct FileOptions {
  Access access = Access::kRead;
  // kReadWrite only: take an exclusive lock (open file description lock on regular files, O_EXCL
  // on block devices) and throw kBusy if somebody else holds one. Readers take a shared one.
  bool lock = true;
  // Regular files only: the bytes that are locked; what is apart from them others may change. A
  // length of 0 goes on without end.
  std::uint64_t lock_from_bytes = 0;
  std::uint64_t lock_length_bytes = 0;
  // Past the page cache (O_DIRECT) where the file system can and for the part of a request that is
  // aligned to 4096 bytes in the file and in memory; the rest goes the usual way.
  bool direct = false;
};

// Opens `path`, which must be a regular file or a block device. Throws Error: kNotFound,
// kPermissionDenied, kReadOnly, kBusy, kUnsupported (a directory, pipe, character device), kIo.
std::unique_ptr<Device> open_file(const std::string& path, const FileOptions& options);

// Creates `path` with O_EXCL, mode 0600 and `size_bytes` (sparse); throws kExists if it is there.
std::unique_ptr<Device> create_file(const std::string& path, std::uint64_t size_bytes);

// Whether another program is changing the header at `path` right now: holds the lock of
// Device::lock_metadata. Does not wait, writes nothing; false where that cannot be found out.
bool is_metadata_locked(const std::string& path);

// A new file that appears under its final name only when it is whole: written under a temporary
// name in the same directory, and gone if the object dies before commit(). Where O_TMPFILE is not
// to be had, a dot-name with a random part.
class PendingFile final : public PendingDevice {
 public:
  // Throws as create_file. `replace` allows an existing `path` to be replaced by commit().
  PendingFile(const std::string& path, std::uint64_t size_bytes, bool replace);
  ~PendingFile() override;

  Device& device() noexcept override;
  // As FileOptions::direct. Before the device is used.
  void use_direct_io();
  // Flushes, links under the final name, flushes the directory. Throws kExists if something
  // appeared there in the meantime and `replace` is not set. A symbolic link is not replaced, but
  // what it points to.
  void commit() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lukskeep::storage
