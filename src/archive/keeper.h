// What happens by itself: a snapshot before and after each change.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <lukskeep/device.h>

#include "archive/store.h"
#include "luks/header_file.h"

namespace lukskeep::archive {

// Tells where the private key is that a new store is sealed to. May throw for who has no such
// place.
using IdentityPath = std::function<std::string()>;

// Opens the store at `directory`, which is made if it is not there: sealed to the key at
// `identity_path()`, which is made too, mode 0600. Only then is `identity_path` asked, and
// `made_with` becomes what it said.
Store open_or_make(const std::string& directory, const IdentityPath& identity_path,
                   std::optional<std::string>& made_with);

// The snapshots of one command: before its first change of each header, and after its last.
class Keeper {
 public:
  // Opens what after() reads.
  using Open = std::function<std::shared_ptr<Device>(const std::string& path)>;

  // Without `open` it is storage::open_location(), which reads no file that an image names.
  Keeper(std::string directory, IdentityPath identity_path, std::string command, Open open = {});

  // To be called when the header at `path` is open for writing, before it is changed. Throws what
  // the archive throws: without a copy nothing is changed. Returns the snapshot's ID.
  std::string before(const luks::HeaderFile& file, const std::string& path);
  // A header was made at `path`, or is about to be replaced there: nothing to keep from before.
  void will_write(const std::string& path);
  // What is about to be overwritten at `path` cannot be read as a header any more: its bytes are
  // kept. Throws as before().
  std::string before(const Capture& wreck);
  // The header of `from` goes to `to`, and there is none at `from` any more.
  void moved(const std::string& from, const std::string& to);
  // To be called when everything is written and no device is open for writing any more. Returns one
  // sentence for each header that could not be archived.
  std::vector<std::string> after() noexcept;

  // The archive, if anything was put into it.
  Store* used_store() noexcept { return store_ ? &*store_ : nullptr; }

  // The private key of the store, if that was made by before() or after(): the user should know.
  const std::optional<std::string>& made_with() const noexcept { return made_with_; }
  const std::string& directory() const noexcept { return directory_; }

 private:
  Store& store();

  std::string directory_;
  IdentityPath identity_path_;
  std::string command_;
  Open open_;
  std::optional<Store> store_;
  std::vector<std::string> paths_;
  std::optional<std::string> made_with_;
};

}  // namespace lukskeep::archive
