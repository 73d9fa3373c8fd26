#include "archive/store.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/manifest_text.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "storage/file_device.h"
#include "storage/folders.h"
#include "storage/request.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;
using storage::Transaction;

constexpr const char* kRecipientsFile = "recipients";
constexpr const char* kCatalogueFile = "catalogue.sqlite";
constexpr const char* kSnapshotsFolder = "snapshots";
constexpr const char* kSuffix = ".snapshot";
constexpr std::size_t kPrefixMin = 4;
constexpr std::size_t kShortId = 12;

// Names tell how a snapshot came: "TIME-ID.snapshot", "TIME-ID-imported.snapshot".
constexpr std::string_view kImportedMark = "-imported";
constexpr std::string_view kUnprovenMark = "-unproven";
// Clocks of two machines differ; a snapshot from further in the future is no honest one.
constexpr std::int64_t kClockSlackNs = std::int64_t{86'400} * 1'000'000'000;
// Enough to read a manifest.
constexpr std::size_t kHeadBytes = limits::kManifestBytesMax + 64;

std::string in_quotes(const std::string& path) { return fmt::format("'{}'", printable(path, 256)); }

void write_whole(const std::string& path, ByteView bytes, bool replace = false) {
  storage::PendingFile file(path, bytes.size(), replace);
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

std::string_view mark_of(Trust trust) {
  switch (trust) {
    case Trust::kOwn:
      return "";
    case Trust::kImported:
      return kImportedMark;
    case Trust::kUnproven:
      return kUnprovenMark;
  }
  return "";
}

// A header backup that was archived is sealed here, but is no state of the device it was found on;
// neither is what could not be read any more.
bool is_no_state(std::string_view reason) { return reason == "import" || reason == kWreck; }

Trust trust_of(const fs::path& file, const Manifest& manifest) {
  const std::string stem = file.stem().string();
  if (stem.ends_with(kUnprovenMark)) return Trust::kUnproven;
  if (stem.ends_with(kImportedMark) || is_no_state(manifest.reason)) {
    return Trust::kImported;
  }
  return Trust::kOwn;
}

void refuse_future(const Manifest& manifest, std::string_view what) {
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  if (manifest.taken_ns - kClockSlackNs > now.count()) {
    throw Error(Code::kInvalidArgument,
                fmt::format("{} says that it was taken in the future", what),
                "set the clock right, or ask where the file comes from");
  }
}

// One that somebody removes while they are listed is no problem; what may be there but cannot be
// read just now is none of these, and must not be passed over.
bool is_no_snapshot(const Error& error) {
  return error.code() == Code::kDamaged || error.code() == Code::kUnsupported ||
         error.code() == Code::kTooSmall;
}

std::optional<std::string> id_of(ByteView file) {
  try {
    return read_snapshot(file, "a file").id;
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
    return std::nullopt;
  }
}

bool is_sound_database(const std::string& path) {
  try {
    return Catalogue(path).sound();
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged) throw;
    return false;
  }
}

// A lock together with the open file that it is on.
class HeldLock final : public DeviceLock {
 public:
  explicit HeldLock(std::unique_ptr<Device> device)
      : device_(std::move(device)), lock_(device_->lock_metadata()) {}

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<DeviceLock> lock_;
};

}  // namespace

struct Store::Import {
  SnapshotFile snapshot;
  ByteView bytes;
  std::string_view what;
  std::span<const AgeIdentity> identities;
  bool proven = false;
};

bool Store::exists(const std::string& directory) {
  std::error_code error;
  return fs::exists(fs::path(directory) / kRecipientsFile, error);
}

void Store::create(const std::string& directory, std::span<const AgeRecipient> recipients) {
  if (recipients.empty()) {
    throw Error(Code::kInvalidArgument, "an archive needs at least one recipient");
  }
  storage::make_private_folder(directory);
  storage::require_own_folder(directory);
  std::string text =
      "# Snapshots are sealed to these keys. Their private side opens them: age -d.\n";
  for (const AgeRecipient& recipient : recipients) text += to_string(recipient) + "\n";
  storage::make_private_folder((fs::path(directory) / kSnapshotsFolder).string());
  // Last: with it the directory is a store.
  write_whole((fs::path(directory) / kRecipientsFile).string(), as_byte_view(text));
}

