#include "nbde/binding.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/json.h"
#include "luks/luks1_gap.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"
#include "nbde/binding_marks.h"
#include "nbde/binding_test_tools.h"

namespace lukskeep::nbde {
namespace {

using luks::HeaderFile;
using luks::Version;
using testing::null_jwe;

TEST(BindingPassphraseTest, Is40RandomBytesAsBase64Url) {
  std::set<std::string> seen;
  for (int i = 0; i < 64; ++i) {
    const SecretBytes passphrase = make_binding_passphrase();
    const std::string text(as_string_view(passphrase.span()));
    ASSERT_EQ(text.size(), 54U);
    EXPECT_EQ(text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                     "0123456789-_"),
              std::string::npos);
    // 40 bytes leave two bits of the last digit, but for four that are zero.
    EXPECT_NE(std::string("AQgw").find(text.back()), std::string::npos) << text;
    EXPECT_TRUE(seen.insert(text).second);
  }
}

TEST(BindingTokenTest, IsWhatClevisWrites) {
  const Jwe jwe = null_jwe("secret");
  const luks::Token token = make_binding_token(jwe, 3);
  const Json json = parse_json(token.json, "token");
  EXPECT_EQ(json["type"], "clevis");
  EXPECT_EQ(json["keyslots"], Json::array({"3"}));
  EXPECT_EQ(json.size(), 3U);
  EXPECT_EQ(json["jwe"], to_flattened(jwe));
  EXPECT_EQ(make_binding_token(jwe, 3, 1).keyslots, std::set<int>{3});
}

HeaderFile with_tokens(const std::vector<std::string>& tokens) {
  HeaderFile file = luks::testing::make_volume(luks::testing::cheap_options(Version::kLuks2));
  luks::Header header = file.header();
  int id = 0;
  for (const std::string& token : tokens) {
    header.tokens[id++] = luks::parse_token(token, "token");
  }
  file.commit({.header = std::move(header), .new_areas = {}, .obsolete = {}});
  return file;
}

TEST(BindingListTest, ToleratesTokensOfStrangers) {
  const Jwe jwe = null_jwe("secret");
  const std::string good = to_flattened(jwe).dump();
  const auto clevis = [&](const std::string& keyslots, const std::string& rest) {
    return R"({"type":"clevis","keyslots":[)" + keyslots + "]" + rest + "}";
  };
  const HeaderFile file = with_tokens({
      R"({"type":"other","keyslots":["0"],"jwe":{}})",
      clevis(R"("0")", R"(,"jwe":)" + good),
      clevis("", R"(,"jwe":)" + good),
      clevis(R"("0")", ""),
      clevis(R"("0")", R"(,"jwe":"text")"),
      clevis(R"("0")", R"(,"jwe":{"protected":1})"),
      clevis(R"("0")", R"(,"lukskeep-replaces":7,"lukskeep-replaces-print":65535,"jwe":)" + good),
      clevis(R"("0")", R"(,"lukskeep-replaces":99999999999,"jwe":)" + good),
      clevis(R"("0")", R"(,"lukskeep-replaces":"1","jwe":)" + good),
      clevis(R"("0")", R"(,"lukskeep-replaces":1,"lukskeep-replaces-print":65536,"jwe":)" + good),
  });
  const std::vector<Binding> bindings = list_bindings(file);
  ASSERT_EQ(bindings.size(), 9U);
  EXPECT_EQ(bindings[0].token, 1);
  EXPECT_EQ(bindings[0].keyslot, 0);
  EXPECT_EQ(bindings[0].jwe, jwe);
  EXPECT_FALSE(bindings[0].orphan);
  EXPECT_TRUE(bindings[1].orphan);
  EXPECT_EQ(bindings[1].keyslot, -1);
  for (const std::size_t damaged : {2U, 3U, 4U}) {
    EXPECT_FALSE(bindings[damaged].jwe) << damaged;
    EXPECT_NE(bindings[damaged].problem, "") << damaged;
  }
  EXPECT_EQ(bindings[5].replaces, 7);
  EXPECT_EQ(bindings[5].replaces_print, 65535);
  EXPECT_FALSE(bindings[6].replaces);
  EXPECT_FALSE(bindings[7].replaces);
  EXPECT_EQ(bindings[8].replaces, 1);
  EXPECT_EQ(bindings[8].replaces_print, 0);
  EXPECT_EQ(find_binding(file, 0).token, 1);
  EXPECT_THROW(static_cast<void>(find_binding(file, 1)), Error);
}

TEST(BindingListTest, ReadsLuksmetaRecords) {
  const HeaderFile file = luks::testing::make_volume(luks::testing::cheap_options(Version::kLuks1));
  EXPECT_TRUE(list_bindings(file).empty());
  const std::string text = to_compact(null_jwe("secret"));
  auto gap = luks::Luks1Gap::open(file);
  const auto save = [&](int slot, std::string_view data, luks::LuksmetaType type,
                        std::uint32_t reserved) {
    gap->save({.slot = slot, .type = type, .data = as_byte_view(data), .reserved = reserved});
  };
  save(0, text, kBindingRecordType, make_mark(kLeftoverMark, 4, {}));
  save(1, text, kBindingRecordType, make_mark(kReplacesMark, 0, {.own = 1, .replaced = 0xabcd}));
  save(2, "no JWE", kBindingRecordType, 0x12345678);
  save(3, text, luks::LuksmetaType{std::byte{1}}, 0);
  const std::vector<Binding> bindings = list_bindings(file);
  ASSERT_EQ(bindings.size(), 3U);
  EXPECT_FALSE(bindings[0].orphan);
  EXPECT_FALSE(bindings[0].token);
  EXPECT_EQ(bindings[0].leftover, 4);
  EXPECT_TRUE(bindings[1].orphan);
  EXPECT_EQ(bindings[1].replaces, 0);
  EXPECT_EQ(bindings[1].replaces_print, 0xabcd);
  EXPECT_FALSE(bindings[2].jwe);
  EXPECT_FALSE(bindings[2].replaces);
}

TEST(BindingKeyslotTest, HasTheHashOfTheHeader) {
  luks::CreateOptions options = luks::testing::cheap_options(Version::kLuks1);
  options.hash = "sha512";
  const luks::NewHeader fresh = luks::make_header(options);
  luks::NewKeyslot first = luks::testing::cheap_keyslot();
  first.cost.hash = "sha512";
  const HeaderFile file = luks::create_volume(luks::testing::blank_device(fresh.header), fresh,
                                              as_byte_view("passphrase"), first);
  const luks::NewKeyslot keyslot = binding_keyslot(file.header());
  EXPECT_EQ(keyslot.cost.hash, "sha512");
  EXPECT_EQ(keyslot.cost.iterations, 1000U);
}

}  // namespace
}  // namespace lukskeep::nbde
