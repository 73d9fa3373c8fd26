#include "archive/store.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/device_identity.h"
#include "archive/folders.h"
#include "archive/system_error.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "crypto/hash.h"
#include "storage/file_device.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRecipientsFile = "recipients";
constexpr const char* kCatalogueFile = "catalogue.sqlite";
constexpr const char* kSnapshotsFolder = "snapshots";
constexpr const char* kSuffix = ".snapshot";
constexpr std::size_t kPrefixMin = 4;
constexpr std::size_t kShortId = 12;
// Compression and sealing add little to what a header may have.
constexpr std::uint64_t kFileBytesMax =
    limits::kSnapshotHeaderBytesMax + limits::kSnapshotHeaderBytesMax / 16 + limits::kMiB;

// Raised when the tables change: a catalogue of another version is made anew.
constexpr int kSchemaVersion = 1;
constexpr std::string_view kSchema = R"sql(
  CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, file TEXT NOT NULL, uuid TEXT NOT NULL, device_path TEXT NOT NULL,
    reason TEXT NOT NULL, command TEXT NOT NULL, content_id TEXT NOT NULL,
    taken_ns INTEGER NOT NULL, sequence_id INTEGER NOT NULL, version INTEGER NOT NULL,
    keyslots INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0);
  CREATE INDEX by_time ON snapshots (taken_ns DESC);
  CREATE INDEX by_volume ON snapshots (uuid, taken_ns DESC);
  CREATE TABLE keys (
    snapshot INTEGER NOT NULL REFERENCES snapshots (number) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (snapshot, fingerprint)) WITHOUT ROWID;
)sql";

std::string in_quotes(const std::string& path) { return fmt::format("'{}'", printable(path, 256)); }

void write_whole(const std::string& path, ByteView bytes) {
  storage::PendingFile file(path, bytes.size(), false);
  file.device().write(0, bytes);
  file.commit();
}

// A UUID comes from a header that a stranger may have written.
std::string folder_of(const std::string& uuid) {
  if (!is_uuid(uuid)) return "no-uuid";
  std::string folder = uuid;
  std::ranges::transform(folder, folder.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return folder;
}

Entry entry_of(const Statement& row) {
  return {.id = row.text(0),
          .file = row.text(1),
          .uuid = row.text(2),
          .device_path = row.text(3),
          .reason = row.text(4),
          .command = row.text(5),
          .content_id = row.text(6),
          .taken_ns = row.number(7),
          .sequence_id = static_cast<std::uint64_t>(row.number(8)),
          .version = static_cast<unsigned>(row.number(9)),
          .keyslots = static_cast<unsigned>(row.number(10)),
          .revoked = row.number(11) != 0};
}

constexpr std::string_view kColumns =
    "id, file, uuid, device_path, reason, command, content_id, taken_ns, sequence_id, version, "
    "keyslots, revoked";

}  // namespace

bool Store::exists(const std::string& directory) {
  std::error_code error;
  return fs::exists(fs::path(directory) / kRecipientsFile, error);
}

void Store::create(const std::string& directory, std::span<const AgeRecipient> recipients) {
  if (recipients.empty()) {
    throw Error(Code::kInvalidArgument, "an archive needs at least one recipient");
  }
  make_private_folder(directory);
  require_own_folder(directory);
  std::string text =
      "# Snapshots are sealed to these keys. Their private side opens them: age -d.\n";
  for (const AgeRecipient& recipient : recipients) text += to_string(recipient) + "\n";
  make_private_folder((fs::path(directory) / kSnapshotsFolder).string());
  // Last: with it the directory is a store.
  write_whole((fs::path(directory) / kRecipientsFile).string(), as_byte_view(text));
}

Store::Store(std::string directory) : directory_(std::move(directory)) {
  if (!exists(directory_)) {
    throw Error(Code::kNotFound, fmt::format("{} is no archive", in_quotes(directory_)),
                "lukskeep archive init makes one");
  }
  const Bytes text = read_file(kRecipientsFile);
  recipients_ = parse_age_recipients(as_string_view(text), in_quotes(path(kRecipientsFile)));
  if (recipients_.empty()) {
    throw Error(Code::kDamaged,
                fmt::format("{} names no recipient", in_quotes(path(kRecipientsFile))));
  }
  open_catalogue();
}

std::string Store::path(std::string_view below) const {
  return (fs::path(directory_) / below).string();
}

Bytes Store::read_file(const std::string& file) const {
  const auto device = storage::open_file(path(file), {.lock = false});
  if (device->size_bytes() > kFileBytesMax) {
    throw Error(Code::kDamaged,
                fmt::format("{} is larger than any snapshot", in_quotes(path(file))));
  }
  Bytes bytes(device->size_bytes());
  device->read(0, bytes);
  return bytes;
}

