#include "archive/scan.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "luks/luks2_codec.h"
#include "storage/block_holders.h"
#include "storage/file_device.h"
#include "storage/raid_member.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;
using Found = std::function<void(const luks::HeaderFile&, const std::string& path)>;

bool has_magic(const Device& device, std::uint64_t offset_bytes, std::string_view magic) {
  if (device.size_bytes() < offset_bytes + magic.size()) return false;
  std::array<std::byte, 8> bytes{};
  device.read(offset_bytes, MutableBytes(bytes).first(magic.size()));
  return as_string_view(ByteView(bytes).first(magic.size())) == magic;
}

// Most files are no volumes: a few bytes tell.
bool may_be_luks(const Device& device) {
  constexpr std::string_view kFirst("LUKS\xba\xbe", 6);
  constexpr std::string_view kSecond("SKUL\xba\xbe", 6);
  if (has_magic(device, 0, kFirst)) return true;
  return std::ranges::any_of(luks::kLuks2MetadataSizes, [&](std::uint64_t offset) {
    return has_magic(device, offset, kSecond);
  });
}

void look_at(const std::string& path, const Found& found, ScanReport& report,
             bool may_be_member = false) {
  ++report.looked_at;
  std::optional<luks::HeaderFile> file;
  try {
    const std::shared_ptr<Device> device = storage::open_file(path, {.lock = false});
    if (!may_be_luks(*device)) return;
    file.emplace(luks::HeaderFile::open(device));
    if (may_be_member && storage::is_raid_member(*device)) {
      report.members.push_back(path);
      return;
    }
  } catch (const Error& error) {
    // Magic in other data, or a header that is lost, is no volume that could be archived.
    if (error.code() != Code::kNotLuks) ++report.unreadable;
    return;
  }
  found(*file, path);
}

std::string attribute(const fs::path& device, const char* name) {
  std::string value;
  std::ifstream file(device / name);
  std::getline(file, value);
  return value;
}

// Paths of NVMe's own multipath have no name in /dev.
bool is_hidden(const fs::path& device) { return attribute(device, "hidden") == "1"; }

bool has_no_size(const fs::path& device) { return attribute(device, "size") == "0"; }

// A drive without a medium cannot be read, and nothing is missed there. Only an open that waits for
// the medium says so.
bool has_medium(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return errno != ENOMEDIUM && errno != ENXIO && errno != ENODEV;
  ::close(fd);
  return true;
}

// What dm-crypt has is a volume, whatever is left behind its data.
void look_at_device(const std::string& path, const fs::path& device, const Found& found,
                    ScanReport& report) {
  const std::size_t before = report.unreadable;
  look_at(path, found, report, !storage::has_holders(device));
  if (report.unreadable != before && !has_medium(path)) report.unreadable = before;
}

// Sorted, so that two runs say the same.
std::vector<fs::directory_entry> entries_of(const fs::path& folder, ScanReport& report) {
  std::error_code error;
  std::vector<fs::directory_entry> entries;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    entries.push_back(*it);
  }
  if (error) ++report.unreadable;
  std::ranges::sort(entries);
  return entries;
}

void scan_folder(const fs::path& root, const Found& found, const CancelToken* cancel,
                 ScanReport& report) {
  // Not recursive: the depth of a tree is not ours to choose.
  std::vector<fs::path> folders = {root};
  while (!folders.empty()) {
    const fs::path folder = folders.back();
    folders.pop_back();
    std::vector<fs::path> below;
    for (const fs::directory_entry& entry : entries_of(folder, report)) {
      if (cancel != nullptr) cancel->check();
      std::error_code error;
      const fs::file_status status = entry.symlink_status(error);
      if (error) {
        ++report.unreadable;
      } else if (fs::is_directory(status)) {
        below.push_back(entry.path());
      } else if (fs::is_regular_file(status)) {
        look_at(entry.path().string(), found, report);
      }
    }
    folders.insert(folders.end(), below.rbegin(), below.rend());
  }
}

}  // namespace

ScanReport scan(const std::string& root, const Found& found, const CancelToken* cancel) {
  ScanReport report;
  std::error_code error;
  const fs::file_status status = fs::status(root, error);
  if (error || !fs::exists(status)) {
    throw Error(error && error != std::errc::no_such_file_or_directory ? Code::kPermissionDenied
                                                                       : Code::kNotFound,
                fmt::format("cannot look at '{}': {}", printable(root, 256),
                            error ? error.message() : "it is not there"));
  }
  if (fs::is_directory(status)) {
    scan_folder(root, found, cancel, report);
  } else {
    look_at(root, found, report);
  }
  return report;
}

ScanReport scan_block_devices(const Found& found, const CancelToken* cancel) {
  ScanReport report;
  for (const fs::directory_entry& entry : entries_of("/sys/class/block", report)) {
    if (cancel != nullptr) cancel->check();
    std::error_code error;
    // Slashes in a device's name are exclamation marks in sysfs.
    std::string name = entry.path().filename().string();
    std::ranges::replace(name, '!', '/');
    const fs::path path = fs::path("/dev") / name;
    // The volume is what is made of the parts: each alone is a copy that must not differ.
    if (is_hidden(entry.path()) || storage::is_part_of_another(entry.path())) continue;
    if (fs::is_block_file(path, error)) {
      look_at_device(path.string(), entry.path(), found, report);
    } else if (!has_no_size(entry.path())) {
      ++report.unreadable;
    }
  }
  return report;
}

}  // namespace lukskeep::archive