Store::Store(std::string directory) : directory_(std::move(directory)) {
  if (!exists(directory_)) {
    throw Error(Code::kNotFound, fmt::format("{} is no archive", in_quotes(directory_)),
                "lukskeep archive init makes one");
  }
  const Bytes text = read_file(kRecipientsFile, limits::kSnapshotFileBytesMax);
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

// Absent if it is not there; whole.
std::optional<Bytes> Store::read_if_any(const std::string& file) const {
  try {
    return read_file(file, limits::kSnapshotFileBytesMax);
  } catch (const Error& error) {
    if (error.code() != Code::kNotFound && error.code() != Code::kDamaged) throw;
    return std::nullopt;
  }
}

// No more than the first `bytes_max` bytes.
Bytes Store::read_file(const std::string& file, std::size_t bytes_max) const {
  const auto device = storage::open_file(path(file), {.lock = false});
  if (device->size_bytes() > limits::kSnapshotFileBytesMax) {
    throw Error(Code::kDamaged,
                fmt::format("{} is larger than any snapshot", in_quotes(path(file))));
  }
  Bytes bytes(std::min<std::uint64_t>(device->size_bytes(), bytes_max));
  device->read(0, bytes);
  return bytes;
}

// ---- catalogue
// ---------------------------------------------------------------------------------

// SQLite is told to follow no symbolic link; those above the store are the user's business.
std::string Store::catalogue_path() const {
  std::error_code error;
  const fs::path folder = fs::canonical(directory_, error);
  if (error)
    storage::throw_errno(error.value(), fmt::format("cannot look at {}", in_quotes(directory_)));
  return (folder / kCatalogueFile).string();
}

// Held by the process that makes the catalogue anew.
std::unique_ptr<DeviceLock> Store::lock() const {
  return std::make_unique<HeldLock>(storage::open_file(path(kRecipientsFile), {.lock = false}));
}

// False if there is none, or one that is of no use.
bool Store::try_catalogue() {
  try {
    catalogue_ = std::make_unique<Catalogue>(catalogue_path());
    return catalogue_->usable();
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged) throw;
    return false;
  }
}

void Store::open_catalogue() {
  if (try_catalogue()) return;
  // Of several processes that find it missing one makes it.
  const auto held = lock();
  if (!try_catalogue()) problems_ = remake();
}

// Damage that opening does not meet shows where it is read: then the catalogue is made anew, once.
template <typename Call>
auto Store::with_catalogue(const Call& call) {
  try {
    return call(*catalogue_);
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged) throw;
  }
  const auto held = lock();
  // Another process may have done so already.
  bool sound = false;
  try {
    sound = try_catalogue() && catalogue_->sound();
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged) throw;
  }
  if (!sound) problems_ = remake();
  return call(*catalogue_);
}

std::vector<std::string> Store::rebuild() {
  const auto held = lock();
  return remake();
}

// In place where that is possible: other processes may have the database open, and what they write
// to a file without a name is lost. The caller holds lock().
std::vector<std::string> Store::remake() {
  const std::string file = catalogue_path();
  if (!is_sound_database(file)) {
    catalogue_.reset();
    for (const char* suffix : {"", "-journal"}) {
      std::error_code error;
      fs::remove(file + suffix, error);
      if (error)
        storage::throw_errno(error.value(),
                             fmt::format("cannot remove {}", in_quotes(file + suffix)));
    }
  }
  catalogue_ = std::make_unique<Catalogue>(file);
  if (chmod(file.c_str(), 0600) != 0) {
    storage::throw_errno(errno, fmt::format("cannot protect {}", in_quotes(file)));
  }
  Transaction transaction(catalogue_->database());
  catalogue_->reset();
  std::vector<std::string> problems = fill();
  catalogue_->settle_all();
  transaction.commit();
  return problems;
}

