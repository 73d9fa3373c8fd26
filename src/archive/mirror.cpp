#include "archive/mirror.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/s3_mirror.h"
#include "base/limits.h"
#include "storage/file_device.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;

// Tells a mirror from the empty folder over which it should be mounted.
constexpr const char* kMark = "lukskeep-mirror";
constexpr const char* kMirrorsFile = "mirrors";
constexpr const char* kUnsyncedFile = "unsynced";

bool is_bucket(std::string_view uri) {
  return uri.starts_with("s3+https://") || uri.starts_with("s3+http://");
}

// A name from a catalogue or a listing: below the mirror, and nothing else.
bool is_snapshot_name(const std::string& file) {
  const fs::path path(file);
  return path.is_relative() && path.extension() == ".snapshot" &&
         std::ranges::none_of(path,
                              [](const fs::path& part) { return part == ".." || part == "."; });
}

void write_file(const std::string& path, ByteView bytes, bool replace) {
  storage::PendingFile file(path, bytes.size(), replace);
  file.device().write(0, bytes);
  file.commit();
}

Bytes read_file(const std::string& path, std::size_t bytes_max) {
  const auto device = storage::open_file(path, {.lock = false});
  if (device->size_bytes() > bytes_max) {
    throw Error(Code::kDamaged, fmt::format("'{}' is too large", printable(path, 256)));
  }
  Bytes bytes(device->size_bytes());
  device->read(0, bytes);
  return bytes;
}

class FolderMirror final : public Mirror {
 public:
  explicit FolderMirror(std::string_view folder) : folder_(folder) {}

  std::set<std::string> list() override {
    check_mark();
    std::set<std::string> files;
    std::error_code error;
    for (fs::recursive_directory_iterator it(folder_, error), end; !error && it != end;
         it.increment(error)) {
      if (it->path().extension() != ".snapshot" || !it->is_regular_file(error)) continue;
      files.insert(it->path().lexically_relative(folder_).string());
    }
    if (error) {
      throw Error(Code::kIo, fmt::format("cannot read the mirror '{}': {}",
                                         printable(folder_.string(), 256), error.message()));
    }
    return files;
  }

  void put(const std::string& file, ByteView bytes) override {
    check_mark();
    const fs::path path = folder_ / file;
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    write_file(path.string(), bytes, true);
  }

  Bytes get(const std::string& file) override {
    return read_file((folder_ / file).string(), limits::kSnapshotFileBytesMax);
  }

 private:
  void check_mark() const {
    std::error_code error;
    if (fs::exists(folder_ / kMark, error)) return;
    throw Error(Code::kNotFound,
                fmt::format("'{}' is no mirror of an archive", printable(folder_.string(), 256)),
                "if it is a share, mount it; 'lukskeep archive mirror' makes one");
  }

  fs::path folder_;
};

std::string store_path(const Store& store, const char* name) {
  return (fs::path(store.directory()) / name).string();
}

void remember_unsynced(const Store& store, bool unsynced) {
  const std::string path = store_path(store, kUnsyncedFile);
  if (unsynced) {
    if (!has_unsynced(store)) write_file(path, {}, true);
  } else {
    std::error_code error;
    fs::remove(path, error);
  }
}

std::size_t sync_one(Store& store, Mirror& mirror, const CancelToken* cancel) {
  const std::set<std::string> there = mirror.list();
  std::size_t sent = 0;
  for (const Entry& entry : store.list()) {
    if (there.contains(entry.file)) continue;
    if (cancel != nullptr) cancel->check();
    mirror.put(entry.file, store.file_of(entry));
    ++sent;
  }
  return sent;
}

