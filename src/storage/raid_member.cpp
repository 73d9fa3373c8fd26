#include "storage/raid_member.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "storage/request.h"

namespace lukskeep::storage {
namespace {

// Linux, include/uapi/linux/raid/md_p.h.
constexpr std::uint32_t kMagic = 0xa92b4efc;
constexpr std::uint64_t kSectorBytes = 512;
constexpr std::uint64_t kReservedBytes = 65536;  // of 0.90, at a multiple of itself
constexpr std::uint64_t kBehindSectors = 16;     // of 1.0
constexpr std::uint64_t kAlignmentSectors = 8;   // of 1.0
constexpr std::size_t kSuperOffsetOffset = 144;  // of 1.0: where it is, in sectors
constexpr std::size_t kHeadBytes = kSuperOffsetOffset + 8;

using Head = std::array<std::byte, kHeadBytes>;

bool read_head(const Device& device, std::uint64_t offset_bytes, Head& head) {
  try {
    device.read(offset_bytes, head);
    return true;
  } catch (const Error& error) {
    if (ends_everything(error)) throw;
    return false;
  }
}

bool has_version_0(const Device& device) {
  const std::uint64_t size = device.size_bytes();
  if (size < 2 * kReservedBytes) return false;
  Head head{};
  if (!read_head(device, size / kReservedBytes * kReservedBytes - kReservedBytes, head)) {
    return false;
  }
  // In the order of bytes of the machine that made it.
  const auto is_090 = [&](auto load) {
    return load(head.data()) == kMagic && load(&head[4]) == 0 && load(&head[8]) == 90;
  };
  return is_090(load_le<std::uint32_t>) || is_090(load_be<std::uint32_t>);
}

bool has_version_1(const Device& device) {
  const std::uint64_t sectors = device.size_bytes() / kSectorBytes;
  if (sectors < kBehindSectors + kAlignmentSectors) return false;
  const std::uint64_t at = (sectors - kBehindSectors) / kAlignmentSectors * kAlignmentSectors;
  Head head{};
  return read_head(device, at * kSectorBytes, head) &&
         load_le<std::uint32_t>(head.data()) == kMagic && load_le<std::uint32_t>(&head[4]) == 1 &&
         load_le<std::uint64_t>(&head[kSuperOffsetOffset]) == at;
}

}  // namespace

bool is_raid_member(const Device& device) { return has_version_0(device) || has_version_1(device); }

}  // namespace lukskeep::storage
