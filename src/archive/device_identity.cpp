#include "archive/device_identity.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fmt/format.h>

namespace lukskeep::archive {
namespace {

constexpr std::size_t kTextBytesMax = 256;

// The first line of a small file, without white space at its ends; empty if there is none.
std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return {};
  line.resize(std::min(line.size(), kTextBytesMax));
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

}  // namespace

std::string absolute_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  return error ? path : absolute.string();
}

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
