#include "storage/image_lock.h"

#include <array>
#include <cerrno>
#include <span>

#include <fcntl.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "storage/file_device_impl.h"

namespace lukskeep::storage {
namespace {

// RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE with BLK_PERM_CONSISTENT_READ, _WRITE, _RESIZE.
constexpr off_t kReads = 100;
constexpr off_t kWrites = 101;
constexpr off_t kResizes = 103;
constexpr off_t kBearsNoReader = 200;
constexpr off_t kBearsNoWriter = 201;
constexpr off_t kBearsNoResizer = 203;

struct flock byte_lock(off_t byte, int type) {
  struct flock lock{};
  lock.l_type = static_cast<short>(type);
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

// Held by all together, each a shared one; what contradicts is found by asking for an exclusive
// one. First taken, then looked, so that of two at once at least one sees the other.
void take(const FileDevice& file, std::span<const off_t> bytes) {
  for (const off_t byte : bytes) {
    struct flock lock = byte_lock(byte, F_RDLCK);
    if (fcntl(file.fd(), F_OFD_SETLK, &lock) == 0) continue;
    if (errno != EAGAIN && errno != EACCES) return;  // no locks here
    throw Error(Code::kBusy, fmt::format("'{}' is in use by another program", file.name()),
                "wait until that program is done with it, or stop it");
  }
}

void refuse_if_held(const FileDevice& file, std::span<const off_t> bytes) {
  for (const off_t byte : bytes) {
    struct flock lock = byte_lock(byte, F_WRLCK);
    if (fcntl(file.fd(), F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) continue;
    const bool writes = byte == kWrites || byte == kResizes;
    throw Error(Code::kBusy,
                fmt::format("'{}' is {} by another program", file.name(),
                            writes ? "being written" : "in use"),
                "stop the virtual machine or program that uses it");
  }
}

}  // namespace

void lock_image(Device& device, Access access) {
  const auto* file = dynamic_cast<const FileDevice*>(&device);
  if (file == nullptr) return;
  if (access == Access::kReadWrite) {
    take(*file, std::array{kReads, kWrites, kResizes, kBearsNoWriter, kBearsNoResizer});
    refuse_if_held(*file, std::array{kBearsNoReader, kBearsNoWriter, kBearsNoResizer});
  } else {
    take(*file, std::array{kReads, kBearsNoWriter, kBearsNoResizer});
    refuse_if_held(*file, std::array{kBearsNoReader});
  }
  refuse_if_held(*file, std::array{kWrites, kResizes});
}

}  // namespace lukskeep::storage
