// The folder of a Tang server's keys on file systems that can do less, as NFS: no rename that
// refuses to replace, no word of changes. The calls of the kernel are answered here as NFS answers
// them.
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <lukskeep/error.h>

#include "server/tang_key_folder.h"
#include "server/tang_service.h"
#include "storage/test_files.h"

namespace {

enum class Inotify { kReal, kAbsent, kSilent };

bool g_refuses_flags = false;  // of renameat2
Inotify g_inotify = Inotify::kReal;

}  // namespace

// In the place of libc's.
extern "C" int renameat2(int from_folder, const char* from, int to_folder, const char* to,
                         unsigned flags) noexcept {
  if (g_refuses_flags && flags != 0) {
    errno = EINVAL;
    return -1;
  }
  return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}

extern "C" int inotify_init1(int flags) noexcept {
  if (g_inotify == Inotify::kAbsent) {
    errno = EMFILE;
    return -1;
  }
  return static_cast<int>(syscall(SYS_inotify_init1, flags));
}

extern "C" int inotify_add_watch(int fd, const char* path, std::uint32_t mask) noexcept {
  if (g_inotify == Inotify::kSilent) return 1;
  return static_cast<int>(syscall(SYS_inotify_add_watch, fd, path, mask));
}

namespace lukskeep::server {
namespace {

using storage::error_of;
using storage::TemporaryDirectory;

class TangFolderOnNfs : public ::testing::Test {
 protected:
  void SetUp() override { g_refuses_flags = true; }
  void TearDown() override {
    g_refuses_flags = false;
    g_inotify = Inotify::kReal;
  }

  std::size_t count_files() const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(db_)) ++count;
    return count;
  }

  // Whether keys that come while the service runs are told of.
  void expect_followed(Inotify inotify) {
    g_inotify = inotify;
    std::string told;
    TangService service({.key_folder = db_,
                         .look_anyway_ms = 20,
                         .warn = [&told](const std::string& text) { told += text; }});
    CancelToken cancel;
    std::jthread watching([&] { service.watch(cancel); });
    // The first may be what the watch reads when it starts, the second is not.
    for (int round = 0; round < 2; ++round) {
      const std::string signing = folder_.rotate(nbde::Curve::kP256).made.at(0);
      const auto knows = [&] {
        const std::string target = "/adv/" + signing;
        return service.handle({.method = "GET", .target = target, .body = {}, .peer = {}}).status ==
               200;
      };
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      while (!knows() && std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      EXPECT_TRUE(knows()) << round;
    }
    cancel.cancel();
    watching.join();
    EXPECT_EQ(told.empty(), inotify != Inotify::kAbsent) << told;
  }

  TemporaryDirectory place_;
  std::string db_ = place_.path("db");
  TangKeyFolder folder_{db_};
};

TEST_F(TangFolderOnNfs, KeysAreMadeHiddenAndShown) {
  const auto old = folder_.generate(nbde::Curve::kP256);
  EXPECT_EQ(folder_.rotate(nbde::Curve::kP256).hidden.size(), 2U);
  EXPECT_TRUE(folder_.set_hidden(old[0], false));
  const TangKeyFiles files = folder_.read();
  EXPECT_TRUE(files.problems.empty());
  EXPECT_EQ(files.keys.size(), 4U);
  EXPECT_EQ(count_files(), 4U);  // nothing is left under the other name
  EXPECT_FALSE(find_key_file(files.keys, old[0]).hidden);
  EXPECT_TRUE(find_key_file(files.keys, old[1]).hidden);
}

TEST_F(TangFolderOnNfs, NoKeyIsReplaced) {
  const auto made = folder_.generate(nbde::Curve::kP256);
  const std::string shown = db_ + "/" + made[0] + ".jwk";
  const std::string hidden = db_ + "/." + made[0] + ".jwk";
  storage::put_file(hidden, as_byte_view("what somebody keeps"));
  const auto size = std::filesystem::file_size(shown);
  EXPECT_EQ(error_of([&] { folder_.set_hidden(made[0], true); }).code(), Code::kExists);
  EXPECT_EQ(std::filesystem::file_size(hidden), 19U);
  EXPECT_EQ(std::filesystem::file_size(shown), size);
  EXPECT_EQ(count_files(), 3U);
}

TEST_F(TangFolderOnNfs, ChangesAreSeenWithoutAWord) {
  folder_.generate(nbde::Curve::kP256);
  expect_followed(Inotify::kSilent);
}

TEST_F(TangFolderOnNfs, ChangesAreSeenWithoutInotify) {
  folder_.generate(nbde::Curve::kP256);
  expect_followed(Inotify::kAbsent);
}

}  // namespace
}  // namespace lukskeep::server
