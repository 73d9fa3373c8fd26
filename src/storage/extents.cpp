#include "storage/extents.h"

#include <algorithm>

#include "base/limits.h"
#include "storage/request.h"

namespace lukskeep::storage {

bool any_extent(const Device& device, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                const std::function<bool(const Extent&)>& wanted) {
  check_range(device, "map", {offset_bytes, length_bytes});
  std::uint64_t step_bytes = limits::kMapBytes;
  while (length_bytes > 0) {
    const std::uint64_t window_bytes = std::min(length_bytes, step_bytes);
    const auto extents = device.extents(offset_bytes, window_bytes);
    if (std::any_of(extents.begin(), extents.end(), wanted)) return true;
    step_bytes =
        extents.size() == 1 ? std::min(2 * step_bytes, limits::kMapBytesMax) : limits::kMapBytes;
    offset_bytes += window_bytes;
    length_bytes -= window_bytes;
  }
  return false;
}

}  // namespace lukskeep::storage
