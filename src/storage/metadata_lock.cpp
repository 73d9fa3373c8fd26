// The lock of cryptsetup for LUKS2 metadata (its docs/LUKS2-locking.txt): flock on a regular file
// itself, and for a block device on a file of its number in /run/cryptsetup, which the program that
// needs it first makes.
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>

#include "storage/file_device_impl.h"

namespace lukskeep::storage {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kLockDirectory = "/run/cryptsetup";
// Changes of a header take milliseconds; who holds the lock for longer is stuck or has it for good.
constexpr std::chrono::seconds kPatience{10};
constexpr std::chrono::milliseconds kRetry{20};

class Flock final : public DeviceLock {
 public:
  // `fd` must outlive the lock, unless `own` is it.
  Flock(int fd, UniqueFd own) : fd_(fd), own_(std::move(own)) {}
  ~Flock() override { flock(fd_, LOCK_UN); }

 private:
  int fd_;
  UniqueFd own_;
};

// False if this file system has no such locks.
bool acquire(int fd, const std::string& name) {
  const Clock::time_point until = Clock::now() + kPatience;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return false;
    if (Clock::now() >= until) {
      throw Error(Code::kBusy, fmt::format("another program is changing the header of '{}'", name),
                  "wait until it is done, or stop it");
    }
    std::this_thread::sleep_for(kRetry);
  }
  return true;
}

// cryptsetup removes the file of a lock when nobody holds it: what was locked may be gone by then.
bool still_there(int fd, int directory, const std::string& entry) {
  struct stat held{};
  struct stat present{};
  return fstat(fd, &held) == 0 && fstatat(directory, entry.c_str(), &present, 0) == 0 &&
         held.st_ino == present.st_ino && held.st_dev == present.st_dev;
}

std::string lock_entry(dev_t device) {
  return fmt::format("L_{}:{}", major(device), minor(device));
}

// Only root can make the directory, and only root can open most block devices.
UniqueFd open_lock_directory() {
  mkdir(kLockDirectory, 0700);
  return open_retrying(AT_FDCWD, kLockDirectory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

}  // namespace

std::unique_ptr<DeviceLock> FileDevice::lock_metadata() {
  // On NFS, flock conflicts with the lock of lock() unless both are of one description.
  if (!is_block_device_) {
    return acquire(fd_.get(), name_) ? std::make_unique<Flock>(fd_.get(), UniqueFd()) : nullptr;
  }
  const UniqueFd directory = open_lock_directory();
  if (!directory.valid()) return nullptr;
  struct stat status{};
  if (fstat(fd_.get(), &status) != 0) throw_errno(errno, fmt::format("cannot examine '{}'", name_));
  const std::string entry = lock_entry(status.st_rdev);
  while (true) {
    UniqueFd fd = open_retrying(directory.get(), entry, O_RDWR | O_CREAT | O_NOFOLLOW);
    if (!fd.valid() || !acquire(fd.get(), name_)) return nullptr;
    if (still_there(fd.get(), directory.get(), entry)) {
      const int number = fd.get();
      return std::make_unique<Flock>(number, std::move(fd));
    }
  }
}

bool is_metadata_locked(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return false;
  UniqueFd fd;
  if (S_ISREG(status.st_mode)) {
    fd = open_retrying(AT_FDCWD, path, O_RDONLY | O_NONBLOCK);
  } else if (S_ISBLK(status.st_mode)) {
    // No file: nobody holds the lock.
    const std::string entry = lock_entry(status.st_rdev);
    fd = open_retrying(AT_FDCWD, fmt::format("{}/{}", kLockDirectory, entry),
                       O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  }
  // Readers share the lock; closing gives it back.
  return fd.valid() && flock(fd.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

}  // namespace lukskeep::storage
