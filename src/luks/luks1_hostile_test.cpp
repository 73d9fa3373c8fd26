// LUKS1 headers that are damaged or were made to do harm: each is refused with its reason.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "luks/codec_test_models.h"
#include "luks/hostile_test_rows.h"
#include "luks/luks1_codec.h"

namespace lukskeep::luks {
namespace {

using testing::HostileRow;

// Offsets of the header, written down once more so that a wrong one in the codec shows.
constexpr std::size_t kCipherName = 8;
constexpr std::size_t kCipherMode = 40;
constexpr std::size_t kHashSpec = 72;
constexpr std::size_t kPayloadOffset = 104;
constexpr std::size_t kKeyBytes = 108;
constexpr std::size_t kDigestIterations = 164;
constexpr std::size_t kUuid = 168;
constexpr std::uint32_t kU32Max = UINT32_MAX;

std::size_t slot_at(int slot) { return 208 + 48 * static_cast<std::size_t>(slot); }
std::size_t iterations_at(int slot) { return slot_at(slot) + 4; }
std::size_t material_at(int slot) { return slot_at(slot) + 40; }
std::size_t stripes_at(int slot) { return slot_at(slot) + 44; }

class Table {
 public:
  std::vector<HostileRow> rows;

  void number(const std::string& name, std::size_t offset, std::uint32_t value,
              const std::string& message) {
    Bytes bytes = good_;
    store_be(&bytes.at(offset), value);
    rows.push_back({.name = name, .bytes = std::move(bytes), .message = message});
  }
  void text(const std::string& name, std::size_t offset, std::size_t field_bytes,
            std::string_view value, const std::string& message) {
    Bytes bytes = good_;
    const auto field = bytes.begin() + static_cast<std::ptrdiff_t>(offset);
    std::fill_n(field, field_bytes, std::byte{0});
    std::transform(value.begin(), value.end(), field,
                   [](char c) { return static_cast<std::byte>(c); });
    rows.push_back({.name = name, .bytes = std::move(bytes), .message = message});
  }
  void bytes(const std::string& name, Bytes bytes, const std::string& message,
             Code code = Code::kDamaged) {
    rows.push_back({.name = name, .bytes = std::move(bytes), .message = message, .code = code});
  }
  const Bytes& good() const { return good_; }

 private:
  Bytes good_ = encode_luks1(testing::sample_luks1());
};

void add_beginnings(Table& table) {
  for (std::size_t i = 0; i < 6; ++i) {
    Bytes bytes = table.good();
    bytes.at(i) ^= std::byte{0x20};
    table.bytes(fmt::format("magic byte {}", i), bytes, "no LUKS header", Code::kNotLuks);
  }
  table.bytes(
      "secondary magic",
      [&] {
        Bytes bytes = table.good();
        std::swap(bytes.at(0), bytes.at(3));
        std::swap(bytes.at(1), bytes.at(2));
        return bytes;
      }(),
      "no LUKS header", Code::kNotLuks);
  table.bytes("all zero", Bytes(592), "no LUKS header", Code::kNotLuks);
  table.bytes("all ones", Bytes(592, std::byte{0xff}), "no LUKS header", Code::kNotLuks);
  for (const unsigned version : {0U, 2U, 3U, 0x0100U, 0xffffU}) {
    Bytes bytes = table.good();
    store_be(&bytes.at(6), static_cast<std::uint16_t>(version));
    table.bytes(fmt::format("version {}", version), bytes,
                fmt::format("LUKS version {} is not LUKS1", version), Code::kUnsupported);
  }
  for (const std::size_t size : {0U, 1U, 5U}) {
    table.bytes(fmt::format("cut to {} bytes", size),
                Bytes(table.good().begin(), table.good().begin() + static_cast<long>(size)),
                "no LUKS header", Code::kNotLuks);
  }
  for (const std::size_t size : {6U, 7U, 8U, 40U, 104U, 112U, 208U, 256U, 512U, 591U}) {
    table.bytes(fmt::format("cut to {} bytes", size),
                Bytes(table.good().begin(), table.good().begin() + static_cast<long>(size)),
                fmt::format("LUKS1 header ends after {} of 592 bytes", size));
  }
}

void add_names(Table& table) {
  const std::string full(32, 'a');
  table.text("cipher name without end", kCipherName, 32, full, "cipher name 'aaaa");
  table.text("cipher mode without end", kCipherMode, 32, full, "cipher mode 'aaaa");
  table.text("hash without end", kHashSpec, 32, full, "hash 'aaaa");
  table.text("cipher name empty", kCipherName, 32, "", "cipher name is empty");
  table.text("hash empty", kHashSpec, 32, "", "hash is empty");
  table.text("cipher name with mode", kCipherName, 32, "aes-xts", "'aes-xts' holds a '-'");
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"space", "a b"}, {"newline", "a\nb"},    {"escape", "\x1b[31m"}, {"delete", "a\x7f"},
      {"tab", "\t"},    {"high byte", "a\xff"}, {"UTF-8", "é"},         {"bell", "\a"}};
  for (const auto& [what, text] : bad) {
    table.text("cipher name with " + what, kCipherName, 32, text,
               fmt::format("cipher name '{}' has characters that are not printable ASCII",
                           printable(text)));
    table.text("cipher mode with " + what, kCipherMode, 32, text,
               fmt::format("cipher mode '{}' has characters that are not printable ASCII",
                           printable(text)));
    table.text(
        "hash with " + what, kHashSpec, 32, text,
        fmt::format("hash '{}' has characters that are not printable ASCII", printable(text)));
  }
}

