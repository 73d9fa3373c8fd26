// LUKS2 metadata that is damaged or was made to do harm: each is refused with its reason. Here the
// binary header and the text of the JSON area; luks2_hostile_json_test.cpp has what the JSON says.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "luks/codec_test_models.h"
#include "luks/hostile_test_rows.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks {
namespace testing {
namespace {

// Offsets of the binary header, written down once more so that a wrong one in the codec shows.
constexpr std::size_t kVersion = 6;
constexpr std::size_t kSize = 8;
constexpr std::size_t kLabel = 24;
constexpr std::size_t kChecksumAlgorithm = 72;
constexpr std::size_t kUuid = 168;
constexpr std::size_t kSubsystem = 208;
constexpr std::size_t kHeaderOffset = 256;
constexpr std::size_t kChecksum = 448;

class Table {
 public:
  std::vector<HostileRow> rows;

  Bytes good(Luks2Copy copy = Luks2Copy::kPrimary) const {
    return copy == Luks2Copy::kPrimary ? primary_ : secondary_;
  }
  void add(const std::string& name, Bytes bytes, const std::string& message,
           Code code = Code::kDamaged, std::uint64_t offset_bytes = 0) {
    rows.push_back({name, std::move(bytes), message, code, offset_bytes});
  }
  // `bytes` with the right checksum.
  void add_fixed(const std::string& name, Bytes bytes, const std::string& message,
                 Code code = Code::kDamaged, std::uint64_t offset_bytes = 0) {
    fix_luks2_checksum(bytes);
    add(name, std::move(bytes), message, code, offset_bytes);
  }
  void number(const std::string& name, std::size_t offset, std::uint64_t value,
              const std::string& message) {
    Bytes bytes = good();
    store_be(&bytes.at(offset), value);
    add_fixed(name, std::move(bytes), message);
  }
  void text(const std::string& name, std::size_t offset, std::size_t field_bytes,
            std::string_view value, const std::string& message) {
    Bytes bytes = good();
    const auto field = bytes.begin() + static_cast<std::ptrdiff_t>(offset);
    std::fill_n(field, field_bytes, std::byte{0});
    std::transform(value.begin(), value.end(), field,
                   [](char c) { return static_cast<std::byte>(c); });
    add_fixed(name, std::move(bytes), message);
  }
  void json(const std::string& name, std::string_view text, const std::string& message) {
    add(name, luks2_copy_with_json(good(), text), message);
  }

