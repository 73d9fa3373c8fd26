#include "storage/folder_watch.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class FolderWatchTest : public ::testing::Test {
 public:
  FolderWatchTest(const FolderWatchTest&) = delete;
  FolderWatchTest& operator=(const FolderWatchTest&) = delete;

 protected:
  FolderWatchTest() { fs::create_directories(root_ / "a/b"); }

  std::string path(const std::string& below) const { return (root_ / below).string(); }
  void write(const std::string& below) const { std::ofstream(root_ / below) << "x"; }

  TemporaryDirectory directory_;
  fs::path root_ = directory_.path("tree");
};

TEST_F(FolderWatchTest, TellsFilesOfATreeAndItsNewFolders) {
  FolderWatch watch;
  watch.add_tree(root_.string());
  EXPECT_THAT(watch.read().files, IsEmpty());
  write("a/b/x");
  EXPECT_THAT(watch.read().files, Contains(path("a/b/x")));
  fs::create_directory(root_ / "new");
  const FolderChanges made = watch.read();
  EXPECT_THAT(made.folders, UnorderedElementsAre(path("new")));
  EXPECT_FALSE(made.lost);
  write("new/y");
  EXPECT_THAT(watch.read().files, Contains(path("new/y")));
  EXPECT_EQ(watch.unwatched(), 0U);
}

TEST_F(FolderWatchTest, TellsOnlyTheFileThatIsNamed) {
  FolderWatch watch;
  watch.add_file(path("a/x"));
  write("a/other");
  write("x");
  EXPECT_THAT(watch.read().files, IsEmpty());
  fs::rename(root_ / "a/other", root_ / "a/x");
  EXPECT_THAT(watch.read().files, UnorderedElementsAre(path("a/x")));
  fs::create_directory(root_ / "a/new");
  EXPECT_THAT(watch.read().folders, IsEmpty());
}

TEST_F(FolderWatchTest, AFolderUnderAnotherNameHasToBeWatchedAnew) {
  FolderWatch watch;
  watch.add_tree(root_.string());
  fs::rename(root_ / "a", root_ / "c");
  EXPECT_TRUE(watch.read().lost);
  fs::remove_all(root_ / "c");
  EXPECT_FALSE(watch.read().lost);
  fs::remove_all(root_);
  EXPECT_TRUE(watch.read().lost);
}

TEST_F(FolderWatchTest, LinksBelowAreNotFollowed) {
  FolderWatch watch;
  fs::create_directory(root_ / "outside");
  fs::create_directory_symlink(root_ / "outside", root_ / "a/link");
  watch.add_tree(path("a"));
  write("outside/x");
  EXPECT_THAT(watch.read().files, IsEmpty());
}

TEST_F(FolderWatchTest, ARootThatIsNotThereIsCounted) {
  FolderWatch watch;
  watch.add_tree(path("absent"));
  EXPECT_EQ(watch.unwatched(), 1U);
}

}  // namespace
}  // namespace lukskeep::storage
