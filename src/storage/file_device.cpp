#include "storage/file_device.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "storage/file_device_impl.h"

namespace lukskeep::storage {
namespace {

void refuse_kind(mode_t mode, const std::string& name) {
  if (S_ISREG(mode) || S_ISBLK(mode)) return;
  const char* kind = S_ISDIR(mode)    ? "a directory"
                     : S_ISFIFO(mode) ? "a pipe"
                     : S_ISSOCK(mode) ? "a socket"
                                      : "a character device";
  throw Error(Code::kUnsupported, fmt::format("cannot open '{}': it is {}", name, kind),
              "name a regular file or a block device");
}

// Neighbours must differ; files that change while they are mapped could break that.
void append(std::vector<Extent>& extents, const Extent& next) {
  if (next.length_bytes == 0) return;
  if (!extents.empty() && extents.back().zero == next.zero) {
    extents.back().length_bytes += next.length_bytes;
  } else {
    extents.push_back(next);
  }
}

bool means_no_locks_here(int error) {
  return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == ENOLCK;
}

// What O_DIRECT asks of offsets, lengths and addresses: at most the largest logical block in use.
constexpr std::uint64_t kDirectAlignment = 4096;

bool means_cannot_zero(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV ||
         error == ENOTTY;
}

}  // namespace

std::string path_text(const std::string& path) { return printable(path, PATH_MAX); }

UniqueFd open_retrying(int directory, const std::string& path, int flags) {
  int fd = -1;
  do {
    fd = openat(directory, path.c_str(), flags | O_CLOEXEC | O_NOCTTY, 0600);
  } while (fd < 0 && errno == EINTR);
  return UniqueFd(fd);
}

void flush_directory(int directory, const std::string& name) {
  // Some file systems have no such notion (EINVAL).
  if (fsync(directory) != 0 && errno != EINVAL) {
    throw_errno(errno, fmt::format("cannot flush the directory of '{}'", name));
  }
}

FileDevice::FileDevice(UniqueFd fd, const std::string& path, Access access)
    : fd_(std::move(fd)), name_(path_text(path)), writable_(access == Access::kReadWrite) {
  struct stat status{};
  if (fstat(fd_.get(), &status) != 0) throw_errno(errno, fmt::format("cannot examine '{}'", name_));
  refuse_kind(status.st_mode, name_);
  is_block_device_ = S_ISBLK(status.st_mode);
  if (is_block_device_) {
    inspect_block_device();
  } else {
    size_bytes_ = static_cast<std::uint64_t>(status.st_size);
  }
}

void FileDevice::inspect_block_device() {
  std::uint64_t size_bytes = 0;
  int sector_bytes = 0;
  int read_only = 0;
  if (ioctl(fd_.get(), BLKGETSIZE64, &size_bytes) != 0 ||
      ioctl(fd_.get(), BLKSSZGET, &sector_bytes) != 0 ||
      ioctl(fd_.get(), BLKROGET, &read_only) != 0) {
    throw_errno(errno, fmt::format("cannot examine '{}'", name_));
  }
  // The kernel opens a write-protected disk for writing and fails only the writes.
  if (writable_ && read_only != 0) {
    throw Error(Code::kReadOnly,
                fmt::format("cannot open '{}' for writing: it is write-protected", name_));
  }
  size_bytes_ = size_bytes;
  block_size_bytes_ = static_cast<std::uint32_t>(std::max(512, sector_bytes));
}

void FileDevice::lock(const Range& range) {
  struct flock locked{};
  locked.l_type = static_cast<short>(writable_ ? F_WRLCK : F_RDLCK);
  locked.l_whence = SEEK_SET;
  locked.l_start = static_cast<off_t>(std::min<std::uint64_t>(range.offset_bytes, INT64_MAX));
  locked.l_len = static_cast<off_t>(std::min<std::uint64_t>(range.length_bytes, INT64_MAX));
  if (fcntl(fd_.get(), F_OFD_SETLK, &locked) == 0 || means_no_locks_here(errno)) return;
  if (errno == EAGAIN || errno == EACCES) {
    throw Error(Code::kBusy,
                fmt::format("cannot lock '{}': another program is {} it", name_,
                            writable_ ? "using" : "writing"),
                "wait until that program is done with it, or stop it");
  }
  throw_errno(errno, fmt::format("cannot lock '{}'", name_));
}

// A description of its own, so that the requests which cannot be direct have one that is not. A
// file system that knows no O_DIRECT refuses to open it: then all goes through the page cache.
void FileDevice::use_direct_io() {
  direct_fd_ = open_retrying(AT_FDCWD, fmt::format("/proc/self/fd/{}", fd_.get()),
                             (writable_ ? O_RDWR : O_RDONLY) | O_DIRECT);
}

template <typename Byte, typename Call>
ssize_t FileDevice::transfer(const Call& call, Byte* data, std::size_t length,
                             std::uint64_t offset) const {
  const std::size_t whole = length - length % kDirectAlignment;
  const bool aligned = offset % kDirectAlignment == 0 && whole != 0 &&
                       reinterpret_cast<std::uintptr_t>(data) % kDirectAlignment == 0;
  if (direct_fd_.valid() && aligned) {
    const ssize_t done = call(direct_fd_.get(), data, whole, static_cast<off_t>(offset));
    // Some storage asks for more alignment than that.
    if (done >= 0 || errno != EINVAL) return done;
  }
  return call(fd_.get(), data, length, static_cast<off_t>(offset));
}

void FileDevice::read(std::uint64_t offset_bytes, MutableBytes out) const {
  check_range(*this, "read", {offset_bytes, out.size()});
  while (!out.empty()) {
    const ssize_t got = transfer(pread, out.data(), out.size(), offset_bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno(errno, failed_request(*this, "read", {offset_bytes, out.size()}));
    if (got == 0) {
      throw Error(Code::kTooSmall,
                  fmt::format("{}: it has become shorter",
                              failed_request(*this, "read", {offset_bytes, out.size()})));
    }
    out = out.subspan(static_cast<std::size_t>(got));
    offset_bytes += static_cast<std::uint64_t>(got);
  }
}

void FileDevice::write(std::uint64_t offset_bytes, ByteView data) {
  check_change(*this, "write", {offset_bytes, data.size()});
  while (!data.empty()) {
    const ssize_t put = transfer(pwrite, data.data(), data.size(), offset_bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      throw_errno(put < 0 ? errno : ENOSPC,
                  failed_request(*this, "write", {offset_bytes, data.size()}));
    }
    data = data.subspan(static_cast<std::size_t>(put));
    offset_bytes += static_cast<std::uint64_t>(put);
  }
}

void FileDevice::write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                              ZeroMode mode) {
  check_change(*this, "zero", {offset_bytes, length_bytes});
  if (length_bytes == 0) return;
  // Block devices zero whole sectors only; what sticks out at the ends is written.
  const std::uint64_t unit_bytes = is_block_device_ ? block_size_bytes_ : 1;
  const std::uint64_t end = offset_bytes + length_bytes;
  const std::uint64_t inner_start = (offset_bytes + unit_bytes - 1) / unit_bytes * unit_bytes;
  const std::uint64_t inner_end = end / unit_bytes * unit_bytes;
  if (inner_start >= inner_end) return Device::write_zeroes(offset_bytes, length_bytes, mode);
  Device::write_zeroes(offset_bytes, inner_start - offset_bytes, mode);
  zero_aligned({inner_start, inner_end - inner_start}, mode);
  Device::write_zeroes(inner_end, end - inner_end, mode);
}

void FileDevice::discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  check_change(*this, "discard", {offset_bytes, length_bytes});
  if (length_bytes == 0) return;
  // Where storage cannot be given back the bytes stay, which is allowed.
  if (!is_block_device_) {
    static_cast<void>(try_zero_below({offset_bytes, length_bytes}, ZeroMode::kPunch));
    return;
  }
  const std::uint64_t unit_bytes = block_size_bytes_;
  const std::uint64_t start = (offset_bytes + unit_bytes - 1) / unit_bytes * unit_bytes;
  const std::uint64_t end = (offset_bytes + length_bytes) / unit_bytes * unit_bytes;
  if (start >= end) return;
  std::uint64_t bounds[2] = {start, end - start};
  if (ioctl(fd_.get(), BLKDISCARD, bounds) == 0 || means_cannot_zero(errno)) return;
  throw_errno(errno, failed_request(*this, "discard", {start, end - start}));
}

