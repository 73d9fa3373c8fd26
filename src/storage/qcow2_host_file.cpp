#include "storage/qcow2_host_file.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::storage::qcow2 {
namespace {

constexpr std::uint64_t kGrowthBytesMin = 64 * limits::kKiB;
constexpr std::uint64_t kGrowthBytesMax = 64 * limits::kMiB;

}  // namespace

HostFile::HostFile(std::shared_ptr<Device> device) : device_(std::move(device)) {}

void HostFile::read(std::uint64_t offset_bytes, MutableBytes out, std::string_view label) const {
  const std::uint64_t size = device_->size_bytes();
  if (offset_bytes >= size) {
    throw Error(Code::kDamaged,
                fmt::format("'{}': {} at {} is beyond the end of the file, {} bytes",
                            device_->name(), label, offset_bytes, size));
  }
  const std::size_t present = std::min<std::uint64_t>(out.size(), size - offset_bytes);
  device_->read(offset_bytes, out.first(present));
  std::ranges::fill(out.subspan(present), std::byte{0});
}

void HostFile::reserve(std::uint64_t end_bytes) {
  const std::uint64_t size = device_->size_bytes();
  if (size >= end_bytes) return;
  const std::uint64_t step = std::clamp(size / 4, kGrowthBytesMin, kGrowthBytesMax);
  try {
    device_->resize(std::max(end_bytes, size + step));
  } catch (const Error& error) {
    if (error.code() != Code::kUnsupported) throw;
    throw Error(Code::kNoSpace, fmt::format("the qcow2 image on '{}' needs {} bytes, there are {}",
                                            device_->name(), end_bytes, size));
  }
}

void HostFile::trim(std::uint64_t end_bytes) {
  if (device_->size_bytes() <= end_bytes) return;
  try {
    device_->resize(end_bytes);
  } catch (const Error& error) {
    if (error.code() != Code::kUnsupported) throw;
  }
}

}  // namespace lukskeep::storage::qcow2
