#include "archive/mirror.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/s3_mirror.h"
#include "base/limits.h"
#include "crypto/random.h"
#include "storage/file_device.h"
#include "storage/folders.h"
#include "storage/request.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;

// Tells a mirror from the empty folder over which it should be mounted.
constexpr const char* kMark = "lukskeep-mirror";
constexpr const char* kMirrorsFile = "mirrors";
constexpr const char* kUnsyncedFile = "unsynced";
constexpr std::string_view kSuffix = ".snapshot";
constexpr std::size_t kNameBytesMax = 256;
// Of a mirror that is hostile, or a store that rots: enough of them are told.
constexpr std::size_t kProblemsMax = 100;

bool is_bucket(std::string_view uri) {
  return uri.starts_with("s3+https://") || uri.starts_with("s3+http://");
}

bool is_bucket_or_folder(std::string_view uri) { return is_bucket(uri) || uri.starts_with('/'); }

// What makes a name of a snapshot the same in every archive: how it came there is not of it.
std::string bare_name(std::string_view file) {
  std::string_view stem = file.substr(0, file.size() - kSuffix.size());
  for (const std::string_view mark : {"-imported", "-unproven"}) {
    if (stem.ends_with(mark)) stem.remove_suffix(mark.size());
  }
  return std::string(stem);
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
      std::error_code gone;
      const std::string file = it->path().lexically_relative(folder_).string();
      if (!is_snapshot_name(file) || it->symlink_status(gone).type() != fs::file_type::regular) {
        continue;
      }
      if (files.size() == limits::kMirrorFilesMax) {
        throw Error(Code::kUnsupported,
                    fmt::format("the mirror '{}' holds too many files", name()));
      }
      files.insert(file);
    }
    if (error) {
      throw Error(Code::kIo,
                  fmt::format("cannot read the mirror '{}': {}", name(), error.message()));
    }
    return files;
  }

  void put(const std::string& file, ByteView bytes) override {
    check_mark();
    const std::string path = (folder_ / file).string();
    for (const fs::path& folder :
         {fs::path(file).parent_path().parent_path(), fs::path(file).parent_path()}) {
      storage::make_private_folder((folder_ / folder).string());
      refuse_link(folder_ / folder);
    }
    try {
      write_file(path, bytes, false);
    } catch (const Error& error) {
      if (error.code() != Code::kExists) throw;
      if (!std::ranges::equal(get(file), bytes)) throw_other_bytes(file, name());
    }
  }

  Bytes get(const std::string& file) override {
    return read_file((folder_ / file).string(), limits::kSnapshotFileBytesMax);
  }

 private:
  // Who owns a share must not choose where on this machine is written.
  static void refuse_link(const fs::path& folder) {
    std::error_code error;
    if (fs::symlink_status(folder, error).type() == fs::file_type::directory) return;
    throw Error(Code::kUnsafe, fmt::format("'{}' in the mirror is no folder of its own",
                                           printable(folder.string(), 256)));
  }

  void check_mark() const {
    std::error_code error;
    if (fs::exists(folder_ / kMark, error)) return;
    throw Error(Code::kNotFound, fmt::format("'{}' is no mirror of an archive", name()),
                "if it is a share, mount it; 'lukskeep archive mirror' makes one");
  }

  std::string name() const { return printable(folder_.string(), 256); }

  fs::path folder_;
};

std::string store_path(const Store& store, const char* name) {
  return (fs::path(store.directory()) / name).string();
}

// The mark of a store that has sent, or tries to send, what not every mirror has yet. Each attempt
// that fails leaves another text in it, and who has served all removes only the one it found: what
// another process fails at meanwhile is not forgotten.
std::string read_mark(const Store& store) {
  if (!has_unsynced(store)) return {};
  const Bytes text = read_file(store_path(store, kUnsyncedFile), limits::kMirrorsFileBytesMax);
  return std::string(as_string_view(text));
}

std::string set_mark(const Store& store) {
  std::string token = to_hex(crypto::random_bytes(16));
  write_file(store_path(store, kUnsyncedFile), as_byte_view(token), true);
  return token;
}

