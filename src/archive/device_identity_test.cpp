#include "archive/device_identity.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/test_files.h"

namespace lukskeep::archive {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A stand-in for /sys, in which one loop device stands on `file`.
void make_loop(const std::string& root, const std::string& file) {
  const std::filesystem::path folder = std::filesystem::path(root) / "sys/block/loop3/loop";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "backing_file") << file << "\n";
}

TEST(UsersOf, AFileUnderALoopDevice) {
  const storage::TemporaryDirectory folder;
  // Longer than what is read of other files there.
  const std::string image = folder.path(std::string(200, 'd') + "-image");
  std::ofstream(image) << "x";
  EXPECT_THAT(users_of(image, folder.path("root")), IsEmpty());
  make_loop(folder.path("root"), absolute_path(image));
  EXPECT_THAT(users_of(image, folder.path("root")), ElementsAre("loop device loop3"));
  EXPECT_THAT(users_of(folder.path("absent"), folder.path("root")), IsEmpty());
}

TEST(IdentifyDevice, AFileHasAPathAndASizeOnly) {
  const storage::TemporaryDirectory folder;
  const std::string image = folder.path("image");
  std::ofstream(image) << "x";
  const DeviceIdentity identity = identify_device(image, 1);
  EXPECT_EQ(identity.path, absolute_path(image));
  EXPECT_EQ(identity.size_bytes, 1U);
  EXPECT_EQ(identity.serial + identity.wwn, "");
}

}  // namespace
}  // namespace lukskeep::archive
