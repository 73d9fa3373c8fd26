// What happens by itself: a snapshot before and after each change.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "archive/store.h"
#include "luks/header_file.h"

namespace lukskeep::archive {

// Opens the store at `directory`, which is made if it is not there: sealed to the key at
// `identity_path`, which is made too, mode 0600. `made` tells whether that was so.
Store open_or_make(const std::string& directory, const std::string& identity_path, bool& made);

// The snapshots of one command: before its first change of each header, and after its last.
class Keeper {
 public:
  Keeper(std::string directory, std::string identity_path, std::string command);

  // To be called when the header at `path` is open for writing, before it is changed. Throws what
  // the archive throws: without a copy nothing is changed. Returns the snapshot's ID.
  std::string before(const luks::HeaderFile& file, const std::string& path);
  // A header was made at `path`, or is about to be replaced there: nothing to keep from before.
  void will_write(const std::string& path);
  // The header of `from` goes to `to`, and there is none at `from` any more.
  void moved(const std::string& from, const std::string& to);
  // To be called when everything is written and no device is open for writing any more. Returns one
  // sentence for each header that could not be archived.
  std::vector<std::string> after() noexcept;

  // The store was made by before() or after(): the user should know where its key is.
  bool made() const noexcept { return made_; }
  const std::string& directory() const noexcept { return directory_; }
  const std::string& identity_path() const noexcept { return identity_path_; }

 private:
  Store& store();

  std::string directory_;
  std::string identity_path_;
  std::string command_;
  std::optional<Store> store_;
  std::vector<std::string> paths_;
  bool made_ = false;
};

}  // namespace lukskeep::archive
