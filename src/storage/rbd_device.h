// Images in Ceph, through librbd.
#pragma once

#include <memory>
#include <string>

#include <lukskeep/device.h>

#include "storage/location.h"
#include "storage/pending_device.h"

namespace lukskeep::storage {

// rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][?OPTION=VALUE&…]; the options are `conf` (a configuration
// file in place of Ceph's own), `id` (the user, without "client.") and `timeout` (seconds).
struct RbdName {
  std::string name;  // for messages
  std::string pool;
  std::string name_space;
  std::string image;
  std::string snapshot;
  std::string conf;
  std::string id;
  unsigned timeout_seconds = 0;

  bool operator==(const RbdName&) const = default;
};

// Throws Error{kUsage}.
RbdName parse_rbd_name(const std::string& location);

// Opens an image, whose exclusive lock a writer takes where the image has that feature. Requests
// are cut at objects and several are under way at once.
//
// Throws Error: kUsage, kNotFound (no such pool, image or snapshot), kReadOnly (a snapshot is to be
// written), kBusy (another client has the lock), kRemote, kTimeout (no cluster),
// kPermissionDenied, kUnsupported (librbd is not installed).
std::unique_ptr<Device> open_rbd(const std::string& location, const OpenOptions& options);

// Whether the image is there. Throws as open_rbd.
bool rbd_exists(const std::string& location);

// Makes an image under a name of its own, which gets its final one on commit(). Throws as open_rbd,
// and kExists.
std::unique_ptr<PendingDevice> create_rbd(const std::string& location,
                                          const CreateOptions& options);

}  // namespace lukskeep::storage
