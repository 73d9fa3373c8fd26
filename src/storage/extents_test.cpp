#include "storage/extents.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

// A hole and a data extent in turn, and a record of what was asked for.
class Striped final : public Device {
 public:
  static constexpr std::uint64_t kStripeBytes = 4096;
  static constexpr std::uint64_t kSizeBytes = 3 * limits::kMapBytes + 12345;

  std::string name() const override { return "striped"; }
  std::uint64_t size_bytes() const override { return kSizeBytes; }
  bool writable() const override { return false; }
  std::uint32_t block_size_bytes() const override { return 512; }
  void read(std::uint64_t, std::span<std::byte>) const override {}
  void write(std::uint64_t, std::span<const std::byte>) override {}
  void flush() override {}

  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    asked_.push_back({offset_bytes, length_bytes, false});
    std::vector<Extent> found;
    const std::uint64_t end = offset_bytes + length_bytes;
    for (std::uint64_t at = offset_bytes; at < end;) {
      const std::uint64_t stop = std::min(end, (at / kStripeBytes + 1) * kStripeBytes);
      found.push_back({at, stop - at, at / kStripeBytes % 2 == 1});
      at = stop;
    }
    return found;
  }

  const std::vector<Extent>& asked() const { return asked_; }

 private:
  mutable std::vector<Extent> asked_;
};

TEST(AnyExtent, WalksInWindowsAndMissesNothing) {
  const Striped device;
  std::uint64_t at = 100;
  std::uint64_t zero_bytes = 0;
  EXPECT_FALSE(any_extent(device, at, Striped::kSizeBytes - at, [&](const Extent& extent) {
    EXPECT_EQ(extent.offset_bytes, at);
    at += extent.length_bytes;
    if (extent.zero) zero_bytes += extent.length_bytes;
    return false;
  }));
  EXPECT_EQ(at, Striped::kSizeBytes);
  EXPECT_EQ(zero_bytes, 3 * limits::kMapBytes / 2 + 4096 + 57);
  ASSERT_EQ(device.asked().size(), 4U);
  for (const Extent& window : device.asked()) EXPECT_LE(window.length_bytes, limits::kMapBytes);
}

// As a server may say that it has.
class Endless final : public Device {
 public:
  std::string name() const override { return "endless"; }
  std::uint64_t size_bytes() const override { return std::uint64_t{1} << 50; }
  bool writable() const override { return false; }
  std::uint32_t block_size_bytes() const override { return 512; }
  void read(std::uint64_t, std::span<std::byte>) const override {}
  void write(std::uint64_t, std::span<const std::byte>) override {}
  void flush() override {}

  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    ++asked;
    EXPECT_LE(length_bytes, limits::kMapBytesMax);
    return Device::extents(offset_bytes, length_bytes);
  }

  mutable std::uint64_t asked = 0;
};

TEST(AnyExtent, TakesLargeStepsWhereThereIsNothingToTellApart) {
  const Endless device;
  EXPECT_FALSE(
      any_extent(device, 0, device.size_bytes(), [](const Extent& one) { return one.zero; }));
  EXPECT_LE(device.asked, device.size_bytes() / limits::kMapBytesMax + 8);
}

TEST(AnyExtent, StopsAtTheFirstHit) {
  const Striped device;
  int looked_at = 0;
  EXPECT_TRUE(any_extent(device, 0, Striped::kSizeBytes, [&](const Extent& extent) {
    ++looked_at;
    return extent.zero;
  }));
  EXPECT_EQ(looked_at, 2);
  EXPECT_EQ(device.asked().size(), 1U);
}

TEST(AnyExtent, OfNothingIsFalse) {
  const Striped device;
  EXPECT_FALSE(any_extent(device, 7, 0, [](const Extent&) { return true; }));
  EXPECT_TRUE(device.asked().empty());
}

TEST(AnyExtent, BeyondTheEndThrows) {
  const Striped device;
  const auto walk = [&] {
    any_extent(device, 1, Striped::kSizeBytes, [](const Extent&) { return true; });
  };
  EXPECT_EQ(error_of(walk).code(), Code::kTooSmall);
}

}  // namespace
}  // namespace lukskeep::storage
