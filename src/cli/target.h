// What is at a place that a command is to write to, and how it is written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <lukskeep/device.h>

#include "cli/session.h"
#include "storage/location.h"
#include "storage/pending_device.h"

namespace lukskeep::cli {

using storage::PathKind;

// As storage::kind_of.
PathKind kind_of(const std::string& path);

// Throws Error{kUsage} if both are the same file or device, whatever they are called; see
// storage::same_place.
void refuse_same(const std::string& source, const std::string& destination);

// Throws Error{kConflict} if what is at `path` has not `size_bytes` any more: a copy of
// it lacks what was added, or has zeroes where the file has nothing.
void refuse_resized(const std::string& path, std::uint64_t size_bytes);

// If `path` holds data (a file that has a byte that is not zero; a device that has one in its first
// or last 64 MiB), asks whether that may be lost: kExists if not. Returns what it found
// there, which is all that may be overwritten: to be given to Target.
PathKind confirm_overwrite(const Session& session, const std::string& path);

// A file, device, export or image that gets new contents as a whole. What is new appears under its
// name when it is complete, and replaces a file that was there; a device is written in place.
class Target {
 public:
  // `settled` is what confirm_overwrite found. What has come to `path` since is never overwritten:
  // kExists here or from commit(), kConflict for a file in place of a device or the other way
  // round. What is new gets `size_bytes`; a device must have as many (kTooSmall). `direct`: past
  // the page cache, as storage::FileOptions.
  Target(const std::string& path, PathKind settled, std::uint64_t size_bytes, bool direct = false)
      : Target(path, settled, {.size_bytes = size_bytes, .direct = direct}) {}
  // The same with storage::CreateOptions::crypto_header_bytes; `replace` is set here.
  Target(const std::string& path, PathKind settled, storage::CreateOptions options);

  const std::shared_ptr<Device>& device() const noexcept { return device_; }
  // Reads as zeroes until it is written.
  bool fresh() const noexcept { return pending_ != nullptr; }
  // Durable, and under its name. Without it a file is gone with this object.
  void commit();

 private:
  friend Target make_spool(std::uint64_t size_bytes);
  explicit Target(std::unique_ptr<storage::PendingDevice> pending);

  std::unique_ptr<storage::PendingDevice> pending_;
  std::shared_ptr<Device> device_;
};

// Whether a LUKS1 volume that is made at `path` becomes LUKS in qcow2: the image itself is
// encrypted, with a header of its own (storage::EncryptedImage). Any other volume there is on the
// disk that the image holds.
bool encrypts_image(const std::string& path, PathKind settled, bool luks1, bool detached_header);

// A file in TMPDIR (or /var/tmp) that never gets a name and is gone with the object: for what comes
// or goes through a pipe and cannot be worked on in order.
Target make_spool(std::uint64_t size_bytes);

}  // namespace lukskeep::cli
