// Walking over the extents of a device, however many it has.
#pragma once

#include <cstdint>
#include <functional>

#include <lukskeep/device.h>

namespace lukskeep::storage {

// Whether `wanted` says so of any extent of [offset_bytes, offset_bytes + length_bytes); stops at
// the first. The device is mapped in windows of limits::kMapBytes, or up to kMapBytesMax where they
// turn out to be of one extent, which bounds the memory, and cuts what is longer. Throws what
// Device::extents throws.
bool any_extent(const Device& device, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                const std::function<bool(const Extent&)>& wanted);

}  // namespace lukskeep::storage