void FileDevice::zero_aligned(const Range& range, ZeroMode mode) {
  if (mode == ZeroMode::kPunch && try_zero_below(range, ZeroMode::kPunch)) return;
  if (try_zero_below(range, ZeroMode::kAllocate)) return;
  Device::write_zeroes(range.offset_bytes, range.length_bytes, mode);
}

// False if the storage below knows no such request. BLKDISCARD is no way to punch: what discarded
// sectors read as is up to the disk, while fallocate promises zeroes.
bool FileDevice::try_zero_below(const Range& range, ZeroMode mode) {
  int result = 0;
  do {
    if (is_block_device_ && mode == ZeroMode::kAllocate) {
      std::uint64_t bounds[2] = {range.offset_bytes, range.length_bytes};
      result = ioctl(fd_.get(), BLKZEROOUT, bounds);
    } else {
      const int what = mode == ZeroMode::kPunch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
      result =
          fallocate(fd_.get(), what | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset_bytes),
                    static_cast<off_t>(range.length_bytes));
    }
  } while (result != 0 && errno == EINTR);
  if (result == 0) return true;
  if (means_cannot_zero(errno)) return false;
  throw_errno(errno, failed_request(*this, "zero", range));
}

void FileDevice::flush() {
  if (!writable_) return;
  const std::lock_guard lock(flush_mutex_);
  if (flush_error_ == 0) {
    const bool size_changed = size_changed_.exchange(false);
    int result = 0;
    do {
      result = size_changed ? fsync(fd_.get()) : fdatasync(fd_.get());
    } while (result != 0 && errno == EINTR);
    if (result != 0) flush_error_ = errno;
  }
  if (flush_error_ != 0) throw_errno(flush_error_, fmt::format("cannot flush '{}'", name_));
}