void add_uuids(Table& table) {
  const std::string uuid = "0b1d1a6f-3f0e-4e0a-8b1c-0123456789ab";
  table.text("UUID without end", kUuid, 40, uuid + "0000", "UUID '" + uuid + "0000' has no term");
  table.text("UUID with spaces", kUuid, 40, std::string(36, ' '), "not printable ASCII");
  table.text("UUID with newline", kUuid, 40, uuid.substr(0, 35) + "\n", "not printable ASCII");
}

void add_numbers(Table& table) {
  for (const std::uint32_t size :
       {0U, 513U, 1024U, 0x01000000U, 0x7fffffffU, 0x80000000U, kU32Max}) {
    table.number(fmt::format("key size {}", size), kKeyBytes, size,
                 fmt::format("key size of {} bytes is not in 1 to 512", size));
  }
  // Sizes that are legal, but for which this header has no room.
  table.number("key size 33", kKeyBytes, 33, "keyslots 0 and 1 overlap");
  table.number("key size 512", kKeyBytes, 512,
               "keyslot 1: key material at sector 264 overlaps the payload");
  table.number("digest iterations 0", kDigestIterations, 0, "digest iterations are 0");
  // Behind each number: the first keyslot that ends beyond.
  for (const auto& [sector, slot] : std::vector<std::pair<std::uint32_t, int>>{
           {1, 0}, {2, 0}, {7, 0}, {8, 0}, {9, 0}, {257, 0}, {258, 1}, {512, 1}, {2049, 7}}) {
    table.number(fmt::format("payload at sector {}", sector), kPayloadOffset, sector,
                 fmt::format("keyslot {}: key material at sector {} overlaps the payload at "
                             "sector {}",
                             slot, 8 + 256 * slot, sector));
  }
}

// Every rule of a keyslot for each of the eight, of which two are active.
void add_slots(Table& table) {
  for (int slot = 0; slot < kLuks1KeyslotCount; ++slot) {
    const std::string keyslot = fmt::format("keyslot {}", slot);
    for (const std::uint32_t stripes : {0U, 1U, 3999U, 4001U, 0xa00f0000U, kU32Max}) {
      table.number(fmt::format("{} with {} stripes", keyslot, stripes), stripes_at(slot), stripes,
                   fmt::format("{}: {} stripes, not 4000", keyslot, stripes));
    }
    for (const std::uint32_t sector : {0U, 1U}) {
      table.number(
          fmt::format("{} at sector {}", keyslot, sector), material_at(slot), sector,
          fmt::format("{}: key material at sector {} overlaps the header", keyslot, sector));
    }
    for (const std::uint32_t sector : {3847U, 4095U, 4096U, 0x00800000U, 0x7fffffffU, kU32Max}) {
      table.number(fmt::format("{} at sector {}", keyslot, sector), material_at(slot), sector,
                   fmt::format("{}: key material at sector {} overlaps the payload at sector 4096",
                               keyslot, sector));
    }
    const int other = slot == 3 ? 4 : 3;
    const std::string both =
        fmt::format("keyslots {} and {} overlap", std::min(slot, other), std::max(slot, other));
    const auto other_sector = static_cast<std::uint32_t>(8 + 256 * other);
    table.number(keyslot + " upon another", material_at(slot), other_sector, both);
    table.number(keyslot + " one sector into another", material_at(slot), other_sector + 249, both);
  }
  for (const int slot : {0, 2}) {
    table.number(fmt::format("keyslot {} iterations 0", slot), iterations_at(slot), 0,
                 fmt::format("keyslot {}: iterations are 0", slot));
  }
}

std::vector<HostileRow> make_rows() {
  Table table;
  add_beginnings(table);
  add_names(table);
  add_uuids(table);
  add_numbers(table);
  add_slots(table);
  return std::move(table.rows);
}

class Luks1Hostile : public ::testing::TestWithParam<HostileRow> {};

TEST_P(Luks1Hostile, IsRefusedWithItsReason) {
  testing::expect_refusal(GetParam(),
                          [](ByteView bytes) { (void)decode_luks1(bytes, "disk 'x'"); });
}

INSTANTIATE_TEST_SUITE_P(Table, Luks1Hostile, ::testing::ValuesIn(make_rows()), testing::test_name);

TEST(Luks1HostileTable, HasEnoughRows) { EXPECT_GE(make_rows().size(), 150U); }

// The base of all rows is good: what is refused is refused for the change.
TEST(Luks1HostileTable, StartsFromAGoodHeader) {
  EXPECT_NO_THROW((void)decode_luks1(Table{}.good(), "disk 'x'"));
}

// Every single byte of a header turned into several values: an error or a header, which is then
// written as it was read.
TEST(Luks1HostileTable, AnyByteCanBeAnything) {
  const Bytes good = Table{}.good();
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (unsigned value = 0; value < 256; value += 15) {
      Bytes bytes = good;
      bytes[at] = static_cast<std::byte>(value);
      try {
        const Header header = decode_luks1(bytes, "disk 'x'");
        ASSERT_EQ(decode_luks1(encode_luks1(header), "disk 'x'"), header) << at << " " << value;
      } catch (const Error& error) {
        ASSERT_TRUE(error.code() == Code::kDamaged || error.code() == Code::kNotLuks ||
                    error.code() == Code::kUnsupported)
            << at << " " << value << ": " << error.message();
      }
    }
  }
}

}  // namespace
}  // namespace lukskeep::luks