// False if there is none, or one that is of no use.
bool Store::try_catalogue() {
  try {
    database_ = std::make_unique<Database>(path(kCatalogueFile));
    database_->run("PRAGMA foreign_keys = ON");
    Statement version = database_->prepare("PRAGMA user_version");
    return version.step() && version.number(0) == kSchemaVersion;
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged) throw;
    return false;
  }
}

void Store::open_catalogue() {
  if (try_catalogue()) return;
  // Of several processes that find it missing one makes it.
  const auto recipients =
      storage::open_file(path(kRecipientsFile), {.access = Access::kRead, .lock = false});
  const std::unique_ptr<DeviceLock> lock = recipients->lock_metadata();
  if (!try_catalogue()) rebuild();
}

std::vector<std::string> Store::rebuild() {
  database_.reset();
  const std::string file = path(kCatalogueFile);
  for (const char* suffix : {"", "-journal"}) {
    std::error_code error;
    fs::remove(file + suffix, error);
    if (error) throw_system(error, fmt::format("cannot remove {}", in_quotes(file + suffix)));
  }
  database_ = std::make_unique<Database>(file);
  if (chmod(file.c_str(), 0600) != 0) {
    throw_system({errno, std::generic_category()},
                 fmt::format("cannot protect {}", in_quotes(file)));
  }
  database_->run("PRAGMA foreign_keys = ON");
  Transaction transaction(*database_);
  database_->run(kSchema);
  database_->run(fmt::format("PRAGMA user_version = {}", kSchemaVersion));
  std::vector<std::string> problems;
  std::vector<std::string> volumes;
  std::error_code error;
  for (fs::recursive_directory_iterator it(path(kSnapshotsFolder), error), end; !error && it != end;
       it.increment(error)) {
    if (!it->is_regular_file(error) || it->path().extension() != kSuffix) continue;
    const std::string below = fs::relative(it->path(), directory_, error).string();
    try {
      const SnapshotFile snapshot = read_snapshot(read_file(below), in_quotes(it->path().string()));
      insert(snapshot, below);
      volumes.push_back(snapshot.manifest.uuid);
    } catch (const Error& problem) {
      problems.push_back(problem.message());
    }
  }
  if (error) throw_system(error, fmt::format("cannot read {}", in_quotes(path(kSnapshotsFolder))));
  std::ranges::sort(volumes);
  volumes.erase(std::ranges::unique(volumes).begin(), volumes.end());
  for (const std::string& uuid : volumes) mark_revoked(uuid);
  transaction.commit();
  return problems;
}

std::string Store::write_file(const Manifest& manifest, const std::string& id,
                              ByteView bytes) const {
  const fs::path folder = fs::path(kSnapshotsFolder) / folder_of(manifest.uuid);
  make_private_folder(path(folder.string()));
  const std::string file =
      (folder / fmt::format("{}-{}{}", manifest.taken_ns, id.substr(0, kShortId), kSuffix))
          .string();
  write_whole(path(file), bytes);
  return file;
}

void Store::insert(const SnapshotFile& snapshot, const std::string& file) {
  const Manifest& manifest = snapshot.manifest;
  Statement row = database_->prepare(
      "INSERT OR IGNORE INTO snapshots (id, file, uuid, device_path, reason, command, content_id, "
      "taken_ns, sequence_id, version, keyslots) VALUES (?,?,?,?,?,?,?,?,?,?,?) RETURNING number");
  row.bind(snapshot.id).bind(file).bind(manifest.uuid).bind(manifest.device.path);
  row.bind(manifest.reason).bind(manifest.command).bind(manifest.content_id);
  row.bind(manifest.taken_ns).bind(static_cast<std::int64_t>(manifest.sequence_id));
  row.bind(std::int64_t{manifest.version});
  row.bind(static_cast<std::int64_t>(manifest.keyslots.size()));
  if (!row.step()) return;  // there already
  const std::int64_t number = row.number(0);
  for (const SnapshotKey& key : manifest.keyslots) {
    Statement insert = database_->prepare("INSERT OR IGNORE INTO keys VALUES (?,?)");
    insert.bind(number).bind(key.fingerprint).step();
  }
}

void Store::mark_revoked(const std::string& uuid) {
  Statement update = database_->prepare(
      "UPDATE snapshots SET revoked = EXISTS (SELECT 1 FROM keys WHERE keys.snapshot = number AND "
      "fingerprint NOT IN (SELECT fingerprint FROM keys WHERE keys.snapshot = (SELECT s.number "
      "FROM "
      "snapshots s WHERE s.uuid = ?1 ORDER BY s.taken_ns DESC, s.number DESC LIMIT 1))) "
      "WHERE uuid = ?1");
  update.bind(uuid).step();
}

