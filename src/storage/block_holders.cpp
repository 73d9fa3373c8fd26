#include "storage/block_holders.h"

#include <fstream>
#include <string>
#include <system_error>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fmt/format.h>

namespace lukskeep::storage {
namespace {

namespace fs = std::filesystem;

bool is_crypt(const fs::path& holder) {
  std::string uuid;
  std::ifstream file(holder / "dm/uuid");
  return std::getline(file, uuid) && uuid.starts_with("CRYPT-");
}

bool has_other_holder(const fs::path& device) {
  std::error_code error;
  fs::directory_iterator it(device / "holders", error);
  // Partitions of some drivers have none.
  for (const fs::directory_iterator end; !error && it != end; it.increment(error)) {
    if (!is_crypt(it->path())) return true;
  }
  return false;
}

}  // namespace

bool is_part_of_another(const fs::path& device) noexcept {
  try {
    const fs::path folder = fs::canonical(device);
    if (has_other_holder(folder)) return true;
    // The kernel shows partitions of a disk that is a member as a whole, too.
    return fs::exists(folder / "partition") && has_other_holder(folder.parent_path());
  } catch (const std::exception&) {
    return true;
  }
}

bool has_holders(const fs::path& device) noexcept {
  std::error_code error;
  const fs::directory_iterator it(device / "holders", error);
  return !error && it != fs::directory_iterator();
}

fs::path sysfs_folder(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0 || !S_ISBLK(status.st_mode)) return {};
  return fmt::format("/sys/dev/block/{}:{}", major(status.st_rdev), minor(status.st_rdev));
}

}  // namespace lukskeep::storage
