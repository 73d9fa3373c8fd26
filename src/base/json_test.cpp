#include "base/json.h"

#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep {
namespace {

TEST(Json, RefusesWhatReadersWouldUnderstandDifferently) {
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  const std::string huge_depth = std::string(200'000, '[');
  for (const std::string& text :
       {std::string(R"({"a":1,"a":2})"), std::string(R"({"x":{"b":1,"\u0062":2}})"), deep,
        huge_depth, std::string("{\"a\":\"\xff\"}"), std::string("{"), std::string(),
        std::string("{} x"), std::string("[1e999]"), std::string("{\"a\":1,}")}) {
    EXPECT_THROW(parse_json(text, "test"), Error) << text.substr(0, 40);
  }
}

// A LUKS2 header holds up to 4 MiB of text that an attacker chose. Reading this in quadratic time
// would outlast the test run.
TEST(Json, ReadsManySmallValues) {
  for (const char* value : {"{}", "{\"\":1}"}) {
    std::string text = "[";
    while (text.size() < (4U << 20)) text += value + std::string(",");
    text.back() = ']';
    EXPECT_TRUE(parse_json(text, "test").is_array()) << value;
  }
}

TEST(Json, MessageNamesTheMember) {
  try {
    parse_json(R"({"keyslots":{"0":1,"0":2}})", "metadata of 'x'");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kDamaged);
    EXPECT_EQ(error.message(), "metadata of 'x': JSON member '0' is there twice");
  }
}

TEST(Json, SameNameInDifferentObjectsIsFine) {
  EXPECT_NO_THROW(parse_json(R"({"a":{"a":1},"b":[{"a":1},{"a":1}]})", "test"));
}

TEST(Json, MemberTextsAreSlices) {
  const std::string text =
      R"( { "a" : 1.50 , "b\u0063":{"x":[1,"},{",2]} ,"s":"q\"\\", "e":[] , "t":true } )";
  parse_json(text, "test");
  const auto members = json_member_texts(text);
  ASSERT_EQ(members.size(), 5U);
  EXPECT_EQ(members.at("a"), "1.50");
  EXPECT_EQ(members.at("bc"), R"({"x":[1,"},{",2]})");
  EXPECT_EQ(members.at("s"), R"("q\"\\")");
  EXPECT_EQ(members.at("e"), "[]");
  EXPECT_EQ(members.at("t"), "true");
  EXPECT_TRUE(json_member_texts("{}").empty());
  EXPECT_TRUE(json_member_texts("[1]").empty());
}

}  // namespace
}  // namespace lukskeep
