// Second places for the files of an archive: a folder, perhaps on a mounted share, or a bucket of
// object storage. What is sealed stays sealed: a mirror needs no key and learns nothing.
//
// Each object belongs to one thread.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/progress.h>

#include "archive/store.h"
#include "base/bytes.h"
#include "net/http_client.h"

namespace lukskeep::archive {

class Mirror {
 public:
  virtual ~Mirror() = default;
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;

  // Names of the snapshot files there: is_snapshot_name() holds for each. At most
  // limits::kMirrorFilesMax. Throws kNotFound (a folder that is
  // not there, or is no mirror: a share that is not mounted), kRemote, kTimeout, kPermissionDenied.
  virtual std::set<std::string> list() = 0;
  // Durable when it returns. Replaces nothing: the same bytes under that name are good, others are
  // kExists. Throws as list(), and kNoSpace.
  virtual void put(const std::string& file, ByteView bytes) = 0;
  // Throws as list().
  virtual Bytes get(const std::string& file) = 0;

 protected:
  Mirror() = default;
};

struct MirrorOptions {
  // For buckets; asked for only then. Throws if there are none.
  std::function<net::AwsCredentials()> credentials;
  const CancelToken* cancel = nullptr;
  // False: a server that is away or slow is given up after seconds, not minutes.
  bool patient = true;
};

// Whether `file` may be the name of a snapshot below an archive: "snapshots/FOLDER/NAME.snapshot",
// at most 256 bytes, nothing hidden, nothing that leads elsewhere.
bool is_snapshot_name(std::string_view file);

// For implementations of put().
[[noreturn]] void throw_other_bytes(std::string_view file, std::string_view mirror);

// "/absolute/folder", which must be a mirror already, or "s3+https://HOST[:PORT]/BUCKET[/PREFIX]"
// (s3+http: without encryption). Throws kInvalidArgument for any other text; talks to nobody yet.
std::unique_ptr<Mirror> open_mirror(std::string_view uri, const MirrorOptions& options);

// Makes the folder of a mirror, mode 0700, with its mark; for a bucket checks that it can be
// listed.
void prepare_mirror(std::string_view uri, const MirrorOptions& options);

// The mirrors of a store: the lines of its file "mirrors".
std::vector<std::string> mirrors_of(const Store& store);
// What one program adds or removes is kept by another that does so at the same time. Return what
// the mirrors are then. Adding what is there and removing what is not changes nothing. Throws
// kInvalidArgument if they are too many for that file.
std::vector<std::string> add_mirror(const Store& store, const std::string& uri);
std::vector<std::string> remove_mirror(const Store& store, const std::string& uri);

struct SyncReport {
  std::size_t sent = 0;
  // One sentence for each mirror that could not be served, and for each snapshot that is damaged or
  // lost here and so reached none.
  std::vector<std::string> problems;
};

// Brings every mirror what it lacks of the store. A mirror that fails does not stop the others, and
// is remembered: see has_unsynced().
SyncReport sync_mirrors(Store& store, const MirrorOptions& options);

// The same of these files of the store only; of everything if a mirror was left behind before.
SyncReport sync_files(Store& store, const std::vector<std::string>& files,
                      const MirrorOptions& options);

// For who does not wait for mirrors: remembers that they lack something, if there are any.
void leave_to_sync(const Store& store);

// Whether the last sync left a mirror behind.
bool has_unsynced(const Store& store);

// Takes in what `mirror` has and the store lacks, or has lost; returns how many. One sentence in
// `problems` for each file that is no sound snapshot, up to a hundred.
// `identities` prove what comes: see Store::import_file.
std::size_t fetch_from_mirror(Store& store, Mirror& mirror, std::span<const AgeIdentity> identities,
                              std::vector<std::string>& problems,
                              const CancelToken* cancel = nullptr);

}  // namespace lukskeep::archive