void remove_mark(const Store& store, const std::string& token) {
  if (read_mark(store) != token) return;
  std::error_code error;
  fs::remove(store_path(store, kUnsyncedFile), error);
}

// Goes on where one snapshot is no good: the others are still worth a copy.
class ProblemList {
 public:
  explicit ProblemList(std::vector<std::string>& problems) : problems_(problems) {}
  ~ProblemList() {
    if (count_ > kProblemsMax) {
      problems_.push_back(fmt::format("and {} more of that kind", count_ - kProblemsMax));
    }
  }
  ProblemList(const ProblemList&) = delete;
  ProblemList& operator=(const ProblemList&) = delete;

  void add(const Error& error) {
    if (++count_ <= kProblemsMax) problems_.push_back(error.message());
  }

 private:
  std::vector<std::string>& problems_;
  std::size_t count_ = 0;
};

std::size_t sync_one(Store& store, Mirror& mirror, const CancelToken* cancel,
                     std::vector<std::string>& problems) {
  std::set<std::string> there;
  for (const std::string& file : mirror.list()) there.insert(bare_name(file));
  ProblemList list(problems);
  std::size_t sent = 0;
  for (const Entry& entry : store.list()) {
    if (there.contains(bare_name(entry.file))) continue;
    if (cancel != nullptr) cancel->check();
    Bytes bytes;
    try {
      bytes = store.file_of(entry);
    } catch (const Error& error) {
      if (error.code() != Code::kDamaged && error.code() != Code::kNotFound) throw;
      list.add(error);
      continue;
    }
    mirror.put(entry.file, bytes);
    ++sent;
  }
  return sent;
}

// Serves one mirror after the other. The mark stands before the first, for a program that is killed
// in the middle.
SyncReport serve_all(Store& store, const MirrorOptions& options,
                     const std::function<void(Mirror&, SyncReport&)>& serve) {
  SyncReport report;
  const std::vector<std::string> uris = mirrors_of(store);
  std::string token = read_mark(store);
  if (token.empty() && !uris.empty()) token = set_mark(store);
  for (const std::string& uri : uris) {
    try {
      serve(*open_mirror(uri, options), report);
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted || error.code() == Code::kOutOfMemory) throw;
      report.problems.push_back(fmt::format("the mirror '{}' lacks the newest snapshots: {}",
                                            printable(uri, 256), error.message()));
    }
  }
  if (report.problems.empty()) {
    remove_mark(store, token);
  } else {
    set_mark(store);
  }
  return report;
}

// The folder is locked, and not the file, which is replaced.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder)
      : fd_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    const std::string what = fmt::format("cannot lock '{}'", printable(folder, 256));
    if (fd_ < 0) storage::throw_errno(errno, what);
    while (flock(fd_, LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      close(fd_);
      storage::throw_errno(error, what);
    }
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock() { close(fd_); }

 private:
  int fd_;
};

std::vector<std::string> change_mirrors(
    const Store& store, const std::function<void(std::vector<std::string>&)>& change) {
  const FolderLock lock(store.directory());
  std::vector<std::string> uris = mirrors_of(store);
  change(uris);
  std::string text = "# Every snapshot is copied to these places: lukskeep archive mirror.\n";
  for (const std::string& uri : uris) text += uri + "\n";
  if (text.size() > limits::kMirrorsFileBytesMax) {
    throw Error(Code::kInvalidArgument, "that are too many mirrors");
  }
  write_file(store_path(store, kMirrorsFile), as_byte_view(text), true);
  return uris;
}

}  // namespace

bool is_snapshot_name(std::string_view file) {
  if (file.size() > kNameBytesMax || !file.ends_with(kSuffix) || file.starts_with('/'))
    return false;
  const fs::path path(file);
  const bool plain = std::ranges::none_of(path, [](const fs::path& part) {
    // No "..", and nothing that a program writes for itself.
    return part.empty() || part.string().starts_with('.');
  });
  return plain && std::distance(path.begin(), path.end()) == 3 && *path.begin() == "snapshots";
}

