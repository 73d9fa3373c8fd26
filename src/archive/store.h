// A directory of snapshots and its catalogue.
//
//   recipients            to whom snapshots are sealed, one age recipient a line
//   snapshots/UUID/…      one file each, complete in itself
//   catalogue.sqlite      what `list` and `status` need to know; made anew from the files if it is
//                         lost or damaged
//
// Snapshot files are the truth: they are durable before the catalogue names them. Several processes
// may use a store at once; one Store object belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "archive/age.h"
#include "archive/database.h"
#include "archive/snapshot.h"

namespace lukskeep::archive {

// A snapshot as the catalogue has it.
struct Entry {
  std::string id;    // 64 hex digits; any unambiguous prefix of at least 4 names it
  std::string file;  // below the store's directory
  std::string uuid;
  std::string device_path;
  std::string reason;
  std::string command;
  std::string content_id;
  std::int64_t taken_ns = 0;
  std::uint64_t sequence_id = 0;
  unsigned version = 2;
  unsigned keyslots = 0;
  // It holds a key that the newest snapshot of the volume has no more.
  bool revoked = false;
};

struct Added {
  std::string id;
  bool is_new = false;  // false: the newest snapshot of this device holds the same already
};

struct Origin {
  std::string path;    // of the device
  std::string reason;  // see Manifest
  std::string command;
};

class Store {
 public:
  // Whether `directory` is a store.
  static bool exists(const std::string& directory);
  // Makes a new one, mode 0700. Throws kExists if it is one already, kInvalidArgument without
  // recipients.
  static void create(const std::string& directory, std::span<const AgeRecipient> recipients);

  // Throws kNotFound if it is no store, kPermissionDenied, kBusy, kIo.
  explicit Store(std::string directory);

  const std::string& directory() const noexcept { return directory_; }
  const std::vector<AgeRecipient>& recipients() const noexcept { return recipients_; }

  // Durable when it returns.
  Added add(const luks::HeaderFile& file, const Origin& origin);
  // A snapshot file from elsewhere, kept as it is.
  Added import_file(ByteView snapshot, std::string_view what);

  // Newest first. An empty uuid means all volumes.
  std::vector<Entry> list(std::string_view uuid = {});
  // Of whatever volume was at this (absolute) path.
  std::optional<Entry> newest_at(std::string_view device_path);
  // Of one volume where it is now.
  std::optional<Entry> newest(std::string_view uuid, std::string_view device_path);
  // Throws kNotFound, kInvalidArgument (ambiguous, or no hex).
  Entry find(std::string_view id_prefix);
  Manifest manifest(const Entry& entry) const;
  // As it is stored.
  Bytes file_of(const Entry& entry) const { return read_file(entry.file); }
  // The header's bytes. Throws kPermissionDenied if no identity opens it, kDamaged.
  Bytes open(const Entry& entry, std::span<const AgeIdentity> identities) const;
  void remove(const Entry& entry);

  // Makes the catalogue anew; returns one sentence for each file that is no sound snapshot.
  std::vector<std::string> rebuild();

 private:
  std::string path(std::string_view below) const;
  Bytes read_file(const std::string& file) const;
  bool try_catalogue();
  void open_catalogue();
  bool knows(std::string_view id);
  std::string write_file(const Manifest& manifest, const std::string& id, ByteView bytes) const;
  void insert(const SnapshotFile& snapshot, const std::string& file);
  void mark_revoked(const std::string& uuid);

  std::string directory_;
  std::vector<AgeRecipient> recipients_;
  std::unique_ptr<Database> database_;
};

}  // namespace lukskeep::archive
