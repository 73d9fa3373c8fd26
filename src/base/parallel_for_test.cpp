#include "base/parallel_for.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>

namespace lukskeep {
namespace {

TEST(ParallelFor, CallsEachIndexOnce) {
  for (const std::size_t count : {0U, 1U, 2U, 3U, 1000U}) {
    for (const unsigned threads : {0U, 1U, 2U, 7U}) {
      std::vector<std::atomic<int>> calls(count);
      parallel_for(count, threads, [&](std::size_t i) { ++calls.at(i); });
      for (const auto& n : calls) EXPECT_EQ(n, 1);
    }
  }
}

TEST(ParallelFor, OneThreadIsTheCallers) {
  std::set<std::thread::id> ids;
  parallel_for(100, 1, [&](std::size_t) { ids.insert(std::this_thread::get_id()); });
  EXPECT_EQ(ids, std::set<std::thread::id>{std::this_thread::get_id()});
}

// All bodies wait for each other: with fewer threads than asked for they would never meet.
TEST(ParallelFor, UsesAsManyThreadsAsAllowedAndNoMore) {
  std::mutex mutex;
  std::condition_variable arrived;
  unsigned inside = 0;
  unsigned most = 0;
  bool met = true;
  parallel_for(40, 4, [&](std::size_t) {
    std::unique_lock lock(mutex);
    ++inside;
    most = std::max(most, inside);
    arrived.notify_all();
    met = arrived.wait_for(lock, std::chrono::seconds(20), [&] { return most == 4; }) && met;
    --inside;
  });
  EXPECT_TRUE(met);
  EXPECT_EQ(most, 4U);
}

TEST(ParallelFor, FirstExceptionStopsTheRestAndIsRethrown) {
  for (const unsigned threads : {1U, 4U}) {
    std::atomic<std::size_t> calls{0};
    try {
      parallel_for(1'000'000, threads, [&](std::size_t i) {
        ++calls;
        if (i == 10) throw std::runtime_error("index 10");
        if (i > 10) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "index 10");
    }
    EXPECT_LT(calls, 100'000U);
    EXPECT_GE(calls, 11U);
  }
}

TEST(ParallelFor, ReturnsOnlyWhenAllBodiesHave) {
  std::atomic<int> inside{0};
  const auto body = [&](std::size_t i) {
    ++inside;
    if (i == 0) {
      while (inside < 3) std::this_thread::yield();
      --inside;
      throw std::runtime_error("first");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    --inside;
  };
  EXPECT_THROW(parallel_for(3, 3, body), std::runtime_error);
  EXPECT_EQ(inside, 0);
}

TEST(HardwareThreads, FollowsTheAffinityOfTheCaller) {
  EXPECT_GE(hardware_threads(), 1U);
  unsigned seen = 0;
  std::thread([&] {
    cpu_set_t allowed;
    ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    std::size_t first = 0;
    while (!CPU_ISSET(first, &allowed)) ++first;
    CPU_ZERO(&allowed);
    CPU_SET(first, &allowed);
    ASSERT_EQ(sched_setaffinity(0, sizeof(allowed), &allowed), 0);
    seen = hardware_threads();
  }).join();
  EXPECT_EQ(seen, 1U);
}

}  // namespace
}  // namespace lukskeep