 private:
  Bytes primary_ = encode_luks2(sample_luks2(), Luks2Copy::kPrimary, Bytes(64, std::byte{9}));
  Bytes secondary_ = encode_luks2(sample_luks2(), Luks2Copy::kSecondary, Bytes(64, std::byte{9}));
};

void add_magic_and_version(Table& table) {
  for (std::size_t i = 0; i < 6; ++i) {
    Bytes bytes = table.good();
    bytes.at(i) ^= std::byte{1};
    table.add_fixed(fmt::format("magic byte {}", i), bytes, "no LUKS2 header");
  }
  table.add("all zero", Bytes(0x4000), "no LUKS2 header");
  table.add("all ones", Bytes(0x4000, std::byte{0xff}), "no LUKS2 header");
  table.add("secondary in the place of the primary", table.good(Luks2Copy::kSecondary),
            "no LUKS2 header");
  table.add("primary in the place of the secondary", table.good(), "no LUKS2 header",
            Code::kDamaged, 0x4000);
  for (const unsigned version : {0U, 3U, 0x0200U, 0xffffU}) {
    for (const bool primary : {true, false}) {
      Bytes bytes = table.good(primary ? Luks2Copy::kPrimary : Luks2Copy::kSecondary);
      store_be(&bytes.at(kVersion), static_cast<std::uint16_t>(version));
      table.add_fixed(fmt::format("version {} {}", version, primary ? "primary" : "secondary"),
                      bytes, fmt::format("LUKS version {} is unknown", version), Code::kUnsupported,
                      primary ? 0 : 0x4000);
    }
  }
  Bytes luks1 = table.good();
  store_be(&luks1.at(kVersion), std::uint16_t{1});
  table.add_fixed("version 1", luks1, "no LUKS2 header");
  Bytes secondary1 = table.good(Luks2Copy::kSecondary);
  store_be(&secondary1.at(kVersion), std::uint16_t{1});
  table.add_fixed("version 1 secondary", secondary1, "LUKS version 1 is unknown",
                  Code::kUnsupported, 0x4000);
}

void add_sizes_and_places(Table& table) {
  for (const std::uint64_t size : std::vector<std::uint64_t>{
           0, 1, 512, 4096, 0x3fff, 0x4001, 0x5000, 0x6000, 0x7fff, 0xc000, 0x800000, 0x40000000,
           1ULL << 32, 1ULL << 63, 0x0040000000000000, UINT64_MAX}) {
    table.number(fmt::format("metadata size {}", size), kSize, size,
                 fmt::format("metadata size of {} bytes is not one of the nine", size));
  }
  for (const std::uint64_t size : {0x8000ULL, 0x10000ULL, 0x400000ULL}) {
    table.number(fmt::format("metadata size {} beyond the copy", size), kSize, size,
                 fmt::format("LUKS2 metadata has 16384 bytes, not {}", size));
  }
  for (const std::uint64_t offset :
       std::vector<std::uint64_t>{1, 512, 0x4000, 0x8000, UINT64_MAX}) {
    table.number(fmt::format("primary says offset {}", offset), kHeaderOffset, offset,
                 fmt::format("LUKS2 copy at byte 0 says that it is at byte {}", offset));
  }
  for (const std::uint64_t offset : std::vector<std::uint64_t>{0, 0x4001, 0x8000, UINT64_MAX}) {
    Bytes bytes = table.good(Luks2Copy::kSecondary);
    store_be(&bytes.at(kHeaderOffset), offset);
    table.add_fixed(fmt::format("secondary says offset {}", offset), bytes,
                    fmt::format("LUKS2 copy at byte 16384 says that it is at byte {}", offset),
                    Code::kDamaged, 0x4000);
  }
  Bytes elsewhere = table.good(Luks2Copy::kSecondary);
  store_be(&elsewhere.at(kHeaderOffset), std::uint64_t{0x8000});
  table.add_fixed("secondary at the place of another size", elsewhere,
                  "secondary LUKS2 copy of 16384 bytes stands at byte 32768", Code::kDamaged,
                  0x8000);
  for (const std::size_t size : {0U, 1U, 5U}) {
    Bytes bytes = table.good();
    bytes.resize(size);
    table.add(fmt::format("cut to {} bytes", size), bytes, "no LUKS2 header");
  }
  for (const std::size_t size : {6U, 7U, 8U, 16U, 448U, 511U, 512U, 4095U}) {
    Bytes bytes = table.good();
    bytes.resize(size);
    table.add(fmt::format("cut to {} bytes", size), bytes,
              fmt::format("LUKS2 header ends after {} of 4096 bytes", size));
  }
  for (const std::size_t size : {4096U, 4097U, 8192U, 16383U, 16385U, 32768U}) {
    Bytes bytes = table.good();
    bytes.resize(size);
    table.add(fmt::format("{} bytes", size), bytes,
              fmt::format("LUKS2 metadata has {} bytes, not 16384", size));
  }
}

void add_strings(Table& table) {
  table.text("label without end", kLabel, 48, std::string(48, 'l'), "label 'llll");
  table.text("subsystem without end", kSubsystem, 48, std::string(48, 's'), "subsystem 'ssss");
  table.text("UUID without end", kUuid, 40, std::string(40, '0'), "UUID '0000");
  const std::string uuid = sample_luks2().uuid;
  const std::vector<std::pair<std::string, std::string>> uuids = {
      {"spaces", std::string(36, ' ')},
      {"high bytes", std::string(36, '\xff')},
      {"escapes", "\x1b[2J" + uuid.substr(4)}};
  for (const auto& [what, text] : uuids) {
    table.text("UUID " + what, kUuid, 40, text, "not printable ASCII");
  }
  const std::size_t at = kChecksumAlgorithm;
  table.text("checksum algorithm without end", at, 32, std::string(32, 'h'),
             "checksum algorithm 'hhhh");
  for (const std::string& name :
       {std::string(), std::string("md17"), std::string("sha256 "), std::string(" sha256"),
        std::string("sha-256"), std::string("hmac(sha256)"), std::string("crc32"),
        std::string("none"), std::string("sha256\n"), std::string("\xff\xfe"),
        std::string("../sha256")}) {
    table.text("checksum algorithm " + printable(name), at, 32, name,
               fmt::format("LUKS2 checksum algorithm '{}' is unknown", printable(name)));
  }
  for (const std::string& name : {std::string("sha1"), std::string("sha512")}) {
    table.text("checksum of another algorithm " + name, at, 32, name,
               "LUKS2 checksum does not match the metadata");
  }
}

void add_checksums(Table& table) {
  // Wherever a bit is wrong, and in the checksum itself; padding of both kinds included.
  for (const std::size_t at :
       {16UL,   23UL,   24UL,   71UL,   104UL,   167UL,   168UL,  208UL,  255UL,
        264UL,  300UL,  447UL,  448UL,  463UL,   479UL,   512UL,  2000UL, 4095UL,
        4096UL, 4100UL, 5000UL, 9000UL, 12000UL, 16382UL, 16383UL}) {
    Bytes bytes = table.good();
    bytes.at(at) ^= std::byte{1};
    table.add(fmt::format("bit at {} flipped", at), bytes,
              "LUKS2 checksum does not match the metadata");
  }
  Bytes none = table.good();
  std::fill_n(none.begin() + kChecksum, 64, std::byte{0});
  table.add("no checksum", none, "LUKS2 checksum does not match the metadata");
  Bytes torn = table.good();
  std::fill(torn.begin() + 8192, torn.end(), std::byte{0xee});
  table.add("torn write", torn, "LUKS2 checksum does not match the metadata");
}

void add_areas(Table& table) {
  const std::string good = luks2_json(sample_luks2());
  using namespace std::string_literals;
  table.json("no JSON", "", "LUKS2 JSON does not start with '{'");
  table.json("space first", " " + good, "LUKS2 JSON does not start with '{'");
  table.json("byte order mark first", "\xef\xbb\xbf" + good, "LUKS2 JSON does not start with '{'");
  table.json("array", "[" + good + "]", "LUKS2 JSON does not start with '{'");
  table.json("string", "\"x\"", "LUKS2 JSON does not start with '{'");
  table.json("zero first", "\0"s + good, "LUKS2 JSON does not start with '{'");
  table.json("comma last", good + ",", "not valid JSON (at byte");
  table.json("two objects", good + good, "not valid JSON (at byte");
  table.json("brace too many", good + "}", "not valid JSON (at byte");
  table.json("text behind the end", good + "\0x"s, "is followed by other bytes than 0");
  table.json("an older text behind the end", good + "\0\0\0"s + good,
             "is followed by other bytes than 0");
  table.json("last byte of the area", good + std::string(0x3000 - good.size() - 1, '\0') + "x",
             "is followed by other bytes than 0");
  table.json("no zero at the end",
             good.substr(0, good.size() - 1) + std::string(0x3000 - good.size(), ' ') + "}",
             "has no terminating zero");
  table.json("filled with braces", std::string(0x3000, '{'), "has no terminating zero");
  for (const std::size_t size : {1UL, 2UL, 11UL, 100UL, good.size() / 2, good.size() - 1}) {
    const std::string cut = good.substr(0, size);
    table.json(fmt::format("JSON cut to {} bytes", size), cut, "not valid JSON (at byte");
  }
  table.json("zero within", good.substr(0, 500) + "\0"s + good.substr(501),
             "is followed by other bytes than 0");
}

// `text` instead of the member "x-future".
std::string with_future(const std::string& text) {
  std::string json = luks2_json(sample_luks2());
  const std::size_t at = json.find("\"x-future\"");
  return json.substr(0, at) + text + "}";
}

void add_syntax(Table& table) {
  using namespace std::string_literals;
  const std::string syntax = "not valid JSON (at byte";
  for (const std::string& text : {R"("a":1,)"s,       R"(,"a":1)"s,        R"("a")"s,
                                  R"("a":)"s,         R"("a" 1)"s,         R"(a:1)"s,
                                  R"('a':1)"s,        R"("a":'x')"s,       R"("a":NaN)"s,
                                  R"("a":Infinity)"s, R"("a":-Infinity)"s, R"("a":01)"s,
                                  R"("a":+1)"s,       R"("a":1.)"s,        R"("a":.5)"s,
                                  R"("a":1e)"s,       R"("a":0x10)"s,      R"("a":True)"s,
                                  R"("a":nul)"s,      R"("a":[1,])"s,      R"("a":[1 2])"s,
                                  R"("a":{"b"})"s,    R"("a":[})"s,        R"("a":"\x41")"s,
                                  R"("a":"\u12")"s,   R"("a":"\ud800")"s,  R"("a":"\udc00\ud800")"s,
                                  R"("a":"\)"s,       "\"a\":\"\n\""s,     "\"a\":\"\x01\""s,
                                  R"("a":/* */1)"s,   "\"a\":1//x\n"s,     R"("a":undefined)"s,
                                  R"("a":--1)"s,      R"(1:2)"s,           R"(null:2)"s,
                                  R"([]:2)"s}) {
    table.json("syntax " + printable(text), with_future(text), syntax);
  }
  for (const std::string& bytes : {"\xff"s, "\x80"s, "\xc0\xaf"s, "\xc3"s, "\xed\xa0\x80"s,
                                   "\xf4\x90\x80\x80"s, "\xe0\x80\x80"s, "M\xe4rchen"s}) {
    table.json("value " + printable(bytes), with_future(R"("a":")" + bytes + "\""),
               "not valid UTF-8");
    table.json("name " + printable(bytes), with_future("\"" + bytes + "\":1"), "not valid UTF-8");
  }
  table.json("number beyond a double", with_future(R"("a":1e999)"), "a number out of range");
  table.json("name ends early", with_future(R"("a\u0000b":1)"),
             R"(JSON member name 'a\x00b' holds a zero byte)");
  table.json("known name ends early", with_future(R"("config\u0000":{})"), "holds a zero byte");
  table.json("name ends early far down", with_future(R"("a":[{"b":[{"c\u0000":1}]}])"),
             "holds a zero byte");
}

