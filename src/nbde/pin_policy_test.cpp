#include "nbde/pin_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::nbde {
namespace {

using ::testing::HasSubstr;

const std::string kThp = "kqHEmxa5Q5O2WF-Ew_-p0cK6LJsK_iU9RsCsfJabsws";

TEST(PinPolicy, ReadsTheConfigurationsOfClevis) {
  struct Row {
    std::string json, pin, canonical;
  };
  const std::vector<Row> rows = {
      {R"({"url":"http://a"})", "", R"({"url":"http://a"})"},
      {R"({"url":"a:8080","thp":")" + kThp + "\"}", "tang",
       R"({"thp":")" + kThp + R"(","url":"a:8080"})"},
      {R"({"url":"http://a","adv":"a.jws"})", "tang", R"({"adv":"a.jws","url":"http://a"})"},
      {R"({"url":"http://a","adv":{"payload":"x"}})", "tang",
       R"({"adv":{"payload":"x"},"url":"http://a"})"},
      {"{}", "tpm2", R"({"hash":"sha256","key":"ecc"})"},
      {R"({"pcr_bank":"sha1","pcr_ids":"7, 0"})", "tpm2",
       R"({"hash":"sha256","key":"ecc","pcr_bank":"sha1","pcr_ids":"0,7"})"},
      {R"({"pcr_ids":[7,"0",7]})", "tpm2", R"({"hash":"sha256","key":"ecc","pcr_ids":"0,7"})"},
      {R"({"t":1,"pins":{"tang":{"url":"a"},"sss":[{"t":2,"pins":{"tang":[{"url":"b"},{"url":"c"}]}}]}})",
       "",
       R"({"pins":{"sss":[{"pins":{"tang":[{"url":"b"},{"url":"c"}]},"t":2}],"tang":[{"url":"a"}]},"t":1})"},
      {R"({"fail":true})", "null", R"({"fail":true})"}};
  for (const Row& row : rows) {
    const PinPolicy policy = parse_pin_policy(row.json, row.pin);
    EXPECT_EQ(to_json(policy).dump(), row.canonical);
    EXPECT_EQ(parse_pin_policy(row.canonical, pin_name(policy)), policy);
  }
}

std::string problem_with(const std::string& json, const std::string& pin) {
  try {
    parse_pin_policy(json, pin);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    return error.message();
  }
  return "nothing";
}

TEST(PinPolicy, RefusesWhatItDoesNotUnderstand) {
  std::string deep = R"({"url":"a"})";
  std::string many = R"({"url":"a"})";
  for (std::size_t i = 0; i <= limits::kPinDepthMax; ++i) {
    deep = R"({"t":1,"pins":{")" + std::string(i == 0 ? "tang" : "sss") + "\":" + deep + "}}";
  }
  for (std::size_t i = 0; i < limits::kPinsMax; ++i) many += R"(,{"url":"a"})";
  struct Row {
    std::string json, pin, problem;
  };
  const std::vector<Row> rows = {
      {"", "", "policy"},
      {"{", "", "policy"},
      {"[]", "", "names no pin"},
      {R"({"a":1})", "", "names no pin"},
      {R"({"url":"a","url":"b"})", "", "policy"},
      {R"({"url":5})", "tang", "'url' of tang is not a string"},
      {R"({"thp":"x"})", "tang", "needs a 'url'"},
      {R"({"url":"a","thb":"x"})", "tang", "'thb' of tang is not known"},
      {R"({"url":"a","thp":"x"})", "tang", "no thumbprint"},
      {R"({"url":"ftp://a"})", "tang", "no URL"},
      {R"({"url":"file:///etc/passwd"})", "tang", "no URL"},
      {R"({"url":"http://a b"})", "tang", "no URL"},
      {R"({"url":"http://a/?x="})", "tang", "no URL"},
      {R"({"url":"http://a\u000d\u000aX: y"})", "tang", "no URL"},
      {R"({"url":"a","adv":5})", "tang", "'adv'"},
      {R"({"pcr_ids":"24"})", "tpm2", "no PCR"},
      {R"({"pcr_ids":"-1"})", "tpm2", "no PCR"},
      {R"({"pcr_ids":"1,,2"})", "tpm2", "no PCR"},
      {R"({"pcr_ids":99999999999999999999})", "tpm2", "pcr_ids"},
      {R"({"pcr_ids":"7","pcr_digest":"!"})", "tpm2", "pcr_digest"},
      {R"({"hash":"md5"})", "tpm2", "no hash"},
      {R"({"key":"dsa"})", "tpm2", "no key"},
      {R"({"t":0,"pins":{"tang":{"url":"a"}}})", "sss", "threshold of 0"},
      {R"({"t":2,"pins":{"tang":{"url":"a"}}})", "sss", "threshold of 2"},
      {R"({"t":-1,"pins":{"tang":{"url":"a"}}})", "sss", "'t'"},
      {R"({"t":18446744073709551616,"pins":{"tang":{"url":"a"}}})", "sss", "'t'"},
      {R"({"t":1,"pins":{}})", "sss", "no pins"},
      {R"({"t":1,"pins":[]})", "sss", "'pins'"},
      {R"({"t":1,"pins":{"yubikey":{}}})", "sss", "'yubikey' is not known"},
      {R"({"t":1})", "sss", "'pins'"},
      {deep, "sss", "too deep"},
      {R"({"t":1,"pins":{"tang":[)" + many + "]}}", "sss", "pins"}};
  for (const Row& row : rows) {
    EXPECT_THAT(problem_with(row.json, row.pin), HasSubstr(row.problem)) << row.json;
  }
}

TEST(PinPolicy, ReadsOptions) {
  EXPECT_EQ(to_json(parse_tang_option("http://a,thp=" + kThp)).dump(),
            R"({"thp":")" + kThp + R"(","url":"http://a"})");
  EXPECT_EQ(to_json(parse_tang_option("http://a,adv=f")).dump(), R"({"adv":"f","url":"http://a"})");
  const char* const with_pcrs =
      R"({"hash":"sha256","key":"ecc","pcr_bank":"sha1","pcr_ids":"0,7,8"})";
  for (const char* text :
       {"pcrs=7+8+0,bank=sha1", "bank=sha1,pcrs=7,8,0", "pcrs=0,7,8,bank=sha1"}) {
    EXPECT_EQ(to_json(parse_tpm2_option(text)).dump(), with_pcrs) << text;
  }
  EXPECT_EQ(to_json(parse_tpm2_option("")).dump(), R"({"hash":"sha256","key":"ecc"})");
  for (const char* text : {"http://a,tph=x", "http://a,"}) {
    EXPECT_THROW(parse_tang_option(text), Error) << text;
  }
  for (const char* text : {"7", "pcrs=7,bank=sha1,8", "pcrs=x", "color=red"}) {
    EXPECT_THROW(parse_tpm2_option(text), Error) << text;
  }
}

TEST(PinPolicy, JoinsPins) {
  const PinPolicy a = parse_tang_option("a");
  const PinPolicy b = parse_tang_option("b");
  EXPECT_EQ(join_pins({a}, {}), a);
  EXPECT_EQ(join_pins({a, b}, 2U), (PinPolicy{SssPin{.threshold = 2, .pins = {a, b}}}));
  EXPECT_THROW(join_pins({a, b}, {}), Error);
  EXPECT_THROW(join_pins({a, b}, 3U), Error);
  EXPECT_THROW(join_pins({}, {}), Error);
}

constexpr std::string_view kRegions = R"(
# five regions, the closest three, any two
threshold = 2
closest = 3
[[region]]
name = "far"
distance = 90
tang = "http://far"
[[region]]
name = "near"
distance = 1
threshold = 2
tang = ["http://n1", {url = "http://n2", adv = "n2.adv"}, "http://n3"]
[[region]]
name = "b"
distance = 20
tang = [{url = "http://b", thp = "kqHEmxa5Q5O2WF-Ew_-p0cK6LJsK_iU9RsCsfJabsws"}]
[[region]]
name = "c"
distance = 20
tang = "http://c"
tpm2 = {pcrs = [7, 0], bank = "sha256"}
threshold = 1
[[region]]
name = "farther"
distance = 91
tang = "http://farther"
)";

TEST(PinPolicy, ReadsRegions) {
  EXPECT_EQ(
      to_json(parse_pin_policy_toml(kRegions, "f")).dump(),
      R"({"pins":{"sss":[{"pins":{"tang":[{"url":"http://n1"},{"adv":"n2.adv","url":"http://n2"},{"url":"http://n3"}]},"t":2},)"
      R"({"pins":{"tang":[{"url":"http://c"}],"tpm2":[{"hash":"sha256","key":"ecc","pcr_bank":"sha256","pcr_ids":"0,7"}]},"t":1}],)"
      R"("tang":[{"thp":"kqHEmxa5Q5O2WF-Ew_-p0cK6LJsK_iU9RsCsfJabsws","url":"http://b"}]},"t":2})");
  EXPECT_EQ(to_json(parse_pin_policy_toml("tang = \"a\"\n", "f")).dump(), R"({"url":"a"})");
}

TEST(PinPolicy, RefusesFilesNamingTheLine) {
  struct Row {
    std::string text, problem;
  };
  const std::vector<Row> rows = {
      {"", "line 1: there is neither"},
      {"tang = [\"a\", \"b\"]\n", "2 pins want a 'threshold'"},
      {"tang = \"a\"\nthreshhold = 1\n", "line 2: 'threshhold' is not known"},
      {"tang = 5\n", "line 1: 'tang' is not a table"},
      {"tang = {thp = \"x\"}\n", "has no 'url'"},
      {"tang = {url = \"a\", tls = true}\n", "'tls' of a tang"},
      {"tpm2 = {pcrs = [-1]}\n", "'pcrs' is not a whole number"},
      {"tpm2 = {pcrs = [99]}\n", "no PCR 99"},
      {"threshold = 3\ntang = [\"a\", \"b\"]\n", "threshold of 3"},
      {"closest = 2\n[[region]]\ntang = \"a\"\n", "'closest' is 2, of 1 regions"},
      {"closest = 0\n[[region]]\ntang = \"a\"\n", "'closest' is 0"},
      {"[[ab.]]\n", "line 1"},
      {"a = \"\"\"\n\"\"\"\n", "many lines"},
      {"tang = \"a\"\ntang = \"b\"\n", "line 2"}};
  for (const Row& row : rows) {
    try {
      parse_pin_policy_toml(row.text, "f");
      ADD_FAILURE() << row.text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument);
      EXPECT_THAT(error.message(), HasSubstr(row.problem)) << row.text;
    }
  }
}

}  // namespace
}  // namespace lukskeep::nbde
