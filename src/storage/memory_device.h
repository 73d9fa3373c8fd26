// Bytes in memory, for headers and tests. Not for secrets.
#pragma once

#include <shared_mutex>
#include <utility>

#include <lukskeep/device.h>

#include "base/bytes.h"

namespace lukskeep::storage {

class MemoryDevice final : public Device {
 public:
  explicit MemoryDevice(Bytes contents, bool writable = true);

  // Not while the size changes.
  const Bytes& contents() const noexcept { return contents_; }
  // Leaves a device without a byte.
  Bytes take() noexcept { return std::exchange(contents_, {}); }

  std::string name() const override;
  std::uint64_t size_bytes() const override;
  bool writable() const override;
  std::uint32_t block_size_bytes() const override;
  void read(std::uint64_t offset_bytes, MutableBytes out) const override;
  void write(std::uint64_t offset_bytes, ByteView data) override;
  void flush() override;
  void resize(std::uint64_t size_bytes) override;

 private:
  mutable std::shared_mutex mutex_;  // resize moves the bytes under readers and writers
  Bytes contents_;
  bool writable_;
};

}  // namespace lukskeep::storage
