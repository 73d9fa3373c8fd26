#include "base/base64url.h"

#include <string>

#include <gtest/gtest.h>

namespace lukskeep {
namespace {

struct Row {
  std::string plain;
  std::string text;
};

// RFC 4648 section 10, and RFC 7515 appendix C.
const Row kRows[] = {{"", ""},
                     {"f", "Zg"},
                     {"fo", "Zm8"},
                     {"foo", "Zm9v"},
                     {"foob", "Zm9vYg"},
                     {"fooba", "Zm9vYmE"},
                     {"foobar", "Zm9vYmFy"},
                     {"\x03\xec\xff\xe0\xc1", "A-z_4ME"}};

TEST(Base64Url, VectorsBothWays) {
  for (const Row& row : kRows) {
    const ByteView plain = as_byte_view(row.plain);
    EXPECT_EQ(to_base64url(plain), row.text);
    EXPECT_EQ(as_string_view(secret_to_base64url(plain).span()), row.text);
    const auto bytes = from_base64url(row.text);
    EXPECT_EQ(as_string_view(bytes.value()), row.plain);
    const auto secret = secret_from_base64url(row.text);
    EXPECT_EQ(as_string_view(secret.value().span()), row.plain);
  }
}

TEST(Base64Url, RefusesEverySecondSpelling) {
  for (const char* text : {"A", "Zg==", "Zh", "Zm9", "A+z/4ME", "Zg\n", " Zg", "Zm9vY", "Zm8="}) {
    EXPECT_FALSE(from_base64url(text)) << text;
    EXPECT_FALSE(secret_from_base64url(text)) << text;
  }
  EXPECT_FALSE(from_base64url(std::string_view("Z\0g", 3)));
}

}  // namespace
}  // namespace lukskeep