// Below the store's directory, in the order in which they were taken as far as names tell: the
// catalogue is read fastest in the order in which it was written.
std::vector<std::string> Store::snapshot_files() const {
  std::vector<std::pair<std::string, std::string>> named;
  std::error_code error;
  for (fs::recursive_directory_iterator it(path(kSnapshotsFolder), error), end; !error && it != end;
       it.increment(error)) {
    std::error_code gone;
    if (!it->is_regular_file(gone) || it->path().extension() != kSuffix) continue;
    named.emplace_back(it->path().filename().string(),
                       it->path().lexically_relative(directory_).string());
  }
  if (error)
    storage::throw_errno(error.value(),
                         fmt::format("cannot read {}", in_quotes(path(kSnapshotsFolder))));
  std::ranges::sort(named);
  std::vector<std::string> files;
  files.reserve(named.size());
  for (auto& [name, file] : named) files.push_back(std::move(file));
  return files;
}

// Every snapshot file into an empty catalogue.
std::vector<std::string> Store::fill() {
  std::vector<std::string> problems;
  for (const std::string& file : snapshot_files()) {
    const std::string what = in_quotes(path(file));
    try {
      std::error_code gone;
      const std::uint64_t size_bytes = fs::file_size(path(file), gone);
      if (gone) continue;
      const SnapshotFile snapshot = read_snapshot(read_file(file, kHeadBytes), what);
      catalogue_->insert(
          snapshot,
          {.file = file, .file_bytes = size_bytes, .trust = trust_of(file, snapshot.manifest)});
    } catch (const Error& problem) {
      if (problem.code() == Code::kNotFound) continue;  // removed meanwhile
      if (!is_no_snapshot(problem)) throw;
      problems.push_back(problem.message());
    }
  }
  return problems;
}

// ---- adding
// ------------------------------------------------------------------------------------

std::string Store::file_name(const SnapshotFile& snapshot, Trust trust) {
  const Manifest& manifest = snapshot.manifest;
  return (fs::path(kSnapshotsFolder) / folder_of(manifest.uuid) /
          fmt::format("{}-{}{}{}", manifest.taken_ns, snapshot.id.substr(0, kShortId),
                      mark_of(trust), kSuffix))
      .string();
}

// Durable before the catalogue names it.
void Store::write_file(const std::string& file, ByteView bytes, bool replace) const {
  storage::make_private_folder(path(fs::path(file).parent_path().string()));
  write_whole(path(file), bytes, replace);
}

// As it is sealed, piece by piece. Returns the size of the file.
std::uint64_t Store::write_sealed(const std::string& file, const Capture& capture) const {
  storage::make_private_folder(path(fs::path(file).parent_path().string()));
  storage::PendingFile pending(path(file), limits::snapshot_file_bytes_max(capture.header.size()),
                               false);
  std::uint64_t size_bytes = 0;
  seal_snapshot(capture, recipients_, [&](ByteView part) {
    pending.device().write(size_bytes, part);
    size_bytes += part.size();
  });
  pending.device().resize(size_bytes);
  pending.commit();
  return size_bytes;
}

void Store::record(const SnapshotFile& snapshot, const Stored& stored) {
  new_files_.push_back(stored.file);
  with_catalogue([&](Catalogue& catalogue) {
    Transaction transaction(catalogue.database());
    catalogue.erase(snapshot.id);
    catalogue.insert(snapshot, stored);
    catalogue.settle(snapshot.manifest.uuid, snapshot.manifest.device.path);
    transaction.commit();
  });
}

// The last one of its kind of the same device.
std::optional<Entry> Store::last_of(std::string_view uuid, std::string_view device_path,
                                    std::string_view reason) {
  const Trust trust = is_no_state(reason) ? Trust::kImported : Trust::kOwn;
  return with_catalogue(
      [&](Catalogue& catalogue) { return catalogue.newest(uuid, device_path, trust); });
}

Added Store::add(const luks::HeaderFile& file, const Origin& origin) {
  const auto last = last_of(uuid_text(file.header().uuid), place_text(origin.path), origin.reason);
  if (last && last->content_id == content_id(file) && holds(*last)) {
    return {.id = last->id, .is_new = false};
  }
  return add(capture(file, origin.path), origin);
}

