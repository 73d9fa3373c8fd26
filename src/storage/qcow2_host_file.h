// The file that holds a qcow2 image: reads that may run past its end, and room at its end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <lukskeep/device.h>

#include "base/bytes.h"

namespace lukskeep::storage::qcow2 {

class HostFile {
 public:
  explicit HostFile(std::shared_ptr<Device> device);

  Device& device() const noexcept { return *device_; }
  const std::shared_ptr<Device>& shared() const noexcept { return device_; }
  std::uint64_t size_bytes() const { return device_->size_bytes(); }

  // Zeroes stand for what a file that ends inside a table or cluster lacks. Throws kDamaged if not
  // even the first byte is there; `label` as in "the L2 table".
  void read(std::uint64_t offset_bytes, MutableBytes out, std::string_view label) const;

  // Makes the file at least so long, growing it in larger steps. Throws kNoSpace where it cannot
  // grow (a block device). One thread at a time.
  void reserve(std::uint64_t end_bytes);
  // Cuts off what reserve() made too much. Nothing on a block device.
  void trim(std::uint64_t end_bytes);

 private:
  std::shared_ptr<Device> device_;
};

}  // namespace lukskeep::storage::qcow2
