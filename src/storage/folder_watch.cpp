#include "storage/folder_watch.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include <sys/inotify.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::storage {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBufferBytes = 64 * limits::kKiB;
// Somebody who writes without end must not keep the caller here.
constexpr int kReadsMax = 64;
constexpr std::uint32_t kEvents = IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM |
                                  IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR |
                                  IN_EXCL_UNLINK;

}  // namespace

FolderWatch::FolderWatch() : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  if (fd_.valid()) return;
  throw Error(Code::kIo,
              fmt::format("cannot watch folders: {}", std::generic_category().message(errno)),
              "fs.inotify.max_user_instances may be too small");
}

// Null if it is gone, or cannot be watched.
FolderWatch::Folder* FolderWatch::watch(const std::string& path, bool is_root) {
  if (folders_.size() >= limits::kWatchFoldersMax) {
    ++unwatched_;
    return nullptr;
  }
  const int number =
      inotify_add_watch(fd_.get(), path.c_str(), kEvents | (is_root ? 0U : IN_DONT_FOLLOW));
  if (number < 0) {
    // Below a root it went in the meantime.
    if (is_root || (errno != ENOENT && errno != ENOTDIR)) ++unwatched_;
    return nullptr;
  }
  Folder& folder = folders_[number];
  folder.path = path;
  folder.is_root = folder.is_root || is_root;
  return &folder;
}

void FolderWatch::add_tree(const std::string& root) { add_folders(root, true); }

void FolderWatch::add_folders(const std::string& top, bool is_root) {
  // Not recursive: the depth of a tree is not ours to choose.
  std::vector<std::string> waiting = {top};
  while (!waiting.empty()) {
    const std::string path = std::move(waiting.back());
    waiting.pop_back();
    Folder* folder = watch(path, is_root && path == top);
    if (folder == nullptr) continue;
    folder->is_tree = true;
    std::error_code error;
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      std::error_code ignored;
      if (fs::is_directory(it->symlink_status(ignored))) waiting.push_back(it->path().string());
    }
  }
}

void FolderWatch::add_file(const std::string& path) {
  const fs::path file(path);
  if (Folder* folder = watch(file.parent_path().string(), true)) {
    folder->names.insert(file.filename().string());
  }
}

FolderChanges FolderWatch::read() {
  FolderChanges changes;
  alignas(inotify_event) std::array<char, kBufferBytes> buffer{};
  for (int reads = 0; reads < kReadsMax; ++reads) {
    const ssize_t got = ::read(fd_.get(), buffer.data(), buffer.size());
    if (got <= 0) break;
    for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      at += sizeof event;
      const char* name = event.len > 0 ? buffer.data() + at : "";
      settle({.folder = event.wd, .mask = event.mask, .name = name}, changes);
      at += event.len;
    }
  }
  return changes;
}

void FolderWatch::settle(const Event& event, FolderChanges& changes) {
  if ((event.mask & IN_Q_OVERFLOW) != 0) {
    changes.lost = true;
    return;
  }
  const auto found = folders_.find(event.folder);
  if (found == folders_.end()) return;
  const Folder& folder = found->second;
  if ((event.mask & (IN_MOVE_SELF | IN_DELETE_SELF)) != 0 && folder.is_root) changes.lost = true;
  if ((event.mask & IN_IGNORED) != 0) {
    folders_.erase(found);
    return;
  }
  if (*event.name == '\0') return;
  if (!folder.is_tree && !folder.names.contains(event.name)) return;
  const std::string path = (fs::path(folder.path) / event.name).string();
  if ((event.mask & IN_ISDIR) != 0) {
    settle_folder(folder, event.mask, path, changes);
  } else {
    changes.files.push_back(path);
  }
}

void FolderWatch::settle_folder(const Folder& folder, std::uint32_t mask, const std::string& path,
                                FolderChanges& changes) {
  if (!folder.is_tree) return;
  if ((mask & (IN_CREATE | IN_MOVED_TO)) != 0) {
    add_folders(path, false);
    changes.folders.push_back(path);
  } else if ((mask & IN_MOVED_FROM) != 0) {
    // It is watched on under a name that is no longer its own.
    changes.lost = true;
  }
}

}  // namespace lukskeep::storage
