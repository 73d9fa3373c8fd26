#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/uuid.h"
#include "storage/file_device.h"
#include "storage/file_device_impl.h"

namespace lukskeep::storage {
namespace {

// Where a name in a directory stands, held so that neither can be swapped under us.
struct Place {
  UniqueFd directory;
  std::string entry;
  std::string path;  // for messages
};

Place find_place(const std::string& path) {
  const std::filesystem::path parsed(path);
  const std::string directory = parsed.has_parent_path() ? parsed.parent_path().string() : ".";
  Place place{.directory = open_retrying(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY),
              .entry = parsed.filename().string(),
              .path = path_text(path)};
  if (!place.directory.valid()) throw_errno(errno, fmt::format("cannot create '{}'", place.path));
  if (place.entry.empty() || place.entry == "." || place.entry == "..") {
    throw Error(Code::kInvalidArgument,
                fmt::format("cannot create '{}': it names no file", place.path));
  }
  return place;
}

bool exists(const Place& place) {
  struct stat status{};
  return fstatat(place.directory.get(), place.entry.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
}

// What rename() would replace: only a regular file, and not the link that leads to it.
std::string replaced_path(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return path;
  if (!std::filesystem::is_regular_file(status)) {
    throw Error(Code::kUnsupported,
                fmt::format("cannot replace '{}': it is not a regular file", path_text(path)));
  }
  auto real = std::filesystem::canonical(path, error);
  return error ? path : real.string();
}

std::string temporary_name(const std::string& entry) {
  // NAME_MAX is 255; the dots, the random part and the suffix take 43.
  return fmt::format(".{}.{}.part", entry.substr(0, 200), random_uuid());
}

}  // namespace

std::unique_ptr<Device> create_file(const std::string& path, std::uint64_t size_bytes) {
  const Place place = find_place(path);
  UniqueFd fd = open_retrying(place.directory.get(), place.entry, O_RDWR | O_CREAT | O_EXCL);
  if (!fd.valid()) throw_errno(errno, fmt::format("cannot create '{}'", place.path));
  try {
    auto device = std::make_unique<FileDevice>(std::move(fd), path, Access::kReadWrite);
    device->lock();
    device->resize(size_bytes);
    flush_directory(place.directory.get(), place.path);
    return device;
  } catch (const Error&) {
    unlinkat(place.directory.get(), place.entry.c_str(), 0);
    throw;
  }
}

struct PendingFile::State {
  Place place;
  bool replace = false;
  std::string temporary;  // a name in the directory; empty while the file has no name at all
  std::unique_ptr<FileDevice> device;

  ~State() {
    if (!temporary.empty()) unlinkat(place.directory.get(), temporary.c_str(), 0);
  }

  [[noreturn]] void fail(int error) const {
    throw_errno(error, fmt::format("cannot create '{}'", place.path));
  }

  std::string fd_path() const { return fmt::format("/proc/self/fd/{}", device->fd()); }

  UniqueFd open_unnamed() const {
    UniqueFd fd = open_retrying(place.directory.get(), ".", O_RDWR | O_TMPFILE);
    // The name is given through /proc later: without it an unnamed file would stay unnamed.
    if (fd.valid() && access(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), F_OK) != 0) {
      return {};
    }
    return fd;
  }

  void open_new() {
    UniqueFd fd = open_unnamed();
    if (!fd.valid()) {
      const std::string name = temporary_name(place.entry);
      fd = open_retrying(place.directory.get(), name, O_RDWR | O_CREAT | O_EXCL);
      if (!fd.valid()) fail(errno);
      temporary = name;
    }
    device = std::make_unique<FileDevice>(std::move(fd), place.path, Access::kReadWrite);
    device->lock();
  }

  // False if the name is taken.
  bool link_as(const std::string& name) const {
    if (linkat(AT_FDCWD, fd_path().c_str(), place.directory.get(), name.c_str(),
               AT_SYMLINK_FOLLOW) == 0) {
      return true;
    }
    if (errno == EEXIST) return false;
    fail(errno);
  }

  bool rename_if_free() {
    const int directory = place.directory.get();
    if (renameat2(directory, temporary.c_str(), directory, place.entry.c_str(), RENAME_NOREPLACE) ==
        0) {
      temporary.clear();
      return true;
    }
    if (errno == EEXIST) return false;
    if (errno != EINVAL && errno != ENOSYS) fail(errno);
    // NFS has no such rename, but links, which never replace; the destructor drops the other name.
    if (linkat(directory, temporary.c_str(), directory, place.entry.c_str(), 0) == 0) return true;
    if (errno == EEXIST) return false;
    fail(errno);
  }

  void rename_over() {
    const int directory = place.directory.get();
    if (temporary.empty()) {
      const std::string name = temporary_name(place.entry);
      if (!link_as(name)) fail(EEXIST);
      temporary = name;
    }
    if (renameat(directory, temporary.c_str(), directory, place.entry.c_str()) != 0) fail(errno);
    temporary.clear();
  }
};

PendingFile::PendingFile(const std::string& path, std::uint64_t size_bytes, bool replace)
    : state_(std::make_unique<State>()) {
  state_->replace = replace;
  state_->place = find_place(replace ? replaced_path(path) : path);
  if (!replace && exists(state_->place)) state_->fail(EEXIST);
  state_->open_new();
  state_->device->resize(size_bytes);
}

PendingFile::~PendingFile() = default;

Device& PendingFile::device() noexcept { return *state_->device; }

void PendingFile::use_direct_io() { state_->device->use_direct_io(); }

void PendingFile::commit() {
  State& state = *state_;
  state.device->flush();
  if (state.replace) {
    state.rename_over();
  } else if (!(state.temporary.empty() ? state.link_as(state.place.entry)
                                       : state.rename_if_free())) {
    state.fail(EEXIST);
  }
  flush_directory(state.place.directory.get(), state.place.path);
}

}  // namespace lukskeep::storage