void throw_other_bytes(std::string_view file, std::string_view mirror) {
  throw Error(Code::kExists, fmt::format("'{}' of the mirror '{}' is there with other bytes",
                                         printable(file, kNameBytesMax), mirror));
}

std::unique_ptr<Mirror> open_mirror(std::string_view uri, const MirrorOptions& options) {
  const bool control = std::ranges::any_of(
      uri, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; });
  if (control || !is_bucket_or_folder(uri)) {
    throw Error(Code::kInvalidArgument, fmt::format("'{}' is no mirror", printable(uri, 256)),
                "a mirror is an absolute path, or s3+https://HOST[:PORT]/BUCKET[/PREFIX]");
  }
  if (is_bucket(uri)) return open_s3_mirror(parse_bucket(uri), options);
  return std::make_unique<FolderMirror>(uri);
}

void prepare_mirror(std::string_view uri, const MirrorOptions& options) {
  const std::unique_ptr<Mirror> mirror = open_mirror(uri, options);
  if (!is_bucket(uri)) {
    const fs::path folder(uri);
    std::error_code error;
    storage::make_private_folder(folder.string());
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

std::vector<std::string> add_mirror(const Store& store, const std::string& uri) {
  return change_mirrors(store, [&](std::vector<std::string>& uris) {
    if (std::ranges::find(uris, uri) == uris.end()) uris.push_back(uri);
  });
}

std::vector<std::string> remove_mirror(const Store& store, const std::string& uri) {
  return change_mirrors(store, [&](std::vector<std::string>& uris) { std::erase(uris, uri); });
}

bool has_unsynced(const Store& store) {
  std::error_code error;
  return fs::exists(store_path(store, kUnsyncedFile), error);
}

SyncReport sync_mirrors(Store& store, const MirrorOptions& options) {
  return serve_all(store, options, [&](Mirror& mirror, SyncReport& report) {
    report.sent += sync_one(store, mirror, options.cancel, report.problems);
  });
}

SyncReport sync_files(Store& store, const std::vector<std::string>& files,
                      const MirrorOptions& options) {
  if (has_unsynced(store)) return sync_mirrors(store, options);
  if (files.empty()) return {};
  return serve_all(store, options, [&](Mirror& mirror, SyncReport& report) {
    for (const std::string& file : files) {
      mirror.put(file, read_file((fs::path(store.directory()) / file).string(),
                                 limits::kSnapshotFileBytesMax));
      ++report.sent;
    }
  });
}

void leave_to_sync(const Store& store) {
  if (!mirrors_of(store).empty()) set_mark(store);
}

namespace {

// What says that one file is no good, not that the mirror or the archive is.
bool is_of_one_file(Code code) {
  return code == Code::kDamaged || code == Code::kUnsupported || code == Code::kInvalidArgument ||
         code == Code::kUnsafe || code == Code::kNotFound || code == Code::kExists;
}

}  // namespace

std::size_t fetch_from_mirror(Store& store, Mirror& mirror, std::span<const AgeIdentity> identities,
                              std::vector<std::string>& problems, const CancelToken* cancel) {
  std::set<std::string> here;
  for (const Entry& entry : store.list()) {
    // What was lost comes back; what no key opened is looked at again if there is one now.
    const bool proven = entry.trust != Trust::kUnproven || identities.empty();
    if (proven && store.holds(entry)) here.insert(bare_name(entry.file));
  }
  ProblemList list(problems);
  std::size_t fetched = 0;
  for (const std::string& file : mirror.list()) {
    if (here.contains(bare_name(file))) continue;
    if (cancel != nullptr) cancel->check();
    try {
      const std::string what = fmt::format("'{}' of the mirror", printable(file, kNameBytesMax));
      const Added added = store.import_file(mirror.get(file), what, identities);
      if (added.is_new || added.mended) ++fetched;
    } catch (const Error& error) {
      if (!is_of_one_file(error.code())) throw;
      list.add(error);
    }
  }
  return fetched;
}

}  // namespace lukskeep::archive
