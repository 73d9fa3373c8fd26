#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/compat.h"
#include "cli/compat_clevis.h"
#include "cli/compat_io.h"

namespace lukskeep::cli {
namespace {

using testing::ElementsAre;
using Words = std::vector<std::string>;

TEST(CompatOptions, AreThoseOfGetopts) {
  const Words words = {"-fd", "vol", "-s5", "-k-", "tang", "-y", "{}"};
  const ShortOptions options = parse_short_options(words, "hfyd:s:k:");
  EXPECT_FALSE(options.wrong);
  EXPECT_TRUE(options.has('f'));
  EXPECT_EQ(options.value('d'), "vol");
  EXPECT_EQ(options.value('s'), "5");
  EXPECT_EQ(options.value('k'), "-");
  // Options end at the first word that is none.
  EXPECT_FALSE(options.has('y'));
  EXPECT_THAT(options.rest, ElementsAre("tang", "-y", "{}"));
}

TEST(CompatOptions, EndWhereItIsSaid) {
  const ShortOptions options = parse_short_options(Words{"-f", "--", "-y"}, "fy");
  EXPECT_FALSE(options.has('y'));
  EXPECT_THAT(options.rest, ElementsAre("-y"));
  EXPECT_THAT(parse_short_options(Words{"-f", "-"}, "f").rest, ElementsAre("-"));
}

TEST(CompatOptions, ThatAreWrongAreSaidSo) {
  for (const Words& words :
       {Words{"-x"}, Words{"-d"}, Words{"-fd"}, Words{"-:"}, Words{"--device"}}) {
    EXPECT_TRUE(parse_short_options(words, "fd:").wrong) << words.front();
  }
}

TEST(CompatSlot, IsANumberInItsRange) {
  EXPECT_EQ(parse_slot("0", 8), 0);
  EXPECT_EQ(parse_slot("7", 8), 7);
  for (const char* text : {"", "8", "-1", "+1", "1 ", "x", "99999999999999999999"}) {
    EXPECT_EQ(parse_slot(text, 8), std::nullopt) << text;
  }
}

TEST(CompatPrograms, AreFoundByNameOnly) {
  EXPECT_NE(find_compat_entry("clevis-luks-bind"), nullptr);
  for (const char* name : {"lukskeep", "", "clevis-", "clevis-encrypt-../x", "tang"}) {
    EXPECT_EQ(find_compat_entry(name), nullptr) << name;
  }
}

nbde::SealedPin tang(std::string url) { return {.pin = "tang", .url = std::move(url)}; }

TEST(ClevisConfig, ShowsEveryShare) {
  const nbde::SealedPin inner{.pin = "sss", .threshold = 1, .shares = {tang("http://b")}};
  nbde::SealedPin tpm{.pin = "tpm2"};
  tpm.tpm2.pcr_bank = "sha256";
  tpm.tpm2.pcrs = {0, 7};
  nbde::SealedPin root{.pin = "sss", .threshold = 2, .shares = {inner, tpm, tang("http://a")}};
  EXPECT_EQ(
      clevis_config(root).config,
      R"({"t":2,"pins":{"tang":[{"url":"http://a"}],"tpm2":[{"hash":"sha256","key":"ecc",)"
      R"("pcr_bank":"sha256","pcr_ids":"0,7"}],"sss":{"t":1,"pins":{"tang":[{"url":"http://b"}]}}}})");
  root.shares.push_back(inner);
  EXPECT_THAT(clevis_config(root).config, testing::HasSubstr(R"("sss":[{"t":1)"));
}

// A header can name any URL; scripts cut at quotes, and terminals obey control characters.
TEST(ClevisConfig, KeepsInsideItsQuotes) {
  const std::string config = clevis_config(tang("http://a'\n\"\x1b[2J")).config;
  EXPECT_EQ(config, R"({"url":"http://a\u0027\n\"\u001b[2J"})");
}

TEST(ClevisPolicy, WantsOneShareWhereItDoesNotSay) {
  const auto policy = parse_clevis_config("sss", R"({"pins":{"sss":{"pins":{"null":{}}}}})");
  EXPECT_EQ(std::get<nbde::SssPin>(policy.pin).threshold, 1U);
}

}  // namespace
}  // namespace lukskeep::cli
