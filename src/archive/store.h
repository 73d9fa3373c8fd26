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
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "archive/age.h"
#include "archive/catalogue.h"
#include "archive/snapshot.h"

namespace lukskeep::archive {

struct Added {
  std::string id;
  bool is_new = false;  // false: the newest snapshot of this device holds the same already
  // import_file() only: its header was opened, and is the one that it describes.
  bool proven = true;
  bool mended = false;  // import_file(): was there, but lost or damaged
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

  // Of files that were no sound snapshots when the catalogue was made anew by itself.
  const std::vector<std::string>& problems() const noexcept { return problems_; }

  // Durable when it returns. It is taken after every other of its device, whatever the clock says.
  // A snapshot with the reason "import" is no state of the device that it names: it counts as
  // imported.
  Added add(const luks::HeaderFile& file, const Origin& origin);
  // The same of what was read before: throws for the archive's sake only, not for the volume's.
  Added add(Capture taken, const Origin& origin);
  // A snapshot file from elsewhere, kept as it is. Whatever it says of itself, it is never the
  // newest of a volume. Where an identity opens it, what it says has to be so (else kDamaged). One
  // that is lost or damaged in this archive is written anew. Throws kInvalidArgument (taken in the
  // future), kUnsafe (the archive has another file of the same snapshot, and no identity tells
  // which of the two is sound).
  Added import_file(ByteView snapshot, std::string_view what,
                    std::span<const AgeIdentity> identities);

  // Newest first. An empty uuid means all volumes.
  std::vector<Entry> list(std::string_view uuid = {});
  // The same one by one, as they were recorded, the last first: not all in memory at once. `start`
  // is called before the first, again if the catalogue turns out to be damaged and is made anew.
  void for_each(std::string_view uuid, const std::function<void()>& start,
                const std::function<void(const Entry&)>& visit);
  // Of whatever volume was at this absolute path; of what was taken here only.
  std::optional<Entry> newest_at(std::string_view device_path);
  // Of one volume where it is now; of what was taken here only.
  std::optional<Entry> newest(std::string_view uuid, std::string_view device_path);
  // Whether the snapshot is there, as far as can be told without opening it.
  bool holds(const Entry& entry) const noexcept;
  // Throws kNotFound, kInvalidArgument (ambiguous, or no hex).
  Entry find(std::string_view id_prefix);
  // Throws kDamaged if the file is not the one that was archived; so do the next two.
  Manifest manifest(const Entry& entry) const;
  // As it is stored.
  Bytes file_of(const Entry& entry) const;
  // The header's bytes. Throws kPermissionDenied if no identity opens it, kDamaged.
  Bytes open(const Entry& entry, std::span<const AgeIdentity> identities) const;
  void remove(const Entry& entry);

  // What this object has added, below the directory.
  const std::vector<std::string>& new_files() const noexcept { return new_files_; }

  // Makes the catalogue anew; returns one sentence for each file that is no sound snapshot.
  std::vector<std::string> rebuild();

 private:
  struct Import;  // what import_file() is given, and found out

  std::string path(std::string_view below) const;
  Bytes read_file(const std::string& file, std::size_t bytes_max) const;
  std::optional<Bytes> read_if_any(const std::string& file) const;
  Bytes read_stored(const Entry& entry, std::size_t bytes_max) const;
  void write_file(const std::string& file, ByteView bytes, bool replace) const;
  std::uint64_t write_sealed(const std::string& file, const Capture& capture) const;
  void remove_file(const std::string& file) const;

  std::string catalogue_path() const;
  std::unique_ptr<DeviceLock> lock() const;
  bool try_catalogue();
  void open_catalogue();
  template <typename Call>
  auto with_catalogue(const Call& call);
  std::vector<std::string> remake();
  std::vector<std::string> snapshot_files() const;
  std::vector<std::string> fill();

  static std::string file_name(const SnapshotFile& snapshot, Trust trust);
  void record(const SnapshotFile& snapshot, const Stored& stored);
  std::optional<Entry> last_of(std::string_view uuid, std::string_view device_path,
                               std::string_view reason);
  std::optional<Stored> find_stored(const SnapshotFile& snapshot);
  bool is_to_stay(const Stored& stored, const Import& import) const;

  std::vector<std::string> new_files_;
  std::string directory_;
  std::vector<AgeRecipient> recipients_;
  std::unique_ptr<Catalogue> catalogue_;
  std::vector<std::string> problems_;
};

}  // namespace lukskeep::archive
