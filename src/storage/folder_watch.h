// Which files below folders were written, as inotify tells.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "storage/unique_fd.h"

namespace lukskeep::storage {

// What happened since the last read.
struct FolderChanges {
  std::vector<std::string> files;    // or links that were written, made, renamed or removed
  std::vector<std::string> folders;  // that are new, with all below them
  bool lost = false;                 // events were: all must be looked through, and watched anew
};

// inotify(7) on folders. Tells nothing of files that other hosts write on a network file system, of
// writers that keep their file open, and of mapped memory. One thread at a time.
class FolderWatch {
 public:
  // Throws Error{kIo} if the system gives no inotify.
  FolderWatch();

  // `root` and all folders below; symbolic links below it are not followed. Folders that are not
  // there, or beyond limits::kWatchFoldersMax or what the system allows, count in unwatched().
  void add_tree(const std::string& root);
  // By its folder, so that a file which is renamed to `path` is seen.
  void add_file(const std::string& path);

  // For poll(): readable when there is something to read.
  int fd() const noexcept { return fd_.get(); }
  // Does not wait.
  FolderChanges read();

  std::size_t unwatched() const noexcept { return unwatched_; }

 private:
  struct Folder {
    std::string path;
    bool is_root = false;         // somebody named it, or a file in it
    bool is_tree = false;         // everything in it counts
    std::set<std::string> names;  // else: these
  };

  struct Event {
    int folder = 0;
    std::uint32_t mask = 0;
    const char* name = "";
  };

  Folder* watch(const std::string& path, bool is_root);
  void add_folders(const std::string& top, bool is_root);
  void settle(const Event& event, FolderChanges& changes);
  void settle_folder(const Folder& folder, std::uint32_t mask, const std::string& path,
                     FolderChanges& changes);

  storage::UniqueFd fd_;
  std::map<int, Folder> folders_;
  std::size_t unwatched_ = 0;
};

}  // namespace lukskeep::storage