Added Store::add(Capture taken, const Origin& origin) {
  Manifest& manifest = taken.manifest;
  manifest.reason = origin.reason;
  manifest.command = origin.command;
  const auto last = last_of(manifest.uuid, manifest.device.path, origin.reason);
  if (last && last->content_id == manifest.content_id && holds(*last)) {
    return {.id = last->id, .is_new = false};
  }
  // A clock that was set back must not make an older state the newest.
  if (last && last->taken_ns < INT64_MAX) {
    manifest.taken_ns = std::max(manifest.taken_ns, last->taken_ns + 1);
  }
  const SnapshotFile snapshot = name_snapshot(manifest);
  Stored stored{.file = file_name(snapshot, Trust::kOwn), .trust = trust_of({}, manifest)};
  stored.file_bytes = write_sealed(stored.file, taken);
  record(snapshot, stored);
  return {.id = snapshot.id, .is_new = true};
}

// ---- importing
// ---------------------------------------------------------------------------------

// The file of this very snapshot that the catalogue names, sound or not; or a sound one that it has
// lost.
std::optional<Stored> Store::find_stored(const SnapshotFile& snapshot) {
  const auto known =
      with_catalogue([&](Catalogue& catalogue) { return catalogue.by_id(snapshot.id); });
  if (known) {
    return Stored{.file = known->file, .file_bytes = known->file_bytes, .trust = known->trust};
  }
  for (const Trust trust : {Trust::kOwn, Trust::kImported, Trust::kUnproven}) {
    const std::string file = file_name(snapshot, trust);
    const auto bytes = read_if_any(file);
    if (bytes && id_of(*bytes) == snapshot.id) {
      return Stored{
          .file = file, .file_bytes = bytes->size(), .trust = trust_of(file, snapshot.manifest)};
    }
  }
  return std::nullopt;
}

// Whether what is stored is to stay, rather than `bytes` of the same manifest.
bool Store::is_to_stay(const Stored& stored, const Import& import) const {
  const auto present = read_if_any(stored.file);
  if (!present || id_of(*present) != import.snapshot.id) return false;
  if (std::ranges::equal(*present, import.bytes)) return true;
  const std::string what = in_quotes(path(stored.file));
  try {
    if (prove_snapshot(*present, import.identities, what)) return true;
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged) throw;
  }
  if (import.proven) return false;
  throw Error(Code::kUnsafe,
              fmt::format("{} is there already, with other bytes than {}", what, import.what),
              "--identity with the private key tells which of the two is sound");
}

Added Store::import_file(ByteView bytes, std::string_view what,
                         std::span<const AgeIdentity> identities) {
  Import import{.snapshot = read_snapshot(bytes, what),
                .bytes = bytes,
                .what = what,
                .identities = identities};
  refuse_future(import.snapshot.manifest, what);
  import.proven = prove_snapshot(bytes, identities, what);
  const Trust trust = import.proven ? Trust::kImported : Trust::kUnproven;
  Stored stored{
      .file = file_name(import.snapshot, trust), .file_bytes = bytes.size(), .trust = trust};
  const auto present = find_stored(import.snapshot);
  if (!present) {
    // What is under this name is no sound snapshot, or one that could have any name: see
    // find_stored.
    const auto in_the_way = read_if_any(stored.file);
    write_file(stored.file, bytes, !in_the_way || !id_of(*in_the_way));
    record(import.snapshot, stored);
    return {.id = import.snapshot.id, .is_new = true, .proven = import.proven};
  }
  const bool stays = is_to_stay(*present, import);
  // What is proven now gets the name of what is.
  const bool promoted = present->trust == Trust::kUnproven && import.proven;
  if (!promoted) stored.file = present->file;
  if (!promoted) stored.trust = present->trust;
  if (!stays || promoted) write_file(stored.file, bytes, true);
  if (stays && !promoted) stored.file_bytes = fs::file_size(path(stored.file));
  record(import.snapshot, stored);
  if (promoted) remove_file(present->file);
  return {.id = import.snapshot.id,
          .is_new = false,
          .proven = import.proven || (stays && stored.trust != Trust::kUnproven),
          .mended = !stays};
}

