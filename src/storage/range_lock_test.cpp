#include "storage/range_lock.h"

#include <atomic>
#include <functional>
#include <random>
#include <semaphore>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace lukskeep::storage {
namespace {

using Mode = RangeLock::Mode;

struct ConflictCase {
  const char* name;
  Range second;
  Mode first_mode;
  Mode second_mode;
  bool waits;
};

class RangeLockConflict : public ::testing::TestWithParam<ConflictCase> {};

// The first holds [100, 200). Whether the second waits for it shows by who is done first.
TEST_P(RangeLockConflict, WaitsOnlyForWhatItMustNotMeet) {
  const ConflictCase& tested = GetParam();
  RangeLock lock;
  std::binary_semaphore entered(0);
  std::atomic<bool> released = false;
  bool saw_release = false;
  std::jthread second;
  {
    const RangeLock::Guard first(lock, {100, 100}, tested.first_mode);
    second = std::jthread([&] {
      const RangeLock::Guard guard(lock, tested.second, tested.second_mode);
      saw_release = released;
      entered.release();
    });
    if (!tested.waits) entered.acquire();  // while the first still holds its range
    released = true;
  }
  second.join();
  EXPECT_EQ(saw_release, tested.waits);
}

INSTANTIATE_TEST_SUITE_P(
    All, RangeLockConflict,
    ::testing::Values(
        ConflictCase{"ReadersShare", {150, 10}, Mode::kShared, Mode::kShared, false},
        ConflictCase{"WriterWaitsForReader", {150, 10}, Mode::kShared, Mode::kExclusive, true},
        ConflictCase{"ReaderWaitsForWriter", {0, 101}, Mode::kExclusive, Mode::kShared, true},
        ConflictCase{"WritersWait", {199, 1}, Mode::kExclusive, Mode::kExclusive, true},
        ConflictCase{"Around", {0, 1000}, Mode::kExclusive, Mode::kExclusive, true},
        ConflictCase{"Before", {0, 100}, Mode::kExclusive, Mode::kExclusive, false},
        ConflictCase{"Behind", {200, UINT64_MAX - 200}, Mode::kExclusive, Mode::kExclusive, false},
        ConflictCase{"Empty", {150, 0}, Mode::kExclusive, Mode::kExclusive, false}),
    [](const auto& tested) { return tested.param.name; });

// Two numbers that writers keep equal, with nothing else to protect them.
TEST(RangeLock, ManyThreadsSeeWholeChanges) {
  RangeLock lock;
  std::vector<std::pair<int, int>> cells(64);
  std::atomic<int> torn = 0;
  {
    std::vector<std::jthread> threads;
    for (unsigned number = 0; number < 8; ++number) {
      threads.emplace_back([&, number] {
        std::mt19937 random(number);
        for (int round = 0; round < 2000; ++round) {
          const std::size_t at = random() % cells.size();
          const std::size_t length = 1 + random() % std::min<std::size_t>(8, cells.size() - at);
          const bool writes = random() % 2 == 0;
          const RangeLock::Guard guard(lock, {at, length},
                                       writes ? Mode::kExclusive : Mode::kShared);
          for (std::size_t i = at; i < at + length; ++i) {
            if (cells[i].first != cells[i].second) ++torn;
            if (!writes) continue;
            ++cells[i].first;
            ++cells[i].second;
          }
        }
      });
    }
  }
  EXPECT_EQ(torn, 0);
}

}  // namespace
}  // namespace lukskeep::storage
