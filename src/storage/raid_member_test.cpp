#include "storage/raid_member.h"

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "storage/memory_device.h"

namespace lukskeep::storage {
namespace {

constexpr std::uint64_t kMib = 1 << 20;
constexpr std::uint32_t kMagic = 0xa92b4efc;

struct Row {
  std::string name;
  std::uint64_t size_bytes;
  std::uint64_t at_bytes;
  std::vector<std::uint32_t> words;  // little endian
  std::uint64_t super_offset;        // at 144
  bool member;
};

TEST(RaidMember, IsKnownByItsSuperblock) {
  // Places as mdadm 4.2 (super0.c, super1.c) puts them.
  const std::vector<Row> rows = {
      {"none", 4 * kMib, 0, {0}, 0, false},
      {"0.90", 4 * kMib, 4 * kMib - 65536, {kMagic, 0, 90}, 0, true},
      {"0.90 of an odd size", 4 * kMib + 5120, 4 * kMib - 65536, {kMagic, 0, 90}, 0, true},
      {"0.90 of the other order", 4 * kMib, 4 * kMib - 65536, {0xfc4e2ba9, 0, 0x5a000000}, 0, true},
      {"another version", 4 * kMib, 4 * kMib - 65536, {kMagic, 0, 92}, 0, false},
      {"0.90 elsewhere", 4 * kMib, 4 * kMib - 131072, {kMagic, 0, 90}, 0, false},
      {"0.90 too small", 65536, 0, {kMagic, 0, 90}, 0, false},
      {"1.0", 4 * kMib, 4 * kMib - 8192, {kMagic, 1}, 8176, true},
      {"1.0 of an odd size", 4 * kMib + 1536, 4 * kMib - 8192, {kMagic, 1}, 8176, true},
      {"1.0 of a smaller device", 4 * kMib, 4 * kMib - 8192, {kMagic, 1}, 4080, false},
      {"1.1", 4 * kMib, 0, {kMagic, 1}, 0, false},
      {"1.0 too small", 8192, 0, {kMagic, 1}, 0, false},
      {"nothing", 0, 0, {}, 0, false},
  };
  for (const Row& row : rows) {
    Bytes bytes(row.size_bytes);
    for (std::size_t i = 0; i < row.words.size(); ++i) {
      store_le<std::uint32_t>(&bytes.at(row.at_bytes + 4 * i), row.words[i]);
    }
    if (row.super_offset != 0) {
      store_le<std::uint64_t>(&bytes.at(row.at_bytes + 144), row.super_offset);
    }
    EXPECT_EQ(is_raid_member(MemoryDevice(std::move(bytes))), row.member) << row.name;
  }
}

}  // namespace
}  // namespace lukskeep::storage
