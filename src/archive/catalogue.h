// What `list` and `status` need to know of the snapshots of a store, in SQLite. Nothing is here
// that the snapshot files do not say too. One thread at a time, any number of processes.
//
// Every function throws what storage::Database throws; kDamaged means that the catalogue has to be
// made anew.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "archive/snapshot.h"
#include "storage/database.h"

namespace lukskeep::archive {

// How a snapshot came into the store, and so how far its manifest is believed.
enum class Trust : std::uint8_t {
  kOwn,       // taken here, from the device that it names
  kImported,  // from elsewhere; its header was opened, and is the one that it describes
  kUnproven,  // from elsewhere, and not opened
};

// A snapshot as the catalogue has it. `uuid` and `device_path` are manifest_text().
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
  std::uint64_t file_bytes = 0;
  std::int64_t key_set = 0;  // equal for the same set of keys
  unsigned version = 2;
  unsigned keyslots = 0;
  Trust trust = Trust::kOwn;
  // What the volume (of this UUID, at this path) is measured by: the newest snapshot, and the one
  // with the highest sequence id. Always kOwn.
  bool reference = false;
  // It holds a key that the references have no more. Where there are none of the path (of what was
  // imported): that the references of no path have.
  bool revoked = false;
};

// Where a snapshot is.
struct Stored {
  std::string file;
  std::uint64_t file_bytes = 0;
  Trust trust = Trust::kOwn;
};

class Catalogue {
 public:
  // Opens or creates the file. It may be no catalogue: see usable().
  explicit Catalogue(const std::string& path);

  // Whether it has the tables of this version. Reads little: damage elsewhere shows later.
  bool usable();
  // Whether every page of it reads. Reads all.
  bool sound();
  storage::Database& database() noexcept { return database_; }

  // These change: to be called within a Transaction, which has to end with settle().
  void reset();
  void insert(const SnapshotFile& snapshot, const Stored& stored);
  void erase(std::string_view id);
  // Finds references and what is revoked anew, after a change to `uuid` at `device_path`.
  void settle(const std::string& uuid, const std::string& device_path);
  void settle_all();

  std::vector<Entry> list(std::string_view uuid);
  // The same one by one, in the order of their numbers, the last first: not all in memory at once.
  void for_each(std::string_view uuid, const std::function<void(const Entry&)>& visit);
  std::optional<Entry> by_id(std::string_view id);
  // The first two whose ID starts so.
  std::vector<Entry> starting_with(std::string_view id_prefix);
  std::optional<Entry> newest_at(std::string_view device_path, Trust trust);
  std::optional<Entry> newest(std::string_view uuid, std::string_view device_path, Trust trust);

 private:
  storage::Statement last_first(std::string_view uuid);
  void find_references(const std::string& uuid, const std::string& device_path);
  void mark_revoked(const std::string& uuid, const std::string& device_path);
  void mark_revoked_elsewhere(const std::string& uuid);

  storage::Database database_;
};

}  // namespace lukskeep::archive
