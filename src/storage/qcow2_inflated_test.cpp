#include "storage/qcow2_inflated.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/memory_device.h"
#include "storage/qcow2.h"
#include "storage/qcow2_compress.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

using qcow2::InflatedClusters;

constexpr std::size_t kCluster = 65536;

// A cluster of the byte `value`; counts its calls.
struct Counted {
  std::byte value{};
  std::atomic<int> calls = 0;

  InflatedClusters::Inflate function() {
    return [this](MutableBytes cluster) {
      ++calls;
      std::ranges::fill(cluster, value);
    };
  }
};

std::byte first_of(InflatedClusters& clusters, std::uint64_t host, Counted& source) {
  Bytes out(1);
  clusters.read({.host_bytes = host, .compressed_bytes = 512}, 7, out, source.function());
  return out[0];
}

TEST(InflatedClusters, InflatesAClusterOnce) {
  InflatedClusters clusters(kCluster);
  Counted source{.value = std::byte{1}};
  for (int i = 0; i < 10; ++i) EXPECT_EQ(first_of(clusters, 4096, source), std::byte{1});
  EXPECT_EQ(source.calls, 1);
}

TEST(InflatedClusters, TellsPlacesApart) {
  InflatedClusters clusters(kCluster);
  Bytes out(1);
  Counted one{.value = std::byte{1}};
  Counted two{.value = std::byte{2}};
  clusters.read({.host_bytes = 4096, .compressed_bytes = 100}, 0, out, one.function());
  clusters.read({.host_bytes = 4096, .compressed_bytes = 200}, 0, out, two.function());
  EXPECT_EQ(out[0], std::byte{2});
}

TEST(InflatedClusters, DropsWhatWasNotUsedForLongest) {
  InflatedClusters clusters(kCluster, 2 * kCluster);
  Counted source;
  first_of(clusters, 1 * kCluster, source);
  first_of(clusters, 2 * kCluster, source);
  first_of(clusters, 1 * kCluster, source);
  first_of(clusters, 3 * kCluster, source);  // in place of 2
  EXPECT_EQ(source.calls, 3);
  first_of(clusters, 1 * kCluster, source);
  EXPECT_EQ(source.calls, 3);
  first_of(clusters, 2 * kCluster, source);
  EXPECT_EQ(source.calls, 4);
}

TEST(InflatedClusters, TriesAgainWhatFailed) {
  InflatedClusters clusters(kCluster);
  Bytes out(1);
  const auto fail = [](MutableBytes) { throw Error(Code::kDamaged, "no cluster"); };
  EXPECT_THROW(clusters.read({.host_bytes = 4096, .compressed_bytes = 512}, 0, out, fail), Error);
  Counted source{.value = std::byte{3}};
  EXPECT_EQ(first_of(clusters, 4096, source), std::byte{3});
}

TEST(InflatedClusters, ThreadsThatWantOneClusterInflateItOnce) {
  InflatedClusters clusters(kCluster, 4 * kCluster);
  std::vector<Counted> sources(4);
  for (std::size_t i = 0; i < sources.size(); ++i) sources[i].value = static_cast<std::byte>(i);
  std::vector<std::thread> threads;
  threads.reserve(8);
  std::atomic<bool> wrong = false;
  for (std::size_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < 200; ++i) {
        const std::size_t which = (i + t) % sources.size();
        if (first_of(clusters, which * kCluster, sources[which]) != sources[which].value) {
          wrong = true;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(wrong);
  for (const Counted& source : sources) EXPECT_EQ(source.calls, 1);
}

// Counts the bytes that are read from a file.
class CountingDevice final : public Device {
 public:
  explicit CountingDevice(std::shared_ptr<Device> below) : below_(std::move(below)) {}

  std::string name() const override { return below_->name(); }
  std::uint64_t size_bytes() const override { return below_->size_bytes(); }
  bool writable() const override { return false; }
  std::uint32_t block_size_bytes() const override { return below_->block_size_bytes(); }
  void read(std::uint64_t offset_bytes, MutableBytes out) const override {
    below_->read(offset_bytes, out);
    bytes_read += out.size();
  }
  void write(std::uint64_t, ByteView) override {}
  void flush() override {}

  mutable std::atomic<std::uint64_t> bytes_read = 0;

 private:
  std::shared_ptr<Device> below_;
};

// What compresses, but not to nothing.
Bytes half_noise(std::size_t size) {
  Random random(3);
  Bytes data = random.bytes(size);
  for (std::byte& byte : data) byte &= std::byte{0x0f};
  return data;
}

std::shared_ptr<Device> compressed(const Bytes& data) {
  auto file = std::make_shared<MemoryDevice>(Bytes());
  write_compressed_qcow2(MemoryDevice(data, false), *file, {});
  return file;
}

TEST(CompressedClusters, AreReadFromTheFileOnceForManySmallReads) {
  const Bytes data = half_noise(2 * kCluster);
  const auto file = std::make_shared<CountingDevice>(compressed(data));
  const auto image = open_qcow2_on({.file = file});
  Bytes out(4096);
  image->read(0, out);
  const std::uint64_t once = file->bytes_read;
  Bytes all;
  for (std::size_t at = 0; at < kCluster; at += out.size()) {
    image->read(at, out);
    all.insert(all.end(), out.begin(), out.end());
  }
  EXPECT_TRUE(std::ranges::equal(all, ByteView(data).first(kCluster)));
  EXPECT_EQ(file->bytes_read, once);
}

TEST(CompressedClusters, ThatAreOverwrittenReadAsWhatWasWritten) {
  Bytes data = half_noise(2 * kCluster);
  const auto image = open_qcow2_on({.file = compressed(data), .writable = true});
  Bytes out(4096);
  const auto expect_same = [&] {
    for (std::size_t at = 0; at < data.size(); at += out.size()) {
      image->read(at, out);
      ASSERT_TRUE(std::ranges::equal(out, ByteView(data).subspan(at, out.size()))) << at;
    }
  };
  expect_same();
  // Part of it, all of it, and nothing of it any more; each time others get the room it had.
  const Bytes patch(700, std::byte{0xaa});
  image->write(5000, patch);
  std::ranges::copy(patch, data.begin() + 5000);
  expect_same();
  image->flush();
  const Bytes whole(kCluster, std::byte{0xbb});
  image->write(kCluster, whole);
  std::ranges::copy(whole, data.begin() + kCluster);
  expect_same();
  image->flush();
  image->write_zeroes(0, kCluster, ZeroMode::kPunch);
  std::fill_n(data.begin(), kCluster, std::byte{0});
  image->flush();
  expect_same();
}

TEST(CompressedClusters, AreReadByManyThreads) {
  const Bytes data = half_noise(16 * kCluster);
  const auto image = open_qcow2_on({.file = compressed(data)});
  std::atomic<bool> wrong = false;
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    threads.emplace_back([&, seed] {
      Random random(seed);
      for (int i = 0; i < 200; ++i) {
        Bytes out(1 + random.below(9000));
        const std::uint64_t at = random.below(data.size() - out.size());
        image->read(at, out);
        if (!std::ranges::equal(out, ByteView(data).subspan(at, out.size()))) wrong = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(wrong);
}

}  // namespace
}  // namespace lukskeep::storage
