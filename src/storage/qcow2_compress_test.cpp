#include "storage/qcow2_compress.h"

#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/file_device.h"
#include "storage/memory_device.h"
#include "storage/qcow2.h"
#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

constexpr std::uint64_t kCluster = 65536;

Bytes mixed(std::size_t size, unsigned seed) {
  std::minstd_rand source(seed);
  Bytes data(size);
  for (std::size_t at = 0; at < size;) {
    const std::size_t length = std::min<std::size_t>(1 + source() % (3 * kCluster), size - at);
    const std::uint64_t kind = source() % 3;  // zero, text, noise
    for (std::size_t i = at; i < at + length; ++i) {
      const std::uint64_t value = kind == 0 ? 0 : kind == 1 ? 'a' + i % 7 : source();
      data[i] = static_cast<std::byte>(value);
    }
    at += length;
  }
  return data;
}

Bytes contents_of(const std::shared_ptr<Device>& file) {
  const auto image = open_qcow2_on({.file = file});
  Bytes read(image->size_bytes());
  image->read(0, read);
  return read;
}

TEST(CompressedQcow2, HoldsTheDisk) {
  // Below, at and above a cluster and a chunk; sizes that end inside a cluster.
  for (const std::size_t size : {std::size_t{512}, kCluster - 512, kCluster, kCluster + 512,
                                 std::size_t{1} << 20, (std::size_t{5} << 20) + 1536}) {
    SCOPED_TRACE(size);
    const Bytes data = mixed(size, static_cast<unsigned>(size));
    const MemoryDevice source(data, false);
    const auto file = std::make_shared<MemoryDevice>(Bytes(123, std::byte{0xff}));
    write_compressed_qcow2(source, *file, {.threads = 3});
    EXPECT_EQ(file->size_bytes() % kCluster, 0U);
    EXPECT_EQ(contents_of(file), data);
  }
}

TEST(CompressedQcow2, IsSmallWhereThatIsPossible) {
  const auto stored = [](Bytes data) {
    const MemoryDevice source(std::move(data), false);
    MemoryDevice file{Bytes()};
    write_compressed_qcow2(source, file, {});
    return file.size_bytes();
  };
  constexpr std::size_t kSize = std::size_t{4} << 20;
  // Header, L1, refcount table and block.
  EXPECT_EQ(stored(Bytes(kSize)), 4 * kCluster);
  EXPECT_LE(stored(Bytes(kSize, std::byte{7})), 6 * kCluster);
  Bytes noise(kSize);
  std::mt19937 random(1);
  for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
  EXPECT_EQ(stored(std::move(noise)), kSize + 5 * kCluster);
}

TEST(CompressedQcow2, TablesOfALargeDiskAreWhereDataIs) {
  constexpr std::uint64_t kSize = std::uint64_t{3} << 30;
  const TemporaryDirectory folder;
  const auto source = create_file(folder.path("sparse"), kSize);
  const std::string word = "somewhere";
  source->write(kSize - 600, as_byte_view(word));
  source->write((std::uint64_t{1} << 30) + 5, as_byte_view(word));
  const auto file = std::make_shared<MemoryDevice>(Bytes());
  write_compressed_qcow2(*source, *file, {});
  EXPECT_LE(file->size_bytes(), 8 * kCluster);
  const auto image = open_qcow2_on({.file = file});
  EXPECT_EQ(image->size_bytes(), kSize);
  Bytes read(word.size());
  image->read(kSize - 600, read);
  EXPECT_EQ(as_string_view(read), word);
  image->read((std::uint64_t{1} << 30) + 5, read);
  EXPECT_EQ(as_string_view(read), word);
}

class Huge final : public Device {
 public:
  std::string name() const override { return "huge"; }
  std::uint64_t size_bytes() const override { return std::uint64_t{1} << 62; }
  bool writable() const override { return false; }
  std::uint32_t block_size_bytes() const override { return 512; }
  void read(std::uint64_t, MutableBytes) const override {}
  void write(std::uint64_t, ByteView) override {}
  void flush() override {}
};

TEST(CompressedQcow2, TablesBeyondTheBoundsOfQemuAreNotMade) {
  MemoryDevice file{Bytes()};
  EXPECT_EQ(code_of([&] { write_compressed_qcow2(Huge(), file, {}); }), Code::kInvalidArgument);
  EXPECT_EQ(file.size_bytes(), 0U);
}

TEST(CompressedQcow2, StopsWhenItIsToldTo) {
  CancelToken cancel;
  cancel.cancel();
  const MemoryDevice source(Bytes(kCluster), false);
  MemoryDevice file{Bytes()};
  EXPECT_THROW(write_compressed_qcow2(source, file, {.cancel = &cancel}), Error);
}

}  // namespace
}  // namespace lukskeep::storage
