// A new volume that is there only when it is whole.
#pragma once

#include <lukskeep/device.h>

namespace lukskeep::storage {

// What was written is gone with the object unless commit() returned. Reads as zeroes until it is
// written. One thread at a time, except for the device.
class PendingDevice {
 public:
  virtual ~PendingDevice() = default;
  PendingDevice(const PendingDevice&) = delete;
  PendingDevice& operator=(const PendingDevice&) = delete;

  virtual Device& device() noexcept = 0;
  // Durable, and under its name. Throws Error{kExists} if something appeared there meanwhile that
  // was not to be replaced.
  virtual void commit() = 0;

 protected:
  PendingDevice() = default;
};

}  // namespace lukskeep::storage
