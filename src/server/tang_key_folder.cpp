#include "server/tang_key_folder.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <set>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "storage/folders.h"
#include "storage/request.h"
#include "storage/unique_fd.h"

namespace lukskeep::server {
namespace {

namespace fs = std::filesystem;
using storage::UniqueFd;

constexpr std::string_view kSuffix = ".jwk";
constexpr std::string_view kTemporaryPrefix = ".lukskeep-";
constexpr std::string_view kTemporarySuffix = ".tmp";
constexpr mode_t kMode = 0440;
constexpr std::size_t kPrefixMin = 6;
constexpr std::size_t kNameMax = 200;
constexpr std::chrono::seconds kPatience{5};
constexpr std::chrono::milliseconds kRetry{5};

std::string in_quotes(std::string_view path) { return fmt::format("'{}'", printable(path, 256)); }

// The folder, open and locked. With it files are reached even if the folder is renamed meanwhile.
class LockedFolder {
 public:
  LockedFolder(const std::string& path, bool exclusive)
      : path_(path), fd_(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (!fd_.valid())
      storage::throw_errno(errno, fmt::format("cannot open the key folder {}", in_quotes(path)));
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (flock(fd_.get(), (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
      // A file system without locks: who writes there is alone, or finds out.
      if (errno != EWOULDBLOCK && errno != EINTR) return;
      if (std::chrono::steady_clock::now() >= until) {
        throw Error(Code::kBusy,
                    fmt::format("another program is changing the keys in {}", in_quotes(path)),
                    "wait until it is done, or stop it");
      }
      std::this_thread::sleep_for(kRetry);
    }
  }

  int fd() const noexcept { return fd_.get(); }
  std::string shown(std::string_view name) const {
    return in_quotes((fs::path(path_) / name).string());
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator it(path_, error), end; !error && it != end; it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error)
      storage::throw_errno(error.value(),
                           fmt::format("cannot read the key folder {}", in_quotes(path_)));
    std::ranges::sort(names);
    return names;
  }

  void flush() const {
    if (fsync(fd_.get()) != 0 && errno != EINVAL) {
      storage::throw_errno(errno, fmt::format("cannot flush the key folder {}", in_quotes(path_)));
    }
  }

  // Without replacing anything.
  void rename(const std::string& from, const std::string& to) const {
    if (renameat2(fd_.get(), from.c_str(), fd_.get(), to.c_str(), RENAME_NOREPLACE) == 0) return;
    if (errno == EEXIST) fail_present(to);
    if (errno != EINVAL && errno != ENOSYS) fail_rename(from);
    // NFS has no such rename, but links, which never replace.
    if (linkat(fd_.get(), from.c_str(), fd_.get(), to.c_str(), 0) != 0) {
      if (errno == EEXIST) fail_present(to);
      fail_rename(from);
    }
    if (unlinkat(fd_.get(), from.c_str(), 0) != 0) fail_rename(from);
  }

  // What a writer that was stopped has left.
  void remove_remains() const {
    for (const std::string& name : names()) {
      if (name.starts_with(kTemporaryPrefix) && name.ends_with(kTemporarySuffix)) {
        unlinkat(fd_.get(), name.c_str(), 0);
      }
    }
  }

  SecretBytes read_file(const std::string& name) const {
    const UniqueFd file(
        openat(fd_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat status{};
    if (!file.valid() || fstat(file.get(), &status) != 0) {
      storage::throw_errno(errno, fmt::format("cannot read {}", shown(name)));
    }
    if (!S_ISREG(status.st_mode)) throw Error(Code::kDamaged, shown(name) + " is no file");
    if (status.st_size > static_cast<off_t>(limits::kJwkBytesMax)) {
      throw Error(Code::kDamaged, shown(name) + " is too large for a key");
    }
    SecretBytes bytes(static_cast<std::size_t>(status.st_size));
    std::size_t have = 0;
    while (have < bytes.size()) {
      const ssize_t got = ::read(file.get(), bytes.data() + have, bytes.size() - have);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) storage::throw_errno(errno, fmt::format("cannot read {}", shown(name)));
      if (got == 0) break;
      have += static_cast<std::size_t>(got);
    }
    bytes.truncate(have);
    return bytes;
  }

  // Whole, durable and readable only by who may, or not there at all.
  void write_file(const std::string& name, ByteView text) const {
    const std::string temporary =
        fmt::format("{}{}{}", kTemporaryPrefix, to_hex(crypto::random_bytes(8)), kTemporarySuffix);
    const UniqueFd file(openat(fd_.get(), temporary.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, kMode));
    if (!file.valid()) storage::throw_errno(errno, fmt::format("cannot make {}", shown(name)));
    try {
      protect(file.get(), name);
      write_all(file.get(), text, name);
      rename(temporary, name);
    } catch (...) {
      unlinkat(fd_.get(), temporary.c_str(), 0);
      throw;
    }
    flush();
  }

 private:
  [[noreturn]] void fail_present(const std::string& name) const {
    throw Error(Code::kExists, fmt::format("{} is there already", shown(name)));
  }

  [[noreturn]] void fail_rename(const std::string& name) const {
    storage::throw_errno(errno, fmt::format("cannot rename {}", shown(name)));
  }

  // Whatever the umask; and if root made it, for whom the folder belongs to.
  void protect(int file, const std::string& name) const {
    struct stat status{};
    if (geteuid() == 0 && fstat(fd_.get(), &status) == 0 &&
        fchown(file, status.st_uid, status.st_gid) != 0) {
      storage::throw_errno(errno,
                           fmt::format("cannot give {} to the owner of its folder", shown(name)));
    }
    if (fchmod(file, kMode) != 0)
      storage::throw_errno(errno, fmt::format("cannot protect {}", shown(name)));
  }

  void write_all(int file, ByteView text, const std::string& name) const {
    while (!text.empty()) {
      const ssize_t wrote = write(file, text.data(), text.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) storage::throw_errno(errno, fmt::format("cannot write {}", shown(name)));
      text = text.subspan(static_cast<std::size_t>(wrote));
    }
    if (fsync(file) != 0) storage::throw_errno(errno, fmt::format("cannot flush {}", shown(name)));
  }

  std::string path_;
  UniqueFd fd_;
};

TangKeyFile read_key(const LockedFolder& folder, const std::string& name) {
  const SecretBytes text = folder.read_file(name);
  struct stat status{};
  fstatat(folder.fd(), name.c_str(), &status, 0);
  nbde::EcKey key = nbde::parse_ec_key(text.span(), folder.shown(name));
  std::string thumbprint = nbde::thumbprint(key.point);
  return {.name = name,
          .hidden = name.starts_with('.'),
          .key = std::move(key),
          .thumbprint = std::move(thumbprint),
          .changed_s = status.st_mtime};
}

TangKeyFiles read_all(const LockedFolder& folder) {
  TangKeyFiles found;
  for (const std::string& name : folder.names()) {
    if (!name.ends_with(kSuffix) || name == kSuffix) continue;
    if (found.keys.size() == limits::kTangKeysMax) {
      found.problems.push_back(fmt::format("{} and what follows is left out: {} keys are the most",
                                           folder.shown(name), limits::kTangKeysMax));
      break;
    }
    try {
      found.keys.push_back(read_key(folder, name));
    } catch (const Error& error) {
      if (error.code() == Code::kOutOfMemory) throw;
      found.problems.push_back(error.message());
    }
  }
  return found;
}

std::string write_key(const LockedFolder& folder, const nbde::EcKey& key) {
  std::string thumbprint = nbde::thumbprint(key.point);
  folder.write_file(thumbprint + std::string(kSuffix), nbde::private_jwk_text(key).span());
  return thumbprint;
}

std::vector<std::string> write_pair(const LockedFolder& folder, nbde::Curve curve) {
  // The exchange key first: signatures without anything to sign are of no use.
  std::string exchange = write_key(folder, nbde::generate_exchange_key(curve));
  return {write_key(folder, nbde::generate_signing_key(curve)), std::move(exchange)};
}

void hide(const LockedFolder& folder, const TangKeyFile& key, bool hidden) {
  folder.rename(key.name, hidden ? "." + key.name : key.name.substr(1));
  folder.flush();
}

}  // namespace

bool is_signing_key(const nbde::EcKey& key) {
  return key.secret && key.use.allows("sign", true) && key.use.allows("verify", true) &&
         (key.use.algorithm.empty() ||
          key.use.algorithm == nbde::signature_algorithm(key.point.curve()));
}

bool is_exchange_key(const nbde::EcKey& key) {
  return key.secret && key.use.allows("deriveKey", true) &&
         (key.use.algorithm.empty() || key.use.algorithm == "ECMR");
}

std::string key_set_fingerprint(const std::vector<TangKeyFile>& keys) {
  std::set<std::string> lines;
  for (const TangKeyFile& key : keys) {
    lines.insert(fmt::format("{} {}\n", key.thumbprint, key.hidden ? "hidden" : "advertised"));
  }
  std::string text;
  for (const std::string& line : lines) text += line;
  return to_hex(crypto::hash("sha256", as_byte_view(text)));
}

const TangKeyFile& find_key_file(const std::vector<TangKeyFile>& keys,
                                 std::string_view thumbprint) {
  const TangKeyFile* found = nullptr;
  for (const TangKeyFile& key : keys) {
    const bool starts = thumbprint.size() >= kPrefixMin && key.thumbprint.starts_with(thumbprint);
    if (!starts && !nbde::has_thumbprint(key.key.point, thumbprint)) continue;
    if (found != nullptr && found->thumbprint != key.thumbprint) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("several keys start with '{}'", printable(thumbprint)),
                  "write more of the thumbprint");
    }
    if (found == nullptr || found->hidden) found = &key;
  }
  if (found == nullptr) {
    throw Error(Code::kNotFound, fmt::format("there is no key '{}'", printable(thumbprint)),
                "lukskeep tang keys lists them");
  }
  return *found;
}

bool is_key_file_name(std::string_view name) {
  return name.size() > kSuffix.size() + (name.starts_with('.') ? 1U : 0U) &&
         name.size() <= kNameMax && name.ends_with(kSuffix) &&
         std::ranges::all_of(name, [](char c) { return c > ' ' && c <= '~' && c != '/'; });
}

TangKeyFiles TangKeyFolder::read() const { return read_all(LockedFolder(path_, false)); }

std::vector<std::string> TangKeyFolder::generate(nbde::Curve curve, bool only_if_empty) const {
  storage::make_private_folder(path_);
  const LockedFolder folder(path_, true);
  folder.remove_remains();
  if (only_if_empty) {
    const TangKeyFiles found = read_all(folder);
    const auto shown = [](const TangKeyFile& key) { return !key.hidden; };
    const auto any = std::ranges::find_if(found.keys, shown);
    if (any != found.keys.end()) {
      // What write_pair leaves if it is cut off. A file that cannot be read may be the other one.
      const bool cut_off =
          found.problems.empty() && std::ranges::none_of(found.keys, [&](const auto& key) {
            return shown(key) && !(is_exchange_key(key.key) && !is_signing_key(key.key));
          });
      if (!cut_off) return {};
      return {write_key(folder, nbde::generate_signing_key(any->key.point.curve()))};
    }
  }
  return write_pair(folder, curve);
}

TangKeyFolder::Rotation TangKeyFolder::rotate(nbde::Curve curve) const {
  const LockedFolder folder(path_, true);
  folder.remove_remains();
  const TangKeyFiles before = read_all(folder);
  Rotation rotation{.made = write_pair(folder, curve), .hidden = {}};
  for (const TangKeyFile& key : before.keys) {
    if (key.hidden) continue;
    hide(folder, key, true);
    rotation.hidden.push_back(key.thumbprint);
  }
  return rotation;
}

bool TangKeyFolder::set_hidden(std::string_view thumbprint, bool hidden) const {
  const LockedFolder folder(path_, true);
  const TangKeyFiles found = read_all(folder);
  const TangKeyFile& key = find_key_file(found.keys, thumbprint);
  if (key.hidden == hidden) return false;
  hide(folder, key, hidden);
  return true;
}

void TangKeyFolder::remove(std::string_view thumbprint) const {
  const LockedFolder folder(path_, true);
  const TangKeyFiles found = read_all(folder);
  const std::string name = find_key_file(found.keys, thumbprint).name;
  struct stat status{};
  if (fstatat(folder.fd(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISREG(status.st_mode)) {
    // Where this fails the file is removed without.
    static_cast<void>(!fchmodat(folder.fd(), name.c_str(), 0600, 0));
    const UniqueFd file(openat(folder.fd(), name.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
    const Bytes zeroes(static_cast<std::size_t>(status.st_size));
    if (file.valid() && pwrite(file.get(), zeroes.data(), zeroes.size(), 0) > 0) fsync(file.get());
  }
  if (unlinkat(folder.fd(), name.c_str(), 0) != 0) {
    storage::throw_errno(errno, fmt::format("cannot remove {}", folder.shown(name)));
  }
  folder.flush();
}

bool TangKeyFolder::put(const std::string& name, ByteView text) const {
  storage::make_private_folder(path_);
  const LockedFolder folder(path_, true);
  const nbde::EcKey key = nbde::parse_ec_key(text, folder.shown(name));
  for (const TangKeyFile& present : read_all(folder).keys) {
    if (present.key.point != key.point) continue;
    if (present.name == name) return false;
    throw Error(Code::kExists, fmt::format("the key {} is there already, as {}", present.thumbprint,
                                           folder.shown(present.name)));
  }
  folder.write_file(name, text);
  return true;
}

}  // namespace lukskeep::server
