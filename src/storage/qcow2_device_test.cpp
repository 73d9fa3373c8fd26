// qcow2 images as devices, against a model; crashes; images that lie.
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "storage/faulty_device.h"
#include "storage/qcow2_test_image.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

using qcow2::Header;
using qcow2_testing::check_image;
using qcow2_testing::fresh_image;
using qcow2_testing::header_of;
using qcow2_testing::open_image;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Shape {
  std::string name;
  Qcow2CreateOptions options;
};

void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

std::vector<Shape> shapes() {
  constexpr std::uint64_t kBytes = 777 * 512;
  return {
      {"clusters512", {.size_bytes = kBytes, .cluster_bits = 9}},
      {"clusters512refcount64", {.size_bytes = kBytes, .cluster_bits = 9, .refcount_order = 6}},
      {"clusters4Krefcount1", {.size_bytes = kBytes, .cluster_bits = 12, .refcount_order = 0}},
      {"clusters64K", {.size_bytes = kBytes, .cluster_bits = 16}},
      {"subclusters", {.size_bytes = kBytes, .cluster_bits = 14, .extended_l2 = true}},
      {"clusters2M", {.size_bytes = 5 << 20, .cluster_bits = 21, .refcount_order = 3}},
  };
}

void expect_sound(ByteView image) {
  std::uint64_t leaks = 0;
  EXPECT_EQ(check_image(image, leaks), "");
  EXPECT_EQ(leaks, 0U);
}

Bytes read_all(const Device& device) {
  Bytes all(device.size_bytes());
  device.read(0, all);
  return all;
}

void expect_honest_extents(const Device& device, const Bytes& model) {
  std::uint64_t at = 0;
  for (const Extent& extent : device.extents(0, device.size_bytes())) {
    ASSERT_EQ(extent.offset_bytes, at);
    if (extent.zero) {
      EXPECT_TRUE(all_zero(ByteView(model).subspan(at, extent.length_bytes)));
    }
    at += extent.length_bytes;
  }
  EXPECT_EQ(at, device.size_bytes());
}

// One random change of `device` and `model`.
void change(Device& device, Bytes& model, Random& random) {
  const std::size_t offset = random.below(model.size());
  const std::size_t room = model.size() - offset;
  const std::size_t length = 1 + random.below(std::min<std::size_t>(room, 1 + random.below(90000)));
  const auto begin = model.begin() + static_cast<std::ptrdiff_t>(offset);
  switch (random.below(6)) {
    case 0:
      device.write_zeroes(offset, length, ZeroMode::kPunch);
      std::fill_n(begin, length, std::byte{0});
      return;
    case 1:
      device.write_zeroes(offset, length, ZeroMode::kAllocate);
      std::fill_n(begin, length, std::byte{0});
      return;
    default: {
      const Bytes data = random.bytes(length);
      device.write(offset, data);
      std::copy_n(data.begin(), length, begin);
    }
  }
}

class Qcow2Shapes : public ::testing::TestWithParam<Shape> {};

TEST_P(Qcow2Shapes, HoldsWhatWasWritten) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  Random random(seed);
  auto file = std::make_shared<MemoryDevice>(fresh_image(GetParam().options));
  expect_sound(file->contents());
  Bytes model(GetParam().options.size_bytes);
  for (int round = 0; round < 6; ++round) {
    {
      const auto device = open_image(file, true);
      for (int i = 0; i < 25; ++i) {
        change(*device, model, random);
        if (random.below(5) == 0) device->flush();
      }
      ASSERT_EQ(read_all(*device), model);
      expect_honest_extents(*device, model);
    }
    expect_sound(file->contents());
    ASSERT_EQ(read_all(*open_image(file, false)), model);
  }
}

