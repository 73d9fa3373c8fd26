#include "storage/memory_file.h"

#include <cerrno>

#include <sys/mman.h>
#include <unistd.h>

#include "storage/request.h"

namespace lukskeep::storage {

UniqueFd memory_file(ByteView contents) {
  UniqueFd fd(memfd_create("lukskeep", MFD_CLOEXEC));
  if (!fd.valid()) throw_errno(errno, "cannot make a file in memory");
  while (!contents.empty()) {
    const ssize_t wrote = write(fd.get(), contents.data(), contents.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) throw_errno(wrote < 0 ? errno : EIO, "cannot write a file in memory");
    contents = contents.subspan(static_cast<std::size_t>(wrote));
  }
  if (lseek(fd.get(), 0, SEEK_SET) != 0) throw_errno(errno, "cannot read a file in memory");
  return fd;
}

}  // namespace lukskeep::storage
