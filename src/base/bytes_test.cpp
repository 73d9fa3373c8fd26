#include "base/bytes.h"

#include <array>
#include <random>

#include <gtest/gtest.h>

namespace lukskeep {
namespace {

Bytes bytes_of(std::string_view text) {
  const ByteView view = as_byte_view(text);
  return {view.begin(), view.end()};
}

TEST(Bytes, IntegersInBothOrders) {
  const std::array<std::byte, 8> raw = {std::byte{0x01}, std::byte{0x82}, std::byte{0x03},
                                        std::byte{0x84}, std::byte{0x05}, std::byte{0x86},
                                        std::byte{0x07}, std::byte{0x88}};
  EXPECT_EQ(load_be<std::uint16_t>(raw.data()), 0x0182);
  EXPECT_EQ(load_le<std::uint16_t>(raw.data()), 0x8201);
  EXPECT_EQ(load_be<std::uint32_t>(raw.data()), 0x01820384U);
  EXPECT_EQ(load_le<std::uint32_t>(raw.data()), 0x84038201U);
  EXPECT_EQ(load_be<std::uint64_t>(raw.data()), 0x0182038405860788U);
  EXPECT_EQ(load_le<std::uint64_t>(raw.data()), 0x8807860584038201U);
  EXPECT_EQ(load_le<std::uint8_t>(raw.data() + 1), 0x82);
}

TEST(Bytes, StoringIsTheInverseOfLoading) {
  std::array<std::byte, 10> raw{};
  store_be<std::uint64_t>(raw.data() + 1, 0xfedcba9876543210U);
  EXPECT_EQ(to_hex(raw), "00fedcba987654321000");
  store_le<std::uint64_t>(raw.data() + 1, 0xfedcba9876543210U);
  EXPECT_EQ(to_hex(raw), "001032547698badcfe00");
  store_be<std::uint16_t>(raw.data() + 1, 0xabcd);
  store_le<std::uint32_t>(raw.data() + 3, 0x01020304);
  EXPECT_EQ(to_hex(raw), "00abcd04030201dcfe00");
}

TEST(Bytes, AllZeroLooksAtEveryByte) {
  EXPECT_TRUE(all_zero({}));
  for (const std::size_t size : {1U, 2U, 7U, 64U, 1000U}) {
    Bytes bytes(size);
    EXPECT_TRUE(all_zero(bytes));
    for (std::size_t i = 0; i < size; ++i) {
      bytes[i] = std::byte{0x80};
      EXPECT_FALSE(all_zero(bytes)) << i << " of " << size;
      bytes[i] = std::byte{0};
    }
  }
  // A run of one other value compares equal to itself, shifted.
  EXPECT_FALSE(all_zero(Bytes(100, std::byte{1})));
}

TEST(Bytes, Hex) {
  EXPECT_EQ(to_hex(bytes_of(std::string_view("\x00\x7f\xff z", 5))), "007fff207a");
  EXPECT_EQ(from_hex("007fFf"), bytes_of(std::string_view("\x00\x7f\xff", 3)));
  EXPECT_EQ(from_hex(""), Bytes());
  for (const char* bad : {"0", "0g", "g0", " 00", "0x", "00 ", "0:", "0/", "@0", "`0"}) {
    EXPECT_EQ(from_hex(bad), std::nullopt) << bad;
  }
}

// RFC 4648 section 10.
TEST(Bytes, Base64OfTheStandard) {
  const std::array<std::pair<std::string_view, std::string_view>, 7> vectors = {
      {{"", ""},
       {"f", "Zg=="},
       {"fo", "Zm8="},
       {"foo", "Zm9v"},
       {"foob", "Zm9vYg=="},
       {"fooba", "Zm9vYmE="},
       {"foobar", "Zm9vYmFy"}}};
  for (const auto& [plain, encoded] : vectors) {
    EXPECT_EQ(to_base64(bytes_of(plain)), encoded);
    EXPECT_EQ(from_base64(encoded), bytes_of(plain));
  }
  EXPECT_EQ(to_base64(bytes_of("\xfb\xff\xfe")), "+//+");
}

TEST(Bytes, Base64RefusesWhatItWouldNotWrite) {
  for (const char* bad : {"Zg", "Zg=", "Zg===", "=Zg=", "Z===", "====", "Zh==", "Zm9=", "Zm9v=",
                          "Zg==Zg==", "Zm 9", "Zm9v\n", "Zm-_", "Zg=A"}) {
    EXPECT_EQ(from_base64(bad), std::nullopt) << bad;
  }
}

TEST(Bytes, TextFormsRoundTrip) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (std::size_t size = 0; size < 100; ++size) {
    Bytes bytes(size);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    EXPECT_EQ(from_hex(to_hex(bytes)), bytes);
    EXPECT_EQ(from_base64(to_base64(bytes)), bytes);
  }
}

TEST(Bytes, Utf8IsCheckedStrictly) {
  // First and last of each length, and the noncharacter that is valid all the same.
  for (const char* good :
       {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xc3\xa4z"}) {
    EXPECT_TRUE(is_utf8(good)) << to_hex(as_byte_view(good));
  }
  // Stray and missing continuations, overlong forms, surrogates, beyond U+10FFFF.
  for (const char* bad :
       {"\x80", "\xbf", "\xc2", "\xc2z", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xe2\x82",
        "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x98", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xfe", "\xff", "a\xe2\x28\xa1"}) {
    EXPECT_FALSE(is_utf8(bad)) << to_hex(as_byte_view(bad));
  }
}

TEST(Bytes, PrintableDisarmsAndCuts) {
  EXPECT_EQ(printable("plain text"), "plain text");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\x1b[31m\r\n\x7f"), "\\x1b[31m\\x0d\\x0a\\x7f");
  EXPECT_EQ(printable("it's \\"), "it\\x27s \\x5c");
  EXPECT_EQ(printable("\xc3\xa4\xff"), "\xc3\xa4\\xff");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");  // one byte for "escape [" to some terminals
  EXPECT_EQ(printable("\xc2\xa0"), "\xc2\xa0");
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdefg", 6), "abcdef…");
  // Never inside a character or an escape.
  EXPECT_EQ(printable("abcde\xc3\xa4", 6), "abcde…");
  EXPECT_EQ(printable("abc\n", 6), "abc…");
}

}  // namespace
}  // namespace lukskeep