TEST_P(Qcow2Shapes, GivesBackWhatIsDiscarded) {
  auto file = std::make_shared<MemoryDevice>(fresh_image(GetParam().options));
  const std::size_t empty_bytes = file->contents().size();
  {
    const auto device = open_image(file, true);
    device->write(0, Bytes(device->size_bytes(), std::byte{1}));
    device->flush();
    device->write_zeroes(0, device->size_bytes(), ZeroMode::kPunch);
    device->flush();
    EXPECT_EQ(device->extents(0, device->size_bytes()),
              (std::vector<Extent>{{0, device->size_bytes(), true}}));
    // What was given back is used again, not the end of the file.
    const std::uint64_t before = file->size_bytes();
    device->write(0, Bytes(device->size_bytes(), std::byte{2}));
    device->flush();
    EXPECT_EQ(file->size_bytes(), before);
  }
  expect_sound(file->contents());
  EXPECT_GT(file->contents().size(), empty_bytes);
}

TEST_P(Qcow2Shapes, GrowsAndShrinks) {
  auto file = std::make_shared<MemoryDevice>(fresh_image(GetParam().options));
  const std::uint64_t old = GetParam().options.size_bytes;
  Bytes model(old * 3);
  {
    const auto device = open_image(file, true);
    device->write(old - 700, Bytes(700, std::byte{7}));
    device->resize(old - 500);
    device->resize(old * 3);
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(old) - 700, 200, std::byte{7});
    EXPECT_EQ(read_all(*device), model);
    device->write(old * 3 - 10, Bytes(10, std::byte{8}));
    std::fill_n(model.end() - 10, 10, std::byte{8});
    device->flush();
  }
  expect_sound(file->contents());
  EXPECT_EQ(read_all(*open_image(file, false)), model);
}

TEST_P(Qcow2Shapes, ManyWritersAtOnce) {
  auto file = std::make_shared<MemoryDevice>(fresh_image(GetParam().options));
  constexpr std::size_t kThreads = 4;
  constexpr std::size_t kStripe = 700;  // several in each cluster, some across two
  Bytes model(GetParam().options.size_bytes);
  {
    const std::shared_ptr<Device> device = open_image(file, true);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Random random(t + 1);
        for (std::size_t i = t; (i + 1) * kStripe <= model.size(); i += kThreads) {
          const Bytes data = random.bytes(kStripe);
          device->write(i * kStripe, data);
          std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(i * kStripe));
          Bytes back(kStripe);
          device->read(i * kStripe, back);
          EXPECT_EQ(back, data);
          if (i % 97 == 0) device->flush();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(read_all(*device), model);
  }
  expect_sound(file->contents());
  EXPECT_EQ(read_all(*open_image(file, false)), model);
}

// The script of the crash tests: what was flushed, and which bytes have been touched since.
struct Journal {
  Bytes now;
  Bytes flushed;
  std::vector<bool> touched;
};

void run_script(Device& device, Journal& journal) {
  Random random(5);
  for (int i = 0; i < 24; ++i) {
    // Noted before it is tried: a cut leaves any part of it.
    const std::size_t offset = random.below(journal.now.size() - 1);
    const std::size_t length =
        1 + random.below(std::min<std::size_t>(journal.now.size() - offset, 20000));
    std::fill_n(journal.touched.begin() + static_cast<std::ptrdiff_t>(offset), length, true);
    if (i % 5 == 4) {
      device.write_zeroes(offset, length, ZeroMode::kPunch);
      std::fill_n(journal.now.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
    } else {
      const Bytes data = random.bytes(length);
      device.write(offset, data);
      std::ranges::copy(data, journal.now.begin() + static_cast<std::ptrdiff_t>(offset));
    }
    if (i % 4 != 3) continue;
    device.flush();
    journal.flushed = journal.now;
    journal.touched.assign(journal.now.size(), false);
  }
}

void expect_survives(const Bytes& image, const Journal& journal) {
  std::uint64_t leaks = 0;
  ASSERT_EQ(check_image(image, leaks), "");
  const Bytes found = read_all(*open_image(std::make_shared<MemoryDevice>(image), false));
  // A disk that was about to grow may still be small if nothing was flushed since.
  ASSERT_TRUE(found.size() == journal.flushed.size() || all_zero(journal.flushed));
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!journal.touched[i]) {
      ASSERT_EQ(found[i], journal.flushed[i]) << "byte " << i;
    }
  }
  // And it can be written again.
  auto file = std::make_shared<MemoryDevice>(image);
  const auto device = open_image(file, true);
  device->write(0, Bytes(std::min<std::uint64_t>(device->size_bytes(), 3000), std::byte{9}));
  device->flush();
  ASSERT_EQ(check_image(file->contents(), leaks), "");
}

