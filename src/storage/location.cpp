#include "storage/location.h"

#include <array>
#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <sys/stat.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "storage/file_device.h"
#include "storage/nbd_device.h"
#include "storage/rbd_device.h"

namespace lukskeep::storage {
namespace {

constexpr std::string_view kQcow2Prefix = "qcow2:";

struct SchemeRow {
  std::string_view prefix;
  Scheme scheme;
};

constexpr std::array kSchemes = {
    SchemeRow{"nbd:", Scheme::kNbd},       SchemeRow{"nbds:", Scheme::kNbd},
    SchemeRow{"nbd+unix:", Scheme::kNbd},  SchemeRow{"nbds+unix:", Scheme::kNbd},
    SchemeRow{"nbd+vsock:", Scheme::kNbd}, SchemeRow{"nbds+vsock:", Scheme::kNbd},
    SchemeRow{"rbd:", Scheme::kRbd},       SchemeRow{kQcow2Prefix, Scheme::kQcow2},
};

// Of a file, or of a qcow2 file.
std::string path_in(const std::string& location) {
  return location.starts_with(kQcow2Prefix) ? location.substr(kQcow2Prefix.size()) : location;
}

std::string quoted(const std::string& location) {
  return fmt::format("'{}'", printable(location, 256));
}

// Absent if nothing is there.
std::optional<struct stat> stat_of(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) == 0) return status;
  if (errno == ENOENT) return {};
  const Code code = errno == EACCES    ? Code::kPermissionDenied
                    : errno == ENOTDIR ? Code::kNotFound
                                       : Code::kIo;
  throw Error(code, fmt::format("cannot look at {}: {}", quoted(path),
                                std::generic_category().message(errno)));
}

std::string absolute_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  return error ? path : absolute.string();
}

bool same_file(const std::string& path_a, const std::string& path_b) {
  const auto a = stat_of(path_a);
  const auto b = stat_of(path_b);
  if (!a && !b) return absolute_path(path_a) == absolute_path(path_b);
  if (!a || !b) return false;
  const bool same_inode = a->st_dev == b->st_dev && a->st_ino == b->st_ino;
  return same_inode || (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode) && a->st_rdev == b->st_rdev);
}

PathKind kind_of_path(const std::string& path) {
  const auto status = stat_of(path);
  if (!status) return PathKind::kAbsent;
  if (S_ISREG(status->st_mode)) return PathKind::kFile;
  if (S_ISBLK(status->st_mode)) return PathKind::kDevice;
  throw Error(
      Code::kUnsupported,
      fmt::format("{} is {}", quoted(path),
                  S_ISDIR(status->st_mode) ? "a directory" : "neither a file nor a block device"));
}

std::unique_ptr<PendingDevice> create_pending_file(const std::string& path,
                                                   const CreateOptions& options) {
  auto pending = std::make_unique<PendingFile>(path, options.size_bytes, options.replace);
  if (options.direct) pending->use_direct_io();
  return pending;
}

}  // namespace

Scheme scheme_of(const std::string& location) noexcept {
  for (const SchemeRow& row : kSchemes) {
    if (location.starts_with(row.prefix)) return row.scheme;
  }
  return Scheme::kFile;
}

std::optional<std::string> local_path(const std::string& location) {
  switch (scheme_of(location)) {
    case Scheme::kFile:
    case Scheme::kQcow2:
      return path_in(location);
    default:
      return {};
  }
}

std::string absolute_location(const std::string& location) {
  switch (scheme_of(location)) {
    case Scheme::kFile:
      return absolute_path(location);
    case Scheme::kQcow2:
      return fmt::format("{}{}", kQcow2Prefix, absolute_path(path_in(location)));
    default:
      return location;
  }
}

bool same_place(const std::string& a, const std::string& b) {
  const std::optional<std::string> path_a = local_path(a);
  const std::optional<std::string> path_b = local_path(b);
  if (path_a && path_b) return same_file(*path_a, *path_b);
  return a == b;
}

std::unique_ptr<Device> open_location(const std::string& location, const OpenOptions& options) {
  switch (scheme_of(location)) {
    case Scheme::kFile:
      break;
    case Scheme::kNbd:
      return open_nbd(location, options);
    case Scheme::kRbd:
      return open_rbd(location, options);
    case Scheme::kQcow2:
      return open_qcow2(path_in(location), {.access = options.access,
                                            .lock = options.lock,
                                            .direct = options.direct,
                                            .allow_backing = options.allow_backing,
                                            .allow_data_file = options.allow_data_file,
                                            .open_encrypted = options.open_encrypted});
  }
  return open_file(location, {.access = options.access,
                              .lock = options.lock,
                              .lock_from_bytes = options.lock_from_bytes,
                              .lock_length_bytes = options.lock_length_bytes,
                              .direct = options.direct});
}

PathKind kind_of(const std::string& location) {
  switch (scheme_of(location)) {
    case Scheme::kFile:
    case Scheme::kQcow2:
      break;
    case Scheme::kNbd:
      return PathKind::kDevice;
    case Scheme::kRbd:
      return rbd_exists(location) ? PathKind::kDevice : PathKind::kAbsent;
  }
  return kind_of_path(path_in(location));
}

std::unique_ptr<PendingDevice> create_location(const std::string& location,
                                               const CreateOptions& options) {
  switch (scheme_of(location)) {
    case Scheme::kFile:
      break;
    case Scheme::kNbd:
      throw Error(
          Code::kUnsupported,
          fmt::format("cannot make {}: an NBD server alone makes its exports", quoted(location)));
    case Scheme::kRbd:
      return create_rbd(location, options);
    case Scheme::kQcow2:
      return create_qcow2(
          path_in(location),
          {.size_bytes = options.size_bytes, .crypto_header_bytes = options.crypto_header_bytes},
          options.replace, options.direct);
  }
  return create_pending_file(location, options);
}

}  // namespace lukskeep::storage