void add_depths(Table& table) {
  const auto arrays = [](std::size_t opened, std::size_t closed) {
    return with_future(R"("a":)" + std::string(opened, '[').append(closed, ']'));
  };
  for (const std::size_t depth : {32U, 33U, 60U}) {
    table.json(fmt::format("{} arrays", depth), arrays(depth, depth), "nested deeper than 32");
  }
  for (const std::size_t depth : {70U, 1000U, 3000U}) {
    table.json(fmt::format("{} arrays", depth), arrays(depth, depth), "nested deeper than 64");
    table.json(fmt::format("{} arrays without end", depth), arrays(depth, 0),
               "nested deeper than 64");
  }
  std::string objects = "1";
  for (int i = 0; i < 31; ++i) objects = fmt::format(R"({{"a":{}}})", objects);
  table.json("32 objects", with_future("\"a\":" + objects), "nested deeper than 32");
  for (int i = 0; i < 900; ++i) objects = fmt::format(R"({{"a":{}}})", objects);
  table.json("900 objects", with_future("\"a\":" + objects), "nested deeper than 64");
}

}  // namespace

std::vector<HostileRow> luks2_binary_rows() {
  Table table;
  add_magic_and_version(table);
  add_sizes_and_places(table);
  add_strings(table);
  add_checksums(table);
  return std::move(table.rows);
}

