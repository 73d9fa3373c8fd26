#include <lukskeep/device.h>

#include <algorithm>
#include <utility>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/request.h"

namespace lukskeep {

void Device::write_in_place(std::uint64_t offset_bytes, std::span<std::byte> data) {
  write(offset_bytes, data);
}

void Device::write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes, ZeroMode) {
  storage::check_change(*this, "zero", {offset_bytes, length_bytes});
  const Bytes zeroes(std::min<std::uint64_t>(length_bytes, limits::kMiB));
  while (length_bytes > 0) {
    const std::uint64_t piece = std::min<std::uint64_t>(length_bytes, zeroes.size());
    write(offset_bytes, ByteView(zeroes).first(piece));
    offset_bytes += piece;
    length_bytes -= piece;
  }
}

void Device::discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  write_zeroes(offset_bytes, length_bytes, ZeroMode::kPunch);
}

std::unique_ptr<DeviceLock> Device::lock_metadata() { return nullptr; }

void Device::resize(std::uint64_t) {
  throw Error(Code::kUnsupported, "cannot resize '" + name() + "'");
}

std::vector<Extent> Device::extents(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  if (length_bytes == 0) return {};
  return {Extent{.offset_bytes = offset_bytes, .length_bytes = length_bytes, .zero = false}};
}

}  // namespace lukskeep
