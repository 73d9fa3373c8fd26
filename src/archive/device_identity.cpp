#include "archive/device_identity.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>

#include <climits>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fmt/format.h>

#include "base/bytes.h"
#include "storage/location.h"

namespace lukskeep::archive {
namespace {

constexpr std::size_t kTextBytesMax = 256;

// The first line of a small file, without white space at its ends; empty if there is none.
std::string first_line(const std::filesystem::path& path, std::size_t bytes_max = kTextBytesMax) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return {};
  line.resize(std::min(line.size(), bytes_max));
  const std::size_t start = line.find_first_not_of(" \t");
  if (start == std::string::npos) return {};
  return line.substr(start, line.find_last_not_of(" \t\r") - start + 1);
}

std::string first_of(const std::filesystem::path& folder,
                     std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (std::string text = first_line(folder / name); !text.empty()) return text;
  }
  return {};
}

namespace fs = std::filesystem;

// Names of the entries, sorted.
std::vector<std::string> entries_of(const fs::path& folder) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

void add_holders(const fs::path& device, std::vector<std::string>& users) {
  for (const std::string& holder : entries_of(device / "holders")) {
    const std::string mapping = first_line(device / "holders" / holder / "dm/name");
    users.push_back(mapping.empty() ? printable(holder)
                                    : fmt::format("mapping {}", printable(mapping)));
  }
}

// proc(5), mountinfo: the third field is major:minor, the fifth where it is mounted.
void add_mounts(const fs::path& root, const std::string& number, std::vector<std::string>& users) {
  std::ifstream mounts(root / "proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    std::istringstream fields(line);
    std::string id;
    std::string parent;
    std::string device;
    std::string inside;
    std::string place;
    if (fields >> id >> parent >> device >> inside >> place && device == number) {
      users.push_back(fmt::format("the file system at '{}'", printable(place, 256)));
    }
  }
}

void add_block_users(const fs::path& root, const std::string& number,
                     std::vector<std::string>& users) {
  const fs::path device = root / "sys/dev/block" / number;
  add_holders(device, users);
  add_mounts(root, number, users);
  for (const std::string& entry : entries_of(device)) {
    const std::string part = first_line(device / entry / "dev");
    if (part.empty() || first_line(device / entry / "partition").empty()) continue;
    add_holders(device / entry, users);
    add_mounts(root, part, users);
  }
}

void add_loops(const fs::path& root, const std::string& file, std::vector<std::string>& users) {
  for (const std::string& name : entries_of(root / "sys/block")) {
    if (first_line(root / "sys/block" / name / "loop/backing_file", PATH_MAX) == file) {
      users.push_back(fmt::format("loop device {}", printable(name)));
    }
  }
}

}  // namespace

std::vector<std::string> users_of(const std::string& path, const std::string& root) {
  std::vector<std::string> users;
  const std::optional<std::string> local = storage::local_path(path);
  struct stat status{};
  if (!local || stat(local->c_str(), &status) != 0) return users;
  if (S_ISBLK(status.st_mode)) {
    add_block_users(root, fmt::format("{}:{}", major(status.st_rdev), minor(status.st_rdev)),
                    users);
  }
  add_loops(root, absolute_path(*local), users);
  return users;
}

std::string absolute_path(const std::string& path) { return storage::absolute_location(path); }

DeviceIdentity identify_device(const std::string& path, std::uint64_t size_bytes) {
  DeviceIdentity identity{.path = absolute_path(path), .size_bytes = size_bytes};
  std::error_code error;
  struct stat status{};
  if (stat(path.c_str(), &status) != 0 || !S_ISBLK(status.st_mode)) return identity;
  std::filesystem::path folder =
      fmt::format("/sys/dev/block/{}:{}", major(status.st_rdev), minor(status.st_rdev));
  if (std::filesystem::exists(folder / "partition", error)) {
    folder = std::filesystem::canonical(folder, error).parent_path();
  }
  identity.serial = first_of(folder, {"serial", "device/serial"});
  identity.wwn = first_of(folder, {"wwid", "device/wwid", "dm/uuid"});
  return identity;
}

}  // namespace lukskeep::archive