class Qcow2Crashes : public ::testing::TestWithParam<Shape> {};

TEST_P(Qcow2Crashes, LeaveLeaksAtMost) {
  const Bytes image = fresh_image(GetParam().options);
  const auto fresh_journal = [&] {
    const Bytes zeroes(GetParam().options.size_bytes);
    return Journal{zeroes, zeroes, std::vector<bool>(zeroes.size(), false)};
  };
  std::uint64_t operations = 0;
  {
    auto device = std::make_shared<FaultyDevice>(image, FaultPlan{});
    Journal journal = fresh_journal();
    run_script(*open_image(device, true), journal);
    operations = device->operations();
  }
  ASSERT_GT(operations, 60U);
  for (std::uint64_t cut = 0; cut < operations; ++cut) {
    SCOPED_TRACE(cut);
    auto device =
        std::make_shared<FaultyDevice>(image, FaultPlan{.seed = cut + 1,
                                                        .crash_at_operation = cut,
                                                        .torn_writes = true,
                                                        .reorder_unflushed = cut % 4 != 0});
    Journal journal = fresh_journal();
    try {
      run_script(*open_image(device, true), journal);
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), Code::kIo) << error.message();
    }
    expect_survives(device->after_crash(), journal);
    if (HasFatalFailure()) return;
  }
}

// One long write brings more refcount blocks than the table has room for.
void run_growth(Device& device, Journal& journal) {
  device.resize(journal.now.size());
  Random random(6);
  for (const std::size_t length : {std::size_t{2'200'000}, std::size_t{3000}}) {
    std::fill_n(journal.touched.begin(), length, true);
    const Bytes data = random.bytes(length);
    device.write(0, data);
    std::ranges::copy(data, journal.now.begin());
    device.flush();
    journal.flushed = journal.now;
    journal.touched.assign(journal.now.size(), false);
  }
}

TEST(Qcow2Device, CutsWhileTheTablesMoveLeaveLeaksAtMost) {
  const Bytes image = fresh_image({.size_bytes = 512, .cluster_bits = 9, .refcount_order = 6});
  constexpr std::size_t kGrown = 5 << 19;
  const auto fresh_journal = [&] {
    return Journal{Bytes(kGrown), Bytes(kGrown), std::vector<bool>(kGrown, false)};
  };
  std::uint64_t operations = 0;
  {
    auto device = std::make_shared<FaultyDevice>(image, FaultPlan{});
    Journal journal = fresh_journal();
    run_growth(*open_image(device, true), journal);
    operations = device->operations();
  }
  // Most of them are the new tables; the order is the same for all of these.
  const std::uint64_t step = std::max<std::uint64_t>(1, operations / 20);
  for (std::uint64_t cut = 0; cut < operations; cut += cut + 30 < operations ? step : 1) {
    SCOPED_TRACE(cut);
    auto device = std::make_shared<FaultyDevice>(image, FaultPlan{.seed = cut,
                                                                  .crash_at_operation = cut,
                                                                  .torn_writes = true,
                                                                  .reorder_unflushed = true});
    Journal journal = fresh_journal();
    try {
      run_growth(*open_image(device, true), journal);
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), Code::kIo) << error.message();
    }
    expect_survives(device->after_crash(), journal);
    if (HasFatalFailure()) return;
  }
}

