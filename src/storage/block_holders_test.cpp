#include "storage/block_holders.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "base/uuid.h"

namespace lukskeep::storage {
namespace {

namespace fs = std::filesystem;

// A sysfs of our own: devices, and those that have them.
class BlockHolders : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directory(root_); }
  void TearDown() override { fs::remove_all(root_); }

  fs::path device(const std::string& name) const {
    fs::create_directories(root_ / name / "holders");
    return root_ / name;
  }
  void hold(const fs::path& device, const std::string& name, const std::string& dm_uuid) const {
    fs::create_directories(root_ / name);
    if (!dm_uuid.empty()) {
      fs::create_directory(root_ / name / "dm");
      std::ofstream(root_ / name / "dm/uuid") << dm_uuid << "\n";
    }
    fs::create_directory_symlink(root_ / name, device / "holders" / name);
  }

  fs::path root_ = fs::temp_directory_path() / random_uuid();
};

TEST_F(BlockHolders, OfAVolumeAreCryptMappings) {
  const fs::path disk = device("sda");
  EXPECT_FALSE(is_part_of_another(disk));
  EXPECT_FALSE(has_holders(disk));
  EXPECT_FALSE(has_holders(root_ / "missing"));
  hold(disk, "dm-0", "CRYPT-LUKS2-4c7dd2b465404f84af75ffcce7d2c8eb-root");
  EXPECT_FALSE(is_part_of_another(disk));
  EXPECT_TRUE(has_holders(disk));
  hold(disk, "dm-1", "mpath-360000000000000000e00000000010001");
  EXPECT_TRUE(is_part_of_another(disk));
}

TEST_F(BlockHolders, OfAMemberAreOthers) {
  const fs::path leg = device("sdb");
  hold(leg, "dm-2", "mpath-360000000000000000e00000000010001");
  EXPECT_TRUE(is_part_of_another(leg));
  const fs::path member = device("sdc");
  hold(member, "md0", "");
  EXPECT_TRUE(is_part_of_another(member));
  fs::create_directory_symlink(member, root_ / "link");
  EXPECT_TRUE(is_part_of_another(root_ / "link"));
}

TEST_F(BlockHolders, OfTheWholeDiskCountForItsPartitions) {
  const fs::path disk = device("sdd");
  const fs::path partition = device("sdd/sdd1");
  std::ofstream(partition / "partition") << "1\n";
  EXPECT_FALSE(is_part_of_another(partition));
  hold(disk, "md1", "");
  EXPECT_TRUE(is_part_of_another(partition));
}

TEST_F(BlockHolders, AreNotKnownWithoutSysfs) {
  EXPECT_TRUE(is_part_of_another(root_ / "missing"));
  EXPECT_TRUE(is_part_of_another({}));
  EXPECT_TRUE(sysfs_folder(root_).empty());
}

}  // namespace
}  // namespace lukskeep::storage