void FileDevice::resize(std::uint64_t size_bytes) {
  if (is_block_device_) return Device::resize(size_bytes);
  if (!writable_) {
    throw Error(Code::kReadOnly, fmt::format("cannot resize '{}': it is read-only", name_));
  }
  const std::string what = fmt::format("cannot resize '{}' to {} bytes", name_, size_bytes);
  if (size_bytes > static_cast<std::uint64_t>(INT64_MAX)) throw_errno(EFBIG, what);
  int result = 0;
  do {
    result = ftruncate(fd_.get(), static_cast<off_t>(size_bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0) throw_errno(errno, what);
  size_bytes_ = size_bytes;
  size_changed_ = true;
}

// What lies beyond the end of a file that somebody cut short looks like a hole; it is no zeroes.
void FileDevice::require_length(std::uint64_t end_bytes) const {
  struct stat status{};
  if (fstat(fd_.get(), &status) != 0) throw_errno(errno, fmt::format("cannot examine '{}'", name_));
  if (static_cast<std::uint64_t>(status.st_size) >= end_bytes) return;
  throw Error(Code::kTooSmall,
              fmt::format("cannot map '{}' up to byte {}: it has become shorter, {} bytes", name_,
                          end_bytes, status.st_size));
}

std::vector<Extent> FileDevice::extents(std::uint64_t offset_bytes,
                                        std::uint64_t length_bytes) const {
  check_range(*this, "map", {offset_bytes, length_bytes});
  if (is_block_device_) return Device::extents(offset_bytes, length_bytes);
  const std::uint64_t end = offset_bytes + length_bytes;
  std::vector<Extent> found;
  for (std::uint64_t at = offset_bytes; at < end;) {
    const off_t data = lseek(fd_.get(), static_cast<off_t>(at), SEEK_DATA);
    const int error = errno;
    // ENXIO: no data behind `at`. Anything else: this file system does not know.
    if (data < 0 && error != ENXIO) return Device::extents(offset_bytes, length_bytes);
    if (data < 0) require_length(end);
    const std::uint64_t data_start =
        data < 0 ? end : std::clamp(static_cast<std::uint64_t>(data), at, end);
    append(found, {at, data_start - at, true});
    if (data_start == end) break;
    const off_t hole = lseek(fd_.get(), static_cast<off_t>(data_start), SEEK_HOLE);
    const std::uint64_t data_end =
        hole < 0 ? end : std::clamp(static_cast<std::uint64_t>(hole), data_start + 1, end);
    append(found, {data_start, data_end - data_start, false});
    at = data_end;
  }
  return found;
}

std::unique_ptr<Device> open_file(const std::string& path, const FileOptions& options) {
  const std::string name = path_text(path);
  const bool writing = options.access == Access::kReadWrite;
  // Opening can have effects (a tape rewinds, a pipe blocks): look first.
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) throw_errno(errno, fmt::format("cannot open '{}'", name));
  refuse_kind(status.st_mode, name);
  int flags = (writing ? O_RDWR : O_RDONLY) | O_NONBLOCK;
  // Whoever locks no more than a header knows what else is on it; the kernel's lock is of the
  // whole.
  const bool exclusive = S_ISBLK(status.st_mode) && options.lock_length_bytes == 0;
  if (writing && options.lock && exclusive) flags |= O_EXCL;
  UniqueFd fd = open_retrying(AT_FDCWD, path, flags);
  if (!fd.valid()) {
    const int error = errno;
    throw_errno(error, fmt::format("cannot open '{}'{}", name, writing ? " for writing" : ""));
  }
  auto device = std::make_unique<FileDevice>(std::move(fd), path, options.access);
  if (options.lock && !exclusive && (writing || !device->is_block_device()))
    device->lock({options.lock_from_bytes, options.lock_length_bytes});
  if (options.direct) device->use_direct_io();
  return device;
}

}  // namespace lukskeep::storage
