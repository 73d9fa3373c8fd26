#include "archive/watch.h"

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "luks/test_volume.h"
#include "storage/test_files.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

// ---- SnapshotBudget

constexpr WatchBounds kSmall{
    .files_max = 3, .snapshots_max = 2, .snapshots_total_max = 5, .period = seconds(60)};
const SnapshotBudget::Clock::time_point kStart{std::chrono::hours(1)};

// How many of `tries` snapshots of `path` it grants.
unsigned take(SnapshotBudget& budget, const std::string& path, unsigned tries, seconds later = {}) {
  unsigned taken = 0;
  for (unsigned i = 0; i < tries; ++i) {
    if (!budget.ask(path, kStart + later).is_granted) continue;
    budget.spend(path, kStart + later);
    ++taken;
  }
  return taken;
}

TEST(SnapshotBudgetTest, APathHasItsShareOfAPeriod) {
  SnapshotBudget budget(kSmall);
  budget.limit_total();
  EXPECT_EQ(take(budget, "a", 9), 2U);
  EXPECT_EQ(take(budget, "a", 9, seconds(59)), 0U);
  EXPECT_EQ(take(budget, "b", 9, seconds(59)), 2U);
  EXPECT_EQ(budget.renewed_at(), kStart + seconds(60));
  EXPECT_EQ(take(budget, "a", 9, seconds(60)), 2U);
  EXPECT_EQ(budget.renewed_at(), kStart + seconds(120));
}

TEST(SnapshotBudgetTest, NewNamesShareTheTotal) {
  SnapshotBudget budget(kSmall);
  budget.limit_total();
  unsigned taken = 0;
  for (int i = 0; i < 100; ++i) taken += take(budget, std::to_string(i), 1);
  EXPECT_EQ(taken, 5U);
  EXPECT_EQ(take(budget, "more", 1, seconds(60)), 1U);
}

TEST(SnapshotBudgetTest, WhatIsThereAtTheStartIsNoPartOfTheTotal) {
  SnapshotBudget budget(kSmall);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(take(budget, std::to_string(i), 1), 1U);
  budget.limit_total();
  // But of the share of its path, as far as paths are counted then; and later ones always are.
  EXPECT_EQ(take(budget, "0", 9), 1U);
  EXPECT_EQ(take(budget, "new", 9), 2U);
}

TEST(SnapshotBudgetTest, ARefusalIsNewsOnceInAPeriod) {
  SnapshotBudget budget(kSmall);
  budget.limit_total();
  take(budget, "a", 2);
  EXPECT_THAT(budget.ask("a", kStart).news, HasSubstr("2 times in 1 minutes"));
  EXPECT_THAT(budget.ask("a", kStart).news, IsEmpty());
  take(budget, "b", 2);
  take(budget, "c", 1);
  EXPECT_THAT(budget.ask("c", kStart).news, HasSubstr("5 headers changed"));
  EXPECT_THAT(budget.ask("d", kStart).news, IsEmpty());
  take(budget, "a", 2, seconds(60));
  EXPECT_THAT(budget.ask("a", kStart + seconds(60)).news, HasSubstr("2 times"));
}

// ---- Watcher

class WatcherTest : public ::testing::Test {
 public:
  WatcherTest(const WatcherTest&) = delete;
  WatcherTest& operator=(const WatcherTest&) = delete;

 protected:
  WatcherTest() {
    const AgeRecipient recipient = recipient_of(make_age_identity());
    Store::create(folder_.path("store"), {&recipient, 1});
    fs::create_directory(folder_.path("volumes"));
  }
  ~WatcherTest() override { end(); }

  std::string volume(const std::string& name) const {
    return fs::path(folder_.path("volumes/" + name)).lexically_normal().string();
  }
  // Another volume each time, renamed to its place: nobody sees a part of it.
  void write(const std::string& name) const {
    const luks::HeaderFile file =
        luks::testing::make_volume(luks::testing::cheap_options(luks::Version::kLuks1));
    Bytes bytes(file.device()->size_bytes());
    file.device()->read(0, bytes);
    std::ofstream(folder_.path("new"), std::ios::binary) << as_string_view(bytes);
    fs::rename(folder_.path("new"), volume(name));
  }

  Watcher watcher(WatchBounds bounds) {
    return {{.paths = {folder_.path("volumes")}, .interval = seconds(86'400), .bounds = bounds},
            folder_.path("store"),
            [this](const WatchNews& news) {
              const std::scoped_lock lock(mutex_);
              news_.push_back(news);
            }};
  }
  // Until the test is over.
  void start(WatchBounds bounds) {
    thread_ = std::thread([this, watcher = watcher(bounds)]() mutable { watcher.run(cancel_); });
  }
  void end() {
    cancel_.cancel();
    if (thread_.joinable()) thread_.join();
  }

  std::vector<std::string> paths(WatchNews::Kind kind) const {
    const std::scoped_lock lock(mutex_);
    std::vector<std::string> found;
    for (const WatchNews& news : news_) {
      if (news.kind == kind) found.push_back(news.path);
    }
    return found;
  }
  std::size_t count(WatchNews::Kind kind) const { return paths(kind).size(); }
  bool wait_for(WatchNews::Kind kind, std::size_t number) const {
    const auto end = std::chrono::steady_clock::now() + seconds(30);
    while (count(kind) < number && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    return count(kind) >= number;
  }

  storage::TemporaryDirectory folder_;
  mutable std::mutex mutex_;
  std::vector<WatchNews> news_;
  CancelToken cancel_;
  std::thread thread_;
};

// Each name takes its share, then there is trouble.
TEST_F(WatcherTest, NewNamesWithoutEndDoNotFillTheArchive) {
  for (const char* name : {"x1", "x2", "x3"}) write(name);
  start({.snapshots_total_max = 2});
  // More than the total, as they are there at the start.
  ASSERT_TRUE(wait_for(WatchNews::Kind::kArchived, 3));
  for (const char* name : {"a", "b", "c", "d"}) write(name);
  ASSERT_TRUE(wait_for(WatchNews::Kind::kArchived, 5));
  ASSERT_TRUE(wait_for(WatchNews::Kind::kTrouble, 1));
  end();
  EXPECT_EQ(count(WatchNews::Kind::kArchived), 5U);
  EXPECT_EQ(count(WatchNews::Kind::kTrouble), 1U);
}

// The first of them, by name, fill the queue each time.
TEST_F(WatcherTest, ASweepReachesWhatComesAfterMoreThanTheQueueHolds) {
  std::vector<std::string> all;
  for (const char* name : {"a1", "a2", "a3", "a4", "b", "c"}) {
    write(name);
    all.push_back(volume(name));
  }
  watcher({.files_max = 2}).run_once(cancel_);
  EXPECT_THAT(paths(WatchNews::Kind::kArchived), UnorderedElementsAreArray(all));
}

// What may not be archived yet fills the queue, and a volume that is known changes.
TEST_F(WatcherTest, AFullQueueHasAPlaceForWhatIsKnown) {
  write("z");
  start({.files_max = 2, .snapshots_total_max = 3, .period = seconds(3)});
  ASSERT_TRUE(wait_for(WatchNews::Kind::kArchived, 1));
  for (const char* name : {"a", "b", "c", "d", "e"}) write(name);
  ASSERT_TRUE(wait_for(WatchNews::Kind::kTrouble, 1));
  write("z");
  ASSERT_TRUE(wait_for(WatchNews::Kind::kArchived, 7));
  end();
  EXPECT_THAT(paths(WatchNews::Kind::kArchived), Contains(volume("z")).Times(2));
}

}  // namespace
}  // namespace lukskeep::archive