std::string shape_name(const ::testing::TestParamInfo<Shape>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(All, Qcow2Shapes, ::testing::ValuesIn(shapes()), shape_name);
INSTANTIATE_TEST_SUITE_P(
    All, Qcow2Crashes,
    ::testing::Values(Shape{"clusters512refcount64",
                            {.size_bytes = 120000, .cluster_bits = 9, .refcount_order = 6}},
                      Shape{"clusters4K", {.size_bytes = 120000, .cluster_bits = 12}},
                      Shape{"subclusters",
                            {.size_bytes = 120000, .cluster_bits = 14, .extended_l2 = true}}),
    shape_name);

TEST(Qcow2Device, AGrowingDiskMovesL1AndTheRefcountTable) {
  auto file = std::make_shared<MemoryDevice>(
      fresh_image({.size_bytes = 512, .cluster_bits = 9, .refcount_order = 6}));
  const Header before = header_of(file->contents());
  Bytes model(5 << 19);
  {
    const auto device = open_image(file, true);
    device->resize(model.size());
    Random random(3);
    model = random.bytes(model.size());
    device->write(0, model);
    device->flush();
  }
  const Header after = header_of(file->contents());
  EXPECT_GT(after.l1_entries, before.l1_entries);
  EXPECT_GT(after.refcount_table_clusters, before.refcount_table_clusters);
  expect_sound(file->contents());
  EXPECT_EQ(read_all(*open_image(file, false)), model);
}

TEST(Qcow2Device, CopiesOnWriteFromShorterAndLongerBackingFiles) {
  Random random(1);
  for (const std::size_t backing_bytes : {100U, 70000U, 900000U}) {
    SCOPED_TRACE(backing_bytes);
    const Bytes base = random.bytes(backing_bytes);
    Bytes image = fresh_image({.size_bytes = 300000, .cluster_bits = 12});
    Header header = header_of(image);
    header.backing_file = "base";
    header.backing_format = "raw";
    const Bytes start = qcow2::encode_header(header);
    std::ranges::copy(start, image.begin());
    auto file = std::make_shared<MemoryDevice>(image);
    const auto backing = std::make_shared<MemoryDevice>(base, false);
    Bytes model(300000);
    std::copy_n(base.begin(), std::min(base.size(), model.size()), model.begin());
    {
      const auto device = open_qcow2_on({.file = file, .backing = backing, .writable = true});
      EXPECT_EQ(read_all(*device), model);
      expect_honest_extents(*device, model);
      for (int i = 0; i < 60; ++i) change(*device, model, random);
      EXPECT_EQ(read_all(*device), model);
      expect_honest_extents(*device, model);
      EXPECT_THROW(device->resize(400000), Error);
    }
    expect_sound(file->contents());
    EXPECT_EQ(backing->contents(), base);
    EXPECT_THROW(open_image(file, false), Error);
  }
}

// Refused before anybody tries to get the memory or the file for them.
TEST(Qcow2Device, TablesBeyondTheBoundsOfQemuAreNotMade) {
  constexpr std::uint64_t kL1Entries = limits::kQcow2L1BytesMax / 8;
  for (const std::uint32_t bits : {9U, 16U, 21U}) {
    const std::uint64_t cluster = std::uint64_t{1} << bits;
    const std::uint64_t largest = kL1Entries * (cluster / 8) * cluster;
    for (const std::uint64_t size : {largest + 512, std::uint64_t{UINT64_MAX}}) {
      MemoryDevice file(Bytes{});
      const Qcow2CreateOptions options{.size_bytes = size, .cluster_bits = bits};
      EXPECT_EQ(code_of([&] { format_qcow2(file, options); }), Code::kInvalidArgument) << bits;
      EXPECT_EQ(file.size_bytes(), 0U);
    }
  }
  constexpr std::uint64_t kBytes = 65536;
  auto file =
      std::make_shared<MemoryDevice>(fresh_image({.size_bytes = kBytes, .cluster_bits = 9}));
  {
    const auto device = open_image(file, true);
    device->write(0, Bytes(kBytes, std::byte{3}));
    EXPECT_EQ(code_of([&] { device->resize(std::uint64_t{1} << 62); }), Code::kInvalidArgument);
    EXPECT_EQ(read_all(*device), Bytes(kBytes, std::byte{3}));
  }
  expect_sound(file->contents());
}

TEST(Qcow2Device, EncryptedImagesAreTheirHeader) {
  auto file = std::make_shared<MemoryDevice>(
      fresh_image({.size_bytes = 300000, .crypto_header_bytes = 100000}));
  Random random(2);
  const Bytes data = random.bytes(300000);
  {
    const auto device = open_image(file, true);
    const auto* image = dynamic_cast<const EncryptedImage*>(device.get());
    ASSERT_NE(image, nullptr);
    EXPECT_EQ(image->size_bytes(), 100000U);
    EXPECT_EQ(image->contents_bytes(), 300000U);
    device->write(0, Bytes(100000, std::byte{4}));
    EXPECT_THROW(device->write(99999, Bytes(2)), Error);
    // Not behind a cipher: what is stored is what was written.
    const auto contents = image->contents(image->sectors());
    contents->write(0, data);
    contents->flush();
  }
  expect_sound(file->contents());
  const auto device = open_image(file, false);
  EXPECT_EQ(read_all(*device), Bytes(100000, std::byte{4}));
  const auto& image = dynamic_cast<const EncryptedImage&>(*device);
  EXPECT_EQ(read_all(*image.contents(image.sectors())), data);
}

// ---- Images that lie -----------------------------------------------------------------------

constexpr std::uint64_t kCluster = 512;

// Clusters of 512 bytes, the first 64 guest clusters written; L2 words are at l2().
struct Victim {
  Bytes image;
  Header header;

  Victim() {
    auto file = std::make_shared<MemoryDevice>(
        fresh_image({.size_bytes = 64 * kCluster, .cluster_bits = 9}));
    {
      const auto device = open_image(file, true);
      device->write(0, Bytes(64 * kCluster, std::byte{0x55}));
    }
    image = file->contents();
    header = header_of(image);
  }

  std::uint64_t l2() const { return load_be<std::uint64_t>(&image[l1()]) & ~qcow2::kCopiedFlag; }
  std::uint64_t l1() const { return header.l1_offset_bytes; }
  std::uint64_t refcounts() const {
    return load_be<std::uint64_t>(&image[header.refcount_table_offset_bytes]);
  }
  void put(std::uint64_t at, std::uint64_t value) { store_be(&image[at], value); }
};

struct Lie {
  std::string name;
  std::function<void(Victim&)> tell;
  std::string message;
  bool writing = false;  // only then anybody would be harmed
  Code code = Code::kDamaged;
};

void PrintTo(const Lie& lie, std::ostream* out) { *out << lie.name; }

std::vector<Lie> reading_lies() {
  using qcow2::kCompressedFlag;
  using qcow2::kCopiedFlag;
  const auto set_l1 = [](std::uint64_t value) { return [=](Victim& v) { v.put(v.l1(), value); }; };
  const auto set_l2 = [](std::uint64_t value) {
    return [=](Victim& v) { v.put(v.l2() + 24, value); };
  };
  return {
      {"L2 beyond the file", set_l1(kCopiedFlag | (1ULL << 40)), "beyond the end"},
      {"L2 between clusters", set_l1(0x401), "no start of a cluster"},
      {"L2 in the header", [](Victim& v) { v.put(v.header.l1_offset_bytes, kCopiedFlag); },
       ""},  // 0 with the flag: no table, nothing is read
      {"L2 is L1", [](Victim& v) { v.put(v.l1(), v.l1()); }, "inside another table"},
      {"L2 is the refcount table",
       [](Victim& v) { v.put(v.l1(), v.header.refcount_table_offset_bytes); },
       "inside another table"},
      {"L1 with reserved bits", set_l1(1ULL << 60), "no start of a cluster"},
      {"data beyond the file", set_l2(kCopiedFlag | (1ULL << 30)), "guest cluster 3"},
      {"data in L1", [](Victim& v) { v.put(v.l2() + 24, v.l1()); }, "inside a table"},
      {"data with reserved bits", set_l2(0x400 | 4), "reserved"},
      {"compressed beyond the file", set_l2(kCompressedFlag | (1ULL << 40)), "guest cluster 3"},
      {"compressed in the header", set_l2(kCompressedFlag | 10), "inside a table"},
      {"compressed noise",
       [](Victim& v) {
         const std::uint64_t host = load_be<std::uint64_t>(&v.image[v.l2() + 24]) & ~kCopiedFlag;
         std::fill_n(v.image.begin() + static_cast<std::ptrdiff_t>(host), 512, std::byte{0xff});
         v.put(v.l2() + 24, kCompressedFlag | host);
       },
       "compressed data"},
      {"compressed, too short",
       [](Victim& v) {
         // An empty final block of deflate: no bytes at all.
         const std::uint64_t host = load_be<std::uint64_t>(&v.image[v.l2() + 24]) & ~kCopiedFlag;
         v.image[host] = std::byte{0x03};
         v.image[host + 1] = std::byte{0x00};
         v.put(v.l2() + 24, kCompressedFlag | host);
       },
       "no cluster of 512"},
      {"zstd of noise",
       [](Victim& v) {
         v.header.compression = qcow2::Compression::kZstd;
         v.header.incompatible_features |= qcow2::kIncompatibleCompression;
         const Bytes start = qcow2::encode_header(v.header);
         std::ranges::copy(start, v.image.begin());
         v.put(v.l2() + 24, kCompressedFlag | (v.image.size() - 512));
       },
       "no cluster of 512"},
  };
}

std::vector<Lie> writing_lies() {
  using qcow2::kCopiedFlag;
  const Code unsupported = Code::kUnsupported;
  const auto feature = [](std::uint64_t bit) { return [=](Victim& v) { v.put(72, bit); }; };
  const auto uncounted = [](std::uint64_t (*offset)(const Victim&)) {
    return [=](Victim& v) {
      qcow2::set_refcount(MutableBytes(v.image).subspan(v.refcounts(), kCluster),
                          offset(v) / kCluster, 4, 0);
    };
  };
  return {
      {"refcount block beyond the file",
       [](Victim& v) { v.put(v.header.refcount_table_offset_bytes, 1ULL << 40); }, "refcount block",
       true},
      {"refcount block between clusters",
       [](Victim& v) { v.put(v.header.refcount_table_offset_bytes, 700); }, "refcount table", true},
      {"a block twice",
       [](Victim& v) { v.put(v.header.refcount_table_offset_bytes + 8, v.refcounts()); },
       "two tables", true},
      {"the refcount block is L1",
       [](Victim& v) { v.put(v.header.refcount_table_offset_bytes, v.l1()); }, "", true},
      {"the L2 table is not counted",
       [](Victim& v) {
         qcow2::set_refcount(MutableBytes(v.image).subspan(v.refcounts(), kCluster),
                             v.l2() / kCluster, 4, 0);
       },
       "refcount 0", true},
      {"the L2 table is shared",
       [](Victim& v) {
         qcow2::set_refcount(MutableBytes(v.image).subspan(v.refcounts(), kCluster),
                             v.l2() / kCluster, 4, 2);
       },
       "refcount 2", true},
      {"the header is not counted", uncounted([](const Victim&) { return std::uint64_t{0}; }),
       "refcount 0", true},
      {"the L1 table is not counted", uncounted([](const Victim& v) { return v.l1(); }),
       "refcount 0", true},
      {"the refcount table is not counted",
       uncounted([](const Victim& v) { return v.header.refcount_table_offset_bytes; }),
       "refcount 0", true},
      {"the refcount block is not counted",
       uncounted([](const Victim& v) { return v.refcounts(); }), "refcount 0", true},
      {"data is an L2 table", [](Victim& v) { v.put(v.l2() + 24, kCopiedFlag | v.l2()); },
       "overwrite a table", true},
      {"data that moves is an L2 table", [](Victim& v) { v.put(v.l2() + 24, v.l2()); },
       "is a table", true},
      {"data is a refcount block",
       [](Victim& v) { v.put(v.l2() + 24, kCopiedFlag | v.refcounts()); }, "overwrite a table",
       true},
      {"dirty", feature(qcow2::kIncompatibleDirty), "not closed cleanly", true, unsupported},
      {"corrupt", feature(qcow2::kIncompatibleCorrupt), "marked as corrupt", true, unsupported},
      {"a snapshot",
       [](Victim& v) {
         // Named like a terminal's escape; the table is in a cluster of its own at the end.
         const std::uint64_t at = v.image.size();
         v.image.resize(at + kCluster);
         store_be(&v.image[60], std::uint32_t{1});
         v.put(64, at);
         store_be(&v.image[at + 14], std::uint16_t{4});
         std::ranges::copy(as_byte_view("\x1b[2J"), &v.image[at + 40]);
       },
       "1 internal snapshots, '\\x1b[2J'", true, unsupported},
      {"a data file", feature(qcow2::kIncompatibleDataFile), "external file", true, Code::kUnsafe},
  };
}

class Qcow2Lies : public ::testing::TestWithParam<Lie> {};

TEST_P(Qcow2Lies, AreFound) {
  const Lie& lie = GetParam();
  Victim victim;
  lie.tell(victim);
  const Bytes before = victim.image;
  auto file = std::make_shared<MemoryDevice>(victim.image);
  try {
    const auto device = open_image(file, lie.writing);
    if (lie.writing) {
      device->write(0, Bytes(64 * kCluster, std::byte{1}));
      device->flush();
    } else {
      read_all(*device);
    }
    EXPECT_EQ(lie.message, "") << "not found";
  } catch (const Error& error) {
    if (!lie.message.empty()) {
      EXPECT_EQ(error.code(), lie.code) << error.message();
      EXPECT_THAT(error.message(), HasSubstr(lie.message));
    }
    EXPECT_LT(error.message().size(), 500U);
  }
  if (!lie.writing) {
    EXPECT_EQ(file->contents(), before);
  }
}

INSTANTIATE_TEST_SUITE_P(Reading, Qcow2Lies, ::testing::ValuesIn(reading_lies()));
INSTANTIATE_TEST_SUITE_P(Writing, Qcow2Lies, ::testing::ValuesIn(writing_lies()));

void put_overlay(const std::string& path, const Qcow2CreateOptions& options,
                 const std::string& backing, const std::optional<std::string>& format) {
  Bytes image = fresh_image(options);
  Header header = header_of(image);
  header.backing_file = backing;
  header.backing_format = format;
  const Bytes start = qcow2::encode_header(header);
  std::ranges::copy(start, image.begin());
  put_file(path, image);
}

TEST(Qcow2Files, NamesAreFollowedOnlyWhenAllowed) {
  const TemporaryDirectory directory;
  const auto make = [&](const std::string& name, const std::string& backing,
                        const std::optional<std::string>& format) {
    put_overlay(directory.path(name), {.size_bytes = 100000, .cluster_bits = 12}, backing, format);
  };
  const auto failure = [&](const std::string& name, bool allow) {
    try {
      open_qcow2(directory.path(name), {.allow_backing = allow});
      return std::string("opened");
    } catch (const Error& error) {
      return error.message();
    }
  };
  make("base", "", {});
  make("top", "base", "qcow2");
  make("guess", "base", {});
  make("vmdk", "base", "vmdk");
  make("self", "self", "qcow2");
  make("a", "b", "qcow2");
  make("b", "./a", "qcow2");
  make("nbd", "nbd://127.0.0.1:1/", "raw");
  make("json", R"(json:{"driver":"file"})", "qcow2");
  make("missing", "nowhere", "raw");
  EXPECT_THAT(failure("top", false), HasSubstr("backing file, 'base'"));
  EXPECT_EQ(failure("top", true), "opened");
  EXPECT_THAT(failure("guess", true), HasSubstr("does not name the format"));
  EXPECT_THAT(failure("vmdk", true), HasSubstr("'vmdk'"));
  EXPECT_THAT(failure("self", true), HasSubstr("its own backing file"));
  EXPECT_THAT(failure("a", true), HasSubstr("its own backing file"));
  EXPECT_THAT(failure("nbd", true), HasSubstr("is no path"));
  EXPECT_THAT(failure("json", true), HasSubstr("is no path"));
  EXPECT_THAT(failure("missing", true), HasSubstr("nowhere"));
  for (int i = 0; i <= static_cast<int>(limits::kQcow2ChainMax); ++i) {
    make("chain" + std::to_string(i), "chain" + std::to_string(i + 1), "qcow2");
  }
  EXPECT_THAT(failure("chain0", true), HasSubstr("chain of more than 31"));
}

TEST(Qcow2Files, EncryptedBackingFilesAreOpenedByWhoHasTheirKeys) {
  const TemporaryDirectory directory;
  const Qcow2CreateOptions plain{.size_bytes = 100000, .cluster_bits = 12};
  Qcow2CreateOptions encrypted = plain;
  encrypted.crypto_header_bytes = 5000;
  put_overlay(directory.path("low"), encrypted, "", {});
  put_overlay(directory.path("plain"), plain, "low", "qcow2");
  put_overlay(directory.path("high"), encrypted, "plain", "qcow2");
  put_overlay(directory.path("top"), plain, "high", "qcow2");
  // Not behind a cipher: what is stored is what was written.
  const auto contents_of = [](Device& device) {
    const auto& image = dynamic_cast<const EncryptedImage&>(device);
    return image.contents(image.sectors());
  };
  const Bytes data = random_bytes(100000, 5);
  contents_of(*open_qcow2(directory.path("low"), {.access = Access::kReadWrite}))->write(0, data);

  const Error refused =
      error_of([&] { open_qcow2(directory.path("top"), {.allow_backing = true}); });
  EXPECT_EQ(refused.code(), Code::kUnsupported);
  EXPECT_THAT(refused.message(), HasSubstr("encrypted backing file"));
  std::vector<std::string> opened;
  const auto image =
      open_qcow2(directory.path("top"),
                 {.allow_backing = true,
                  .open_encrypted = [&](const std::shared_ptr<Device>& device, unsigned above) {
                    opened.push_back(device->name() + " below " + std::to_string(above));
                    return contents_of(*device);
                  }});
  EXPECT_THAT(opened,
              ElementsAre(directory.path("low") + " below 1", directory.path("high") + " below 0"));
  EXPECT_EQ(read_all(*image), data);
}

TEST(Qcow2Files, WritersKeepEverybodyOut) {
  const TemporaryDirectory directory;
  const std::string path = directory.path("image");
  create_qcow2(path, {.size_bytes = 1 << 20}, false, false)->commit();
  {
    const auto reader = open_qcow2(path, {});
    const auto another = open_qcow2(path, {});
    EXPECT_THROW(open_qcow2(path, {.access = Access::kReadWrite}), Error);
  }
  const auto writer = open_qcow2(path, {.access = Access::kReadWrite});
  EXPECT_THROW(open_qcow2(path, {}), Error);
  EXPECT_THROW(open_qcow2(path, {.access = Access::kReadWrite}), Error);
  EXPECT_NO_THROW(open_qcow2(path, {.lock = false}));
}

}  // namespace
}  // namespace lukskeep::storage