// Serves one mirror after the other; remembers if one was not.
SyncReport serve_all(Store& store, const MirrorOptions& options,
                     const std::function<std::size_t(Mirror&)>& serve) {
  SyncReport report;
  const std::vector<std::string> uris = mirrors_of(store);
  for (const std::string& uri : uris) {
    try {
      report.sent += serve(*open_mirror(uri, options));
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted || error.code() == Code::kOutOfMemory) {
        remember_unsynced(store, true);
        throw;
      }
      report.problems.push_back(fmt::format("the mirror '{}' lacks the newest snapshots: {}",
                                            printable(uri, 256), error.message()));
    }
  }
  if (!uris.empty()) remember_unsynced(store, !report.problems.empty());
  return report;
}

}  // namespace

std::unique_ptr<Mirror> open_mirror(std::string_view uri, const MirrorOptions& options) {
  if (is_bucket(uri)) return open_s3_mirror(parse_bucket(uri), options);
  if (uri.starts_with('/')) return std::make_unique<FolderMirror>(uri);
  throw Error(Code::kInvalidArgument, fmt::format("'{}' is no mirror", printable(uri, 256)),
              "a mirror is an absolute path, or s3+https://HOST[:PORT]/BUCKET[/PREFIX]");
}

void prepare_mirror(std::string_view uri, const MirrorOptions& options) {
  const std::unique_ptr<Mirror> mirror = open_mirror(uri, options);
  if (!is_bucket(uri)) {
    const fs::path folder(uri);
    std::error_code error;
    fs::create_directories(folder.parent_path(), error);
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
      throw Error(Code::kPermissionDenied, fmt::format("cannot make '{}': {}", printable(uri, 256),
                                                       std::generic_category().message(errno)));
    }
    if (!fs::exists(folder / kMark, error)) write_file((folder / kMark).string(), {}, true);
  }
  static_cast<void>(mirror->list());
}

std::vector<std::string> mirrors_of(const Store& store) {
  const std::string path = store_path(store, kMirrorsFile);
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  const Bytes bytes = read_file(path, limits::kMirrorsFileBytesMax);
  std::string_view text = as_string_view(bytes);
  std::vector<std::string> uris;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (!line.empty() && !line.starts_with('#')) uris.emplace_back(line);
  }
  return uris;
}

void set_mirrors(const Store& store, const std::vector<std::string>& uris) {
  std::string text = "# Every snapshot is copied to these places: lukskeep archive mirror.\n";
  for (const std::string& uri : uris) text += uri + "\n";
  write_file(store_path(store, kMirrorsFile), as_byte_view(text), true);
}

bool has_unsynced(const Store& store) {
  std::error_code error;
  return fs::exists(store_path(store, kUnsyncedFile), error);
}

SyncReport sync_mirrors(Store& store, const MirrorOptions& options) {
  return serve_all(store, options,
                   [&](Mirror& mirror) { return sync_one(store, mirror, options.cancel); });
}

SyncReport sync_files(Store& store, const std::vector<std::string>& files,
                      const MirrorOptions& options) {
  if (has_unsynced(store)) return sync_mirrors(store, options);
  if (files.empty()) return {};
  return serve_all(store, options, [&](Mirror& mirror) {
    for (const std::string& file : files)
      mirror.put(file, read_file((fs::path(store.directory()) / file).string(),
                                 limits::kSnapshotFileBytesMax));
    return files.size();
  });
}

void leave_to_sync(const Store& store) {
  if (!mirrors_of(store).empty()) remember_unsynced(store, true);
}

std::size_t fetch_from_mirror(Store& store, Mirror& mirror, std::span<const AgeIdentity> identities,
                              std::vector<std::string>& problems) {
  std::set<std::string> here;
  for (const Entry& entry : store.list()) here.insert(entry.file);
  std::size_t fetched = 0;
  for (const std::string& file : mirror.list()) {
    if (here.contains(file) || !is_snapshot_name(file)) continue;
    try {
      const std::string what = fmt::format("'{}' of the mirror", printable(file, 256));
      if (store.import_file(mirror.get(file), what, identities).is_new) ++fetched;
    } catch (const Error& error) {
      if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
      problems.push_back(error.message());
    }
  }
  return fetched;
}

}  // namespace lukskeep::archive
