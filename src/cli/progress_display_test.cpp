#include "cli/progress_display.h"

#include <gtest/gtest.h>

namespace lukskeep::cli {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

TEST(ProgressLine, ShowsPartRateAndTimeLeft) {
  const ProgressEvent event{
      .phase = "encrypt", .done_bytes = 100 * kMiB, .total_bytes = 400 * kMiB};
  EXPECT_EQ(progress_line(event, 2.0, 100),
            "encrypt  [==========                              ]  25 %  50 MiB/s  0:07 left");
}

TEST(ProgressLine, IsFullAtTheEnd) {
  const ProgressEvent event{.phase = "decrypt", .done_bytes = kMiB, .total_bytes = kMiB};
  EXPECT_EQ(progress_line(event, 1.0, 60),
            "decrypt  [==================================] 100 %  1 MiB/s");
}

TEST(ProgressLine, APipeHasNoTotal) {
  const ProgressEvent event{.phase = "receive", .done_bytes = 3 * kMiB, .total_bytes = {}};
  EXPECT_EQ(progress_line(event, 1.0, 80), "receive  3 MiB  3 MiB/s");
}

TEST(ProgressLine, FitsEveryTerminalAndEveryNumber) {
  for (const std::size_t columns : {1U, 10U, 20U, 38U, 80U, 500U}) {
    for (const std::uint64_t done : {std::uint64_t{0}, kMiB, ~std::uint64_t{0}}) {
      for (const double seconds : {0.0, 0.001, 1e9}) {
        const ProgressEvent event{.phase = "copy", .done_bytes = done, .total_bytes = 2 * kMiB};
        EXPECT_LE(progress_line(event, seconds, columns).size(), columns);
      }
    }
  }
  const ProgressEvent nothing{.phase = "copy", .done_bytes = 0, .total_bytes = 0};
  EXPECT_FALSE(progress_line(nothing, 1.0, 80).empty());
}

}  // namespace
}  // namespace lukskeep::cli