// ---- asking
// ------------------------------------------------------------------------------------

std::optional<Entry> Store::newest(std::string_view uuid, std::string_view device_path) {
  return with_catalogue([&](Catalogue& catalogue) {
    return catalogue.newest(uuid_text(uuid), manifest_text(device_path), Trust::kOwn);
  });
}

std::optional<Entry> Store::newest_at(std::string_view device_path) {
  return with_catalogue([&](Catalogue& catalogue) {
    return catalogue.newest_at(manifest_text(device_path), Trust::kOwn);
  });
}

std::vector<Entry> Store::list(std::string_view uuid) {
  return with_catalogue([&](Catalogue& catalogue) { return catalogue.list(uuid); });
}

void Store::for_each(std::string_view uuid, const std::function<void()>& start,
                     const std::function<void(const Entry&)>& visit) {
  with_catalogue([&](Catalogue& catalogue) {
    start();
    catalogue.for_each(uuid, visit);
  });
}

Entry Store::find(std::string_view id_prefix) {
  const bool hex = std::ranges::all_of(
      id_prefix, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (!hex || id_prefix.size() < kPrefixMin || id_prefix.size() > 64) {
    throw Error(
        Code::kInvalidArgument, fmt::format("'{}' is no snapshot's name", printable(id_prefix)),
        fmt::format("it is {} or more of the hex digits that archive list shows", kPrefixMin));
  }
  const std::vector<Entry> found =
      with_catalogue([&](Catalogue& catalogue) { return catalogue.starting_with(id_prefix); });
  if (found.empty()) {
    throw Error(Code::kNotFound, fmt::format("the archive has no snapshot '{}'", id_prefix));
  }
  if (found.size() > 1) {
    throw Error(Code::kInvalidArgument, fmt::format("several snapshots start with '{}'", id_prefix),
                "give more digits");
  }
  return found.front();
}

// The one place where a file is believed to be what the catalogue says.
Bytes Store::read_stored(const Entry& entry, std::size_t bytes_max) const {
  const std::string what = in_quotes(path(entry.file));
  std::error_code error;
  const std::uint64_t size_bytes = fs::file_size(path(entry.file), error);
  if (!error && size_bytes != entry.file_bytes) {
    throw Error(Code::kDamaged, fmt::format("{} has {} bytes, and had {} when it was archived",
                                            what, size_bytes, entry.file_bytes));
  }
  Bytes bytes = read_file(entry.file, bytes_max);
  if (read_snapshot(bytes, what).id != entry.id) {
    throw Error(Code::kDamaged, fmt::format("{} was changed since it was archived", what));
  }
  return bytes;
}

bool Store::holds(const Entry& entry) const noexcept {
  try {
    static_cast<void>(read_stored(entry, kHeadBytes));
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

Manifest Store::manifest(const Entry& entry) const {
  return read_snapshot(read_stored(entry, kHeadBytes), in_quotes(path(entry.file))).manifest;
}

Bytes Store::file_of(const Entry& entry) const {
  return read_stored(entry, limits::kSnapshotFileBytesMax);
}

Bytes Store::open(const Entry& entry, std::span<const AgeIdentity> identities) const {
  const std::string what = in_quotes(path(entry.file));
  auto header = open_snapshot(file_of(entry), identities, what);
  if (!header) {
    throw Error(Code::kPermissionDenied, fmt::format("{} is sealed to somebody else's key", what),
                "name the private key with --identity");
  }
  return std::move(*header);
}

void Store::remove_file(const std::string& file) const {
  std::error_code error;
  fs::remove(path(file), error);
  if (error)
    storage::throw_errno(error.value(), fmt::format("cannot remove {}", in_quotes(path(file))));
}

void Store::remove(const Entry& entry) {
  with_catalogue([&](Catalogue& catalogue) {
    Transaction transaction(catalogue.database());
    catalogue.erase(entry.id);
    // Before the commit: what cannot be removed stays in the catalogue.
    remove_file(entry.file);
    // Others are measured by references only.
    if (entry.reference) catalogue.settle(entry.uuid, entry.device_path);
    transaction.commit();
  });
}

}  // namespace lukskeep::archive
