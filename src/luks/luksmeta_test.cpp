#include "luks/luksmeta.h"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/codec_test_models.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

constexpr std::uint64_t kGapBytes = 28672;

LuksmetaType clevis_type() {
  const Bytes bytes = *from_hex("cb6e890481ff40daa84a07ab9ab5715e");
  LuksmetaType type{};
  std::ranges::copy(bytes, type.begin());
  return type;
}

LuksmetaSlot slot(std::uint32_t offset, std::uint32_t size) {
  return {.type = clevis_type(), .offset_bytes = offset, .size_bytes = size, .checksum = 7};
}

// The table that luksmeta 9 writes for "hello\n" in slot 3 of a fresh volume.
TEST(LuksmetaTest, ReadsWhatTheLuksmetaToolWrites) {
  std::string hex =
      "4c554b534d455441"
      "00000001"
      "3391dfa9";
  for (int i = 0; i < kLuks1KeyslotCount; ++i) {
    hex += i == 3 ? "cb6e890481ff40daa84a07ab9ab5715e"
                    "00001000"
                    "00000006"
                    "353dd8be"
                    "00000000"
                  : std::string(64, '0');
  }
  const Bytes bytes = *from_hex(hex);
  const auto table = decode_luksmeta(bytes, kGapBytes, "table");
  ASSERT_TRUE(table);
  EXPECT_EQ(table->slots[3].type, clevis_type());
  EXPECT_EQ(table->slots[3].offset_bytes, 4096U);
  EXPECT_EQ(table->slots[3].size_bytes, 6U);
  EXPECT_EQ(table->slots[3].checksum, crc32c(as_byte_view("hello\n")));
  EXPECT_FALSE(table->slots[0].used());
  EXPECT_EQ(encode_luksmeta(*table), bytes);
}

TEST(LuksmetaTest, KnowsTheCheckValueOfItsChecksum) {
  EXPECT_EQ(crc32c(as_byte_view("123456789")), 0xe3069283U);
  EXPECT_EQ(crc32c({}), 0U);
}

TEST(LuksmetaTest, GapStartsBehindTheLastKeyslotAndEndsAtThePayload) {
  const HeaderFile file = testing::make_volume(testing::cheap_options(Version::kLuks1));
  Header header = file.header();
  const auto gap = luksmeta_gap(header);
  ASSERT_TRUE(gap);
  EXPECT_EQ(gap->offset_bytes, header_size_bytes(header));
  EXPECT_EQ(gap->offset_bytes + gap->size_bytes, header.segments.at(0).offset_bytes);
  const std::uint64_t begin = gap->offset_bytes;
  struct Row {
    std::uint64_t payload;
    std::optional<std::uint64_t> size;
  };
  for (const Row& row :
       {Row{0, {}}, Row{begin, {}}, Row{begin + 4096, {}}, Row{begin + 8191, {}},
        Row{begin + 8192, 8192}, Row{begin + 8704, 8192}, Row{begin + (1ULL << 40), 4ULL << 20}}) {
    header.segments.at(0).offset_bytes = row.payload;
    const auto found = luksmeta_gap(header);
    EXPECT_EQ(found ? std::optional(found->size_bytes) : std::nullopt, row.size) << row.payload;
  }
  EXPECT_FALSE(luksmeta_gap(testing::sample_luks2()));
}

TEST(LuksmetaTest, RefusesTablesThatLie) {
  struct Row {
    const char* name;
    std::function<void(LuksmetaTable&)> change;
  };
  const std::vector<Row> rows = {
      {"not aligned", [](LuksmetaTable& t) { t.slots[0] = slot(4097, 10); }},
      {"over the table", [](LuksmetaTable& t) { t.slots[0] = slot(0, 10); }},
      {"behind the gap", [](LuksmetaTable& t) { t.slots[0] = slot(28672, 1); }},
      {"far behind", [](LuksmetaTable& t) { t.slots[0] = slot(0xfffff000, 0xffffffff); }},
      {"too long", [](LuksmetaTable& t) { t.slots[0] = slot(24576, 4097); }},
      {"same place", [](LuksmetaTable& t) { t.slots[0] = t.slots[7] = slot(4096, 1); }},
      {"overlap",
       [](LuksmetaTable& t) {
         t.slots[0] = slot(8192, 1);
         t.slots[1] = slot(4096, 4097);
       }},
  };
  for (const Row& row : rows) {
    LuksmetaTable table;
    row.change(table);
    try {
      static_cast<void>(decode_luksmeta(encode_luksmeta(table), kGapBytes, "table"));
      ADD_FAILURE() << row.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kDamaged) << row.name;
    }
  }
}

TEST(LuksmetaTest, RefusesEveryFlippedBitButInTheMagic) {
  LuksmetaTable table;
  table.slots[2] = slot(4096, 1200);
  const Bytes good = encode_luksmeta(table);
  for (std::size_t i = 0; i < good.size() * 8; ++i) {
    Bytes bad = good;
    bad[i / 8] ^= std::byte(1U << (i % 8));
    if (i < 64) {
      EXPECT_FALSE(decode_luksmeta(bad, kGapBytes, "table"));
    } else {
      EXPECT_THROW(static_cast<void>(decode_luksmeta(bad, kGapBytes, "table")), Error) << i;
    }
  }
  EXPECT_THROW(static_cast<void>(decode_luksmeta(ByteView(good).first(271), kGapBytes, "t")),
               Error);
}

TEST(LuksmetaTest, FindsRoomBetweenRecords) {
  LuksmetaTable table;
  EXPECT_EQ(find_luksmeta_room(table, kGapBytes, 1), 4096U);
  EXPECT_EQ(find_luksmeta_room(table, kGapBytes, 24576), 4096U);
  EXPECT_FALSE(find_luksmeta_room(table, kGapBytes, 24577));
  table.slots[5] = slot(8192, 4097);
  EXPECT_EQ(find_luksmeta_room(table, kGapBytes, 4096), 4096U);
  EXPECT_EQ(find_luksmeta_room(table, kGapBytes, 4097), 16384U);
  EXPECT_EQ(luksmeta_end_bytes(table), 16384U);
  EXPECT_FALSE(find_luksmeta_room(table, 4096, 1));
}

}  // namespace
}  // namespace lukskeep::luks