std::optional<Entry> Store::newest(std::string_view uuid, std::string_view device_path) {
  Statement rows =
      database_->prepare(fmt::format("SELECT {} FROM snapshots WHERE uuid = ? AND device_path = ? "
                                     "ORDER BY taken_ns DESC, number DESC LIMIT 1",
                                     kColumns));
  rows.bind(uuid).bind(device_path);
  if (!rows.step()) return std::nullopt;
  return entry_of(rows);
}

std::optional<Entry> Store::newest_at(std::string_view device_path) {
  Statement rows =
      database_->prepare(fmt::format("SELECT {} FROM snapshots WHERE device_path = ? "
                                     "ORDER BY taken_ns DESC, number DESC LIMIT 1",
                                     kColumns));
  if (!rows.bind(device_path).step()) return std::nullopt;
  return entry_of(rows);
}

bool Store::knows(std::string_view id) {
  Statement row = database_->prepare("SELECT 1 FROM snapshots WHERE id = ?");
  return row.bind(id).step();
}

Added Store::add(const luks::HeaderFile& file, const Origin& origin) {
  const auto present = newest(file.header().uuid, absolute_path(origin.path));
  if (present && present->content_id == content_id(file)) {
    return {.id = present->id, .is_new = false};
  }
  Capture taken = capture(file, origin.path);
  taken.manifest.reason = origin.reason;
  taken.manifest.command = origin.command;
  return import_file(seal_snapshot(taken, recipients_), "the new snapshot");
}

Added Store::import_file(ByteView bytes, std::string_view what) {
  const SnapshotFile snapshot = read_snapshot(bytes, what);
  if (knows(snapshot.id)) return {.id = snapshot.id, .is_new = false};
  const std::string file = write_file(snapshot.manifest, snapshot.id, bytes);
  Transaction transaction(*database_);
  insert(snapshot, file);
  mark_revoked(snapshot.manifest.uuid);
  transaction.commit();
  return {.id = snapshot.id, .is_new = true};
}

std::vector<Entry> Store::list(std::string_view uuid) {
  Statement rows = database_->prepare(
      fmt::format("SELECT {} FROM snapshots {} ORDER BY taken_ns DESC, number DESC", kColumns,
                  uuid.empty() ? "" : "WHERE uuid = ?"));
  if (!uuid.empty()) rows.bind(uuid);
  std::vector<Entry> entries;
  while (rows.step()) entries.push_back(entry_of(rows));
  return entries;
}

Entry Store::find(std::string_view id_prefix) {
  const bool hex = std::ranges::all_of(
      id_prefix, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (!hex || id_prefix.size() < kPrefixMin || id_prefix.size() > 64) {
    throw Error(
        Code::kInvalidArgument, fmt::format("'{}' is no snapshot's name", printable(id_prefix)),
        fmt::format("it is {} or more of the hex digits that archive list shows", kPrefixMin));
  }
  Statement rows = database_->prepare(
      fmt::format("SELECT {} FROM snapshots WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2", kColumns));
  rows.bind(id_prefix);
  if (!rows.step()) {
    throw Error(Code::kNotFound, fmt::format("the archive has no snapshot '{}'", id_prefix));
  }
  Entry entry = entry_of(rows);
  if (rows.step()) {
    throw Error(Code::kInvalidArgument, fmt::format("several snapshots start with '{}'", id_prefix),
                "give more digits");
  }
  return entry;
}

Manifest Store::manifest(const Entry& entry) const {
  const SnapshotFile snapshot = read_snapshot(read_file(entry.file), in_quotes(path(entry.file)));
  if (snapshot.id != entry.id) {
    throw Error(Code::kDamaged,
                fmt::format("{} was changed since it was archived", in_quotes(path(entry.file))));
  }
  return snapshot.manifest;
}

Bytes Store::open(const Entry& entry, std::span<const AgeIdentity> identities) const {
  const std::string what = in_quotes(path(entry.file));
  const Bytes file = read_file(entry.file);
  auto header = open_snapshot(file, identities, what);
  if (!header) {
    throw Error(Code::kPermissionDenied, fmt::format("{} is sealed to somebody else's key", what),
                "name the private key with --identity");
  }
  return std::move(*header);
}

void Store::remove(const Entry& entry) {
  Statement row = database_->prepare("DELETE FROM snapshots WHERE id = ?");
  row.bind(entry.id).step();
  std::error_code error;
  fs::remove(path(entry.file), error);
  if (error) throw_system(error, fmt::format("cannot remove {}", in_quotes(path(entry.file))));
  mark_revoked(entry.uuid);
}

}  // namespace lukskeep::archive
