#include "storage/partial_file.h"

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "storage/file_device_impl.h"

namespace lukskeep::storage {
namespace {

constexpr std::size_t kTagBytesMax = 64;
constexpr std::string_view kTagCharacters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-";

// In a folder that others write to, somebody might have put something there for us to fill.
void check_ours(int fd, const std::string& path) {
  struct stat status{};
  if (fstat(fd, &status) != 0) throw_errno(errno, fmt::format("cannot look at '{}'", path));
  if (S_ISREG(status.st_mode) && status.st_uid == geteuid() && status.st_nlink == 1 &&
      (status.st_mode & 022) == 0) {
    return;
  }
  throw Error(Code::kUnsafe,
              fmt::format("'{}' is no part of a transfer of this user", path_text(path)),
              "look what it is, and remove it");
}

}  // namespace

struct PartialFile::State {
  UniqueFd directory;
  std::string entry;
  std::string part_entry;
  std::string path;
  std::string part_path;
  std::shared_ptr<Device> device;
  bool settled = false;
  bool named = false;

  ~State() {
    if (device && !settled) unlinkat(directory.get(), part_entry.c_str(), 0);
  }

  bool is_there() const {
    struct stat status{};
    return fstatat(directory.get(), entry.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
  }

  [[noreturn]] void refuse_taken() const {
    throw Error(Code::kExists, fmt::format("'{}' is already there", path_text(path)),
                "name another file, or remove it first");
  }

  void open() {
    UniqueFd fd = open_retrying(directory.get(), part_entry,
                                O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (!fd.valid()) throw_errno(errno, fmt::format("cannot create '{}'", path_text(part_path)));
    check_ours(fd.get(), part_path);
    auto opened = std::make_shared<FileDevice>(std::move(fd), part_path, Access::kReadWrite);
    opened->lock();
    device = std::move(opened);
  }

  void rename() {
    const int at = directory.get();
    if (renameat2(at, part_entry.c_str(), at, entry.c_str(), RENAME_NOREPLACE) == 0) return;
    if (errno == EEXIST) refuse_taken();
    // NFS has no such rename, but links, which never replace.
    if ((errno == EINVAL || errno == ENOSYS) &&
        linkat(at, part_entry.c_str(), at, entry.c_str(), 0) == 0) {
      unlinkat(at, part_entry.c_str(), 0);
      return;
    }
    if (errno == EEXIST) refuse_taken();
    throw_errno(errno, fmt::format("cannot create '{}'", path_text(path)));
  }
};

PartialFile::PartialFile(const std::string& path, const std::string& tag)
    : state_(std::make_unique<State>()) {
  const std::filesystem::path parsed(path);
  const std::string folder = parsed.has_parent_path() ? parsed.parent_path().string() : ".";
  State& state = *state_;
  state.path = path;
  state.entry = parsed.filename().string();
  if (state.entry.empty() || state.entry == "." || state.entry == "..") {
    throw Error(Code::kInvalidArgument,
                fmt::format("cannot create '{}': it names no file", path_text(path)));
  }
  if (tag.empty() || tag.size() > kTagBytesMax ||
      tag.find_first_not_of(kTagCharacters) != std::string::npos) {
    throw Error(Code::kInvalidArgument, "the name of a partial file is not good");
  }
  state.part_entry = fmt::format("{}.{}.part", state.entry, tag);
  state.part_path = (std::filesystem::path(folder) / state.part_entry).string();
  state.directory = open_retrying(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY);
  if (!state.directory.valid()) {
    throw_errno(errno, fmt::format("cannot create '{}'", path_text(path)));
  }
  if (state.is_there()) state.refuse_taken();
  state.open();
}

PartialFile::~PartialFile() = default;

const std::shared_ptr<Device>& PartialFile::device() const noexcept { return state_->device; }

const std::string& PartialFile::part_path() const noexcept { return state_->part_path; }

void PartialFile::keep() noexcept {
  state_->settled = true;
  try {
    state_->device->flush();
    flush_directory(state_->directory.get(), state_->part_path);
  } catch (const Error&) {
    return;  // the next run looks at what is there, whatever became of it
  }
}

void PartialFile::commit() {
  state_->device->flush();
  state_->rename();
  state_->settled = true;
  state_->named = true;
  flush_directory(state_->directory.get(), path_text(state_->path));
}

bool PartialFile::named() const noexcept { return state_->named; }

}  // namespace lukskeep::storage
