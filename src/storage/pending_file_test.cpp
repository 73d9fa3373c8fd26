#include <algorithm>
#include <csignal>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <sys/mount.h>

#include "storage/file_device.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

Bytes pattern(unsigned value) {
  Bytes bytes(100'000, static_cast<std::byte>(value));
  return bytes;
}

void write_pattern(PendingFile& file, unsigned value) { file.device().write(0, pattern(value)); }

TEST(PendingFile, AppearsWholeAndPrivate) {
  const TemporaryDirectory directory;
  PendingFile file(directory.path("x"), 100'000, false);
  write_pattern(file, 1);
  EXPECT_FALSE(std::filesystem::exists(directory.path("x")));
  file.commit();
  EXPECT_EQ(directory.entries(), std::vector<std::string>{"x"});
  EXPECT_EQ(file_bytes(directory.path("x")), pattern(1));
  struct stat status{};
  ASSERT_EQ(stat(directory.path("x").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  EXPECT_EQ(status.st_nlink, 1U);
}

TEST(PendingFile, LeavesNothingUnlessCommitted) {
  const TemporaryDirectory directory;
  for (const bool replace : {false, true}) {
    PendingFile file(directory.path("x"), 100'000, replace);
    write_pattern(file, 1);
  }
  EXPECT_TRUE(directory.entries().empty());
}

TEST(PendingFile, NameWithoutDirectoryIsInTheWorkingDirectory) {
  const TemporaryDirectory directory;
  EXPECT_EQ(in_child([&] {
              std::filesystem::current_path(directory.path(""));
              PendingFile file("plain", 10, false);
              file.commit();
              return 0;
            }),
            0);
  EXPECT_EQ(directory.entries(), std::vector<std::string>{"plain"});
}

TEST(PendingFile, NeverTakesATakenName) {
  const TemporaryDirectory directory;
  PendingFile file(directory.path("x"), 10, false);
  put_file(directory.path("x"), pattern(9));
  EXPECT_EQ(error_of([&] { PendingFile(directory.path("x"), 10, false); }).code(), Code::kExists);
  EXPECT_EQ(error_of([&] { file.commit(); }).code(), Code::kExists);
  EXPECT_EQ(directory.entries(), std::vector<std::string>{"x"});
  EXPECT_EQ(file_bytes(directory.path("x")), pattern(9));
  std::filesystem::create_symlink("nowhere", directory.path("link"));
  EXPECT_EQ(error_of([&] { PendingFile(directory.path("link"), 10, false); }).code(),
            Code::kExists);
}

TEST(PendingFile, ReplacesAtTheCommitOnly) {
  const TemporaryDirectory directory;
  put_file(directory.path("x"), pattern(9));
  {
    PendingFile file(directory.path("x"), 100'000, true);
    write_pattern(file, 1);
    EXPECT_EQ(file_bytes(directory.path("x")), pattern(9));
    file.commit();
  }
  EXPECT_EQ(file_bytes(directory.path("x")), pattern(1));
  EXPECT_EQ(directory.entries(), std::vector<std::string>{"x"});
}

TEST(PendingFile, ReplacesWhatALinkPointsTo) {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory.path("real"));
  put_file(directory.path("real/x"), pattern(9));
  std::filesystem::create_symlink("real/x", directory.path("link"));
  PendingFile file(directory.path("link"), 100'000, true);
  write_pattern(file, 1);
  file.commit();
  EXPECT_TRUE(std::filesystem::is_symlink(directory.path("link")));
  EXPECT_EQ(file_bytes(directory.path("real/x")), pattern(1));
}

TEST(PendingFile, RefusesWhatCannotBeReplaced) {
  const TemporaryDirectory directory;
  ASSERT_EQ(mkfifo(directory.path("pipe").c_str(), 0600), 0);
  for (const char* name : {"pipe", ""}) {
    EXPECT_EQ(error_of([&] { PendingFile(directory.path(name), 10, true); }).code(),
              Code::kUnsupported);
  }
  EXPECT_EQ(error_of([&] { PendingFile(directory.path("new/"), 10, false); }).code(),
            Code::kNotFound);
  EXPECT_EQ(error_of([&] { PendingFile("/dev/null", 10, true); }).code(), Code::kUnsupported);
  EXPECT_EQ(error_of([&] { PendingFile(directory.path("."), 10, false); }).code(),
            Code::kInvalidArgument);
}

TEST(PendingFile, LongestNameWorks) {
  const TemporaryDirectory directory;
  const std::string name(255, 'n');
  for (const bool replace : {false, true}) {
    PendingFile file(directory.path(name), 10, replace);
    file.commit();
  }
  EXPECT_EQ(directory.entries(), std::vector<std::string>{name});
}

// Without /proc an unnamed file could never get a name: the dot-name has to do.
TEST(PendingFile, WorksUnderADotName) {
  const TemporaryDirectory directory;
  const int status = in_child([&] {
    if (!enter_mount_namespace() ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", "/proc", "tmpfs", 0, nullptr) != 0) {
      return kChildSkipped;
    }
    {
      PendingFile dropped(directory.path("x"), 10, false);
      const auto entries = directory.entries();
      if (entries.size() != 1 || !entries[0].starts_with(".x.") || !entries[0].ends_with(".part")) {
        return 1;
      }
    }
    if (!directory.entries().empty()) return 2;
    for (unsigned round = 0; round < 2; ++round) {
      PendingFile file(directory.path("x"), 100'000, round == 1);
      write_pattern(file, round);
      file.commit();
      if (directory.entries() != std::vector<std::string>{"x"}) return 3;
      if (file_bytes(directory.path("x")) != pattern(round)) return 4;
    }
    PendingFile late(directory.path("y"), 10, false);
    put_file(directory.path("y"), pattern(9));
    if (error_of([&] { late.commit(); }).code() != Code::kExists) return 5;
    return file_bytes(directory.path("y")) == pattern(9) ? 0 : 6;
  });
  if (status == kChildSkipped) GTEST_SKIP() << "mount namespaces are not allowed here";
  EXPECT_EQ(status, 0);
}

// A process that writes one version after the other is killed at random moments: under the final
// name there is always one version, whole.
TEST(PendingFile, SurvivesBeingKilledAtAnyMoment) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Random random(seed);
  const TemporaryDirectory directory("/dev/shm");
  const std::string path = directory.path("x");
  for (int round = 0; round < 40; ++round) {
    const bool replace = round % 2 == 1;
    const pid_t child = fork();
    if (child == 0) {
      for (unsigned version = 1;; ++version) {
        if (!replace) unlink(path.c_str());
        PendingFile file(path, 100'000, replace);
        write_pattern(file, version);
        file.commit();
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(5000)));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (!std::filesystem::exists(path)) continue;
    const Bytes found = file_bytes(path);
    ASSERT_EQ(found.size(), 100'000U) << "round " << round;
    ASSERT_EQ(found, pattern(std::to_integer<unsigned>(found[0]))) << "round " << round;
  }
  for (const std::string& name : directory.entries()) {
    EXPECT_TRUE(name == "x" || name.starts_with(".x.")) << name;
  }
}

}  // namespace
}  // namespace lukskeep::storage
