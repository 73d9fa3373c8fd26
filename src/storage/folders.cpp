#include "storage/folders.h"

#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "storage/request.h"

namespace lukskeep::storage {
namespace {

namespace fs = std::filesystem;

std::string in_quotes(const std::string& path) { return fmt::format("'{}'", printable(path, 256)); }

// "a/b/" names the same as "a/b", but its parent would be "a/b".
std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

std::string parent_of(const std::string& path) { return fs::path(path).parent_path().string(); }

// A new name in a folder is durable when the folder is.
void flush_folder(const std::string& path) {
  const std::string& name = path.empty() ? "." : path;
  const int folder = open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  // Who may write to a folder but not read it can make names in it, and not flush them.
  if (folder < 0 && errno == EACCES) return;
  if (folder < 0) throw_errno(errno, fmt::format("cannot open {}", in_quotes(name)));
  const int error = fsync(folder) == 0 ? 0 : errno;
  close(folder);
  if (error != 0 && error != EINVAL) {  // some file systems have no such notion
    throw_errno(error, fmt::format("cannot flush {}", in_quotes(name)));
  }
}

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

void make_one(const std::string& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) == 0) return flush_folder(parent_of(path));
  const int error = errno;
  // Any other error may hide that it is there: a file system that cannot be written, for example.
  if (is_folder(path)) return;
  throw_errno(error == EEXIST ? ENOTDIR : error, fmt::format("cannot make {}", in_quotes(path)));
}

void make_with_parents(const std::string& path, mode_t mode) {
  if (path.empty() || is_folder(path)) return;
  make_with_parents(without_trailing_slashes(parent_of(path)), 0777);
  make_one(path, mode);
}

}  // namespace

void make_folders(const std::string& path) {
  make_with_parents(without_trailing_slashes(path), 0777);
}

void make_private_folder(const std::string& path) {
  make_with_parents(without_trailing_slashes(path), 0700);
}

void require_own_folder(const std::string& path) {
  const std::string name = without_trailing_slashes(path);
  const auto refuse = [&](std::string_view why) {
    throw Error(Code::kUnsafe, fmt::format("{} {}", in_quotes(name), why),
                "name a folder of your own, with mode 0700");
  };
  struct stat status{};
  if (lstat(name.c_str(), &status) != 0) {
    throw_errno(errno, fmt::format("cannot look at {}", in_quotes(name)));
  }
  if (S_ISLNK(status.st_mode)) {
    if (status.st_uid != geteuid() && status.st_uid != 0) {
      refuse("is a symbolic link of another user");
    }
    if (stat(name.c_str(), &status) != 0) {
      throw_errno(errno, fmt::format("cannot look at {}", in_quotes(name)));
    }
  }
  if (!S_ISDIR(status.st_mode)) refuse("is no folder");
  if (status.st_uid != geteuid()) refuse("belongs to another user");
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) refuse("can be written to by other users");
}

}  // namespace lukskeep::storage