std::vector<HostileRow> luks2_text_rows() {
  Table table;
  add_areas(table);
  add_syntax(table);
  add_depths(table);
  return std::move(table.rows);
}

}  // namespace testing

namespace {

using testing::HostileRow;

std::vector<HostileRow> all_rows() {
  std::vector<HostileRow> rows;
  for (const auto& group : {testing::luks2_binary_rows(), testing::luks2_text_rows(),
                            testing::luks2_member_rows(), testing::luks2_rule_rows()}) {
    rows.insert(rows.end(), group.begin(), group.end());
  }
  return rows;
}

class Luks2Hostile : public ::testing::TestWithParam<HostileRow> {};

TEST_P(Luks2Hostile, IsRefusedWithItsReason) {
  const std::uint64_t offset = GetParam().offset_bytes;
  testing::expect_refusal(GetParam(),
                          [&](ByteView bytes) { (void)decode_luks2(bytes, offset, "disk 'x'"); });
}

INSTANTIATE_TEST_SUITE_P(Binary, Luks2Hostile, ::testing::ValuesIn(testing::luks2_binary_rows()),
                         testing::test_name);
INSTANTIATE_TEST_SUITE_P(Text, Luks2Hostile, ::testing::ValuesIn(testing::luks2_text_rows()),
                         testing::test_name);
INSTANTIATE_TEST_SUITE_P(Members, Luks2Hostile, ::testing::ValuesIn(testing::luks2_member_rows()),
                         testing::test_name);
INSTANTIATE_TEST_SUITE_P(Rules, Luks2Hostile, ::testing::ValuesIn(testing::luks2_rule_rows()),
                         testing::test_name);

TEST(Luks2HostileTable, HasEnoughRows) {
  EXPECT_GE(testing::luks2_rule_rows().size(), 60U);
  EXPECT_GE(all_rows().size(), 150U);
}

// The bases of all rows are good: what is refused is refused for the change.
TEST(Luks2HostileTable, StartsFromGoodHeaders) {
  for (const Header& header : {testing::sample_luks2(), testing::sample_reencryption()}) {
    const Bytes copy = encode_luks2(header, Luks2Copy::kPrimary, Bytes(64));
    EXPECT_EQ(decode_luks2(copy, 0, "disk 'x'"), header);
    EXPECT_EQ(testing::luks2_copy_with_json(copy, luks2_json(header)), copy);
  }
}

// Bytes of the metadata wrong in turn, the checksum being right: an error, or a header that is
// written as it was read.
TEST(Luks2HostileTable, AnyByteCanBeAnything) {
  const Bytes good =
      encode_luks2(testing::sample_luks2(), Luks2Copy::kPrimary, Bytes(64, std::byte{9}));
  const std::size_t end = 4096 + luks2_json(testing::sample_luks2()).size() + 2;
  for (std::size_t at = 0; at < end;
       at = at < 512 ? at + 3 : std::max<std::size_t>(at + 11, 4096)) {
    Bytes bytes = good;
    bytes[at] ^= static_cast<std::byte>(1U << (at % 8));
    testing::fix_luks2_checksum(bytes);
    try {
      const Header header = decode_luks2(bytes, 0, "disk 'x'");
      const Bytes again = encode_luks2(header, Luks2Copy::kPrimary, Bytes(64));
      ASSERT_EQ(decode_luks2(again, 0, "disk 'x'"), header) << at;
    } catch (const Error& error) {
      ASSERT_TRUE(error.code() == Code::kDamaged || error.code() == Code::kUnsupported)
          << at << ": " << error.message();
    }
  }
}

}  // namespace
}  // namespace lukskeep::luks
