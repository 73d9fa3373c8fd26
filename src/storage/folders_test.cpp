#include "storage/folders.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/test_files.h"

namespace {
// Which folders were flushed, in their order: this fsync is found before that of the C library.
std::vector<std::string> flushed;  // NOLINT(cert-err58-cpp)
}  // namespace

extern "C" int fsync(int fd) {
  std::error_code ignored;
  flushed.push_back(
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), ignored).string());
  return static_cast<int>(syscall(SYS_fsync, fd));
}

namespace lukskeep::storage {
namespace {

namespace fs = std::filesystem;
using storage::TemporaryDirectory;

mode_t mode_of(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 0777;
}

Code code_of(const std::string& path) {
  try {
    require_own_folder(path);
  } catch (const Error& error) {
    return error.code();
  }
  return Code::kInternal;
}

TEST(Folders, AreDurableAndPrivate) {
  const TemporaryDirectory folder;
  const auto top = [&](const std::string& name) {
    return fs::canonical(folder.path(".")).string() + name;
  };
  flushed.clear();
  make_private_folder(top("/a/b/c//"));
  EXPECT_EQ(flushed, (std::vector<std::string>{top(""), top("/a"), top("/a/b")}));
  EXPECT_EQ(mode_of(top("/a/b/c")), 0700U);
  flushed.clear();
  make_private_folder(top("/a/b/c"));
  make_folders(top("/a/b/"));
  EXPECT_TRUE(flushed.empty());
  make_folders(top("/d/e/"));
  EXPECT_EQ(flushed, (std::vector<std::string>{top(""), top("/d")}));
}

TEST(Folders, AFileInTheWay) {
  const TemporaryDirectory folder;
  const auto top = [&](const std::string& name) {
    return fs::canonical(folder.path(".")).string() + name;
  };
  std::ofstream(top("/file")) << "x";
  EXPECT_THROW(make_private_folder(top("/file")), Error);
  EXPECT_THROW(make_private_folder(top("/file/below")), Error);
}

TEST(Folders, NobodyElseMayWrite) {
  const TemporaryDirectory folder;
  const auto top = [&](const std::string& name) {
    return fs::canonical(folder.path(".")).string() + name;
  };
  make_private_folder(top("/own"));
  std::ofstream(top("/file")) << "x";
  fs::create_symlink("own", top("/link"));
  EXPECT_EQ(code_of(top("/own")), Code::kInternal);
  EXPECT_EQ(code_of(top("/own//")), Code::kInternal);
  EXPECT_EQ(code_of(top("/link/")), Code::kInternal);
  EXPECT_EQ(code_of(top("/file")), Code::kUnsafe);
  EXPECT_EQ(code_of(top("/absent")), Code::kNotFound);
  for (const mode_t mode : {0720U, 0702U, 01777U}) {
    ASSERT_EQ(chmod((top("/own")).c_str(), mode), 0);
    EXPECT_EQ(code_of(top("/own")), Code::kUnsafe) << mode;
    EXPECT_EQ(code_of(top("/link")), Code::kUnsafe) << mode;
  }
  if (geteuid() != 0) {
    EXPECT_EQ(code_of("/usr"), Code::kUnsafe);
    return;
  }
  ASSERT_EQ(chmod((top("/own")).c_str(), 0700), 0);
  ASSERT_EQ(chown((top("/own")).c_str(), 65534, 65534), 0);
  EXPECT_EQ(code_of(top("/own")), Code::kUnsafe);
}

}  // namespace
}  // namespace lukskeep::storage
