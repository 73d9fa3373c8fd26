#include "storage/memory_device.h"

#include <cstring>
#include <exception>
#include <mutex>
#include <string>
#include <utility>

#include "storage/request.h"

namespace lukskeep::storage {

MemoryDevice::MemoryDevice(Bytes contents, bool writable)
    : contents_(std::move(contents)), writable_(writable) {}

std::string MemoryDevice::name() const { return "memory"; }
bool MemoryDevice::writable() const { return writable_; }
std::uint32_t MemoryDevice::block_size_bytes() const { return 512; }

std::uint64_t MemoryDevice::size_bytes() const {
  const std::shared_lock lock(mutex_);
  return contents_.size();
}

void MemoryDevice::read(std::uint64_t offset_bytes, MutableBytes out) const {
  check_range(*this, "read", {offset_bytes, out.size()});
  const std::shared_lock lock(mutex_);
  if (!out.empty()) std::memcpy(out.data(), contents_.data() + offset_bytes, out.size());
}

void MemoryDevice::write(std::uint64_t offset_bytes, ByteView data) {
  check_change(*this, "write", {offset_bytes, data.size()});
  const std::shared_lock lock(mutex_);
  if (!data.empty()) std::memcpy(contents_.data() + offset_bytes, data.data(), data.size());
}

void MemoryDevice::flush() {}

void MemoryDevice::resize(std::uint64_t size_bytes) {
  if (!writable_) throw Error(Code::kReadOnly, "cannot resize 'memory': it is read-only");
  const std::lock_guard lock(mutex_);
  try {
    contents_.resize(size_bytes);
  } catch (const std::exception&) {  // bad_alloc or length_error
    throw Error(Code::kOutOfMemory,
                "cannot resize 'memory' to " + std::to_string(size_bytes) + " bytes");
  }
}

}  // namespace lukskeep::storage
