#include "keys/passphrase_resolver.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "keys/secret_text.h"

namespace lukskeep::keys {
namespace {

using ::testing::ElementsAreArray;

Secret secret_of(SecretType type, std::string_view bytes) {
  Secret secret{.info = {.id = "i", .name = "n", .type = type},
                .payload = SecretBytes(as_byte_view(bytes))};
  return secret;
}

std::vector<std::string> texts(const std::vector<Candidate>& candidates) {
  std::vector<std::string> all;
  for (const Candidate& candidate : candidates) {
    all.push_back(std::string(encoding_name(candidate.encoding)) + ":" +
                  std::string(as_string_view(candidate.passphrase.span())));
  }
  return all;
}

TEST(SecretText, WritesAndReads) {
  EXPECT_EQ(as_string_view(secret_hex(as_byte_view("\x01\xfe")).span()), "01fe");
  const std::pair<const char*, const char*> vectors[] = {
      {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, text] : vectors) {  // RFC 4648 section 10
    EXPECT_EQ(as_string_view(secret_base64(as_byte_view(plain)).span()), text);
    EXPECT_EQ(as_string_view(from_secret_base64(text)->span()), plain);
  }
  for (const char* bad : {"", "Zg=", "Zg", "Zh==", "Zm9v\n", " Zm9",
                          "Zm9v====", "====", "Z===", "Zm9-", "Zm9vZg=a"}) {
    EXPECT_FALSE(from_secret_base64(bad).has_value()) << bad;
  }
  EXPECT_EQ(as_string_view(from_secret_hex("41fE")->span()), "A\xfe");
  for (const char* bad : {"", "4", "4g", "0x41"}) EXPECT_FALSE(from_secret_hex(bad)) << bad;
  SecretText text;
  text.add("{").add_json("a\"\\\n\x01\xc3\xa4").add("}");
  EXPECT_EQ(as_string_view(text.view()), "{\"a\\\"\\\\\\u000a\\u0001\xc3\xa4\"}");
  for (int i = 0; i < 1000; ++i) text.add("0123456789");
  EXPECT_EQ(text.take().size(), 10'000U + 23U);
}

TEST(PassphraseResolver, OrderOfPlausibility) {
  struct Row {
    SecretType type;
    std::string bytes;
    std::vector<std::string> candidates;
  };
  const Row rows[] = {
      // Cinder and os-brick: 32 bytes as 64 digits.
      {SecretType::kSymmetric,
       std::string("\x00\xff", 2),
       {"hex:00ff", std::string("plain:\x00\xff", 8), "base64:AP8="}},
      // Nova's ephemeral disks, vaultlocker: the text itself.
      {SecretType::kPassphrase,
       "AP8=",
       {"plain:AP8=", "hex:4150383d", std::string("from-base64:\x00\xff", 14)}},
      {SecretType::kPassphrase,
       "secret\n",
       {"plain:secret\n", "no-newline:secret", "hex:7365637265740a"}},
      {SecretType::kPassphrase,
       "dead",
       {"plain:dead", "hex:64656164", "from-base64:u\xe6\x9d", "from-hex:\xde\xad"}},
      {SecretType::kOpaque, "x\r\n", {"plain:x\r\n", "no-newline:x", "hex:780d0a", "base64:eA0K"}},
      {SecretType::kPrivate, "\n", {"plain:\n", "hex:0a", "base64:Cg=="}},
  };
  for (const Row& row : rows) {
    EXPECT_THAT(texts(passphrase_candidates(secret_of(row.type, row.bytes), {})),
                ElementsAreArray(row.candidates));
  }
}

TEST(PassphraseResolver, MetadataComesFirstAndNothingTwice) {
  const Metadata says{{std::string(kEncodingMetadata), "base64"}};
  EXPECT_THAT(texts(passphrase_candidates(secret_of(SecretType::kSymmetric, "\xff"), says)),
              ElementsAreArray({"base64:/w==", "hex:ff", "plain:\xff"}));
  for (const char* bad : {"rot13", "", "from-hex"}) {
    const Metadata wrong{{std::string(kEncodingMetadata), bad}};
    EXPECT_THROW(passphrase_candidates(secret_of(SecretType::kOpaque, "xyz"), wrong), Error);
    EXPECT_THROW(certain_passphrase(secret_of(SecretType::kPassphrase, "xyz"), wrong), Error);
  }
}

TEST(PassphraseResolver, IsCertainOrRefuses) {
  const auto certain = [](SecretType type, const Metadata& metadata) {
    const Candidate one = certain_passphrase(secret_of(type, "\x01"), metadata);
    return std::string(as_string_view(one.passphrase.span()));
  };
  EXPECT_EQ(certain(SecretType::kSymmetric, {}), "01");
  EXPECT_EQ(certain(SecretType::kPassphrase, {}), "\x01");
  EXPECT_EQ(certain(SecretType::kOpaque, {{std::string(kEncodingMetadata), "hex"}}), "01");
  for (const SecretType type :
       {SecretType::kOpaque, SecretType::kPublic, SecretType::kPrivate, SecretType::kCertificate}) {
    EXPECT_THROW(certain(type, {}), Error);
  }
}

TEST(KeyManagerText, ConsumersTypesTimes) {
  EXPECT_EQ(to_string(parse_consumer("image/image/a/b")), "image/image/a/b");
  for (const char* bad : {"", "a", "a/b", "a/b/", "/b/c", "a//c", "a/b/\xff"}) {
    EXPECT_THROW(parse_consumer(bad), Error) << bad;
  }
  for (const char* name :
       {"symmetric", "passphrase", "opaque", "public", "private", "certificate"}) {
    EXPECT_EQ(secret_type_name(parse_secret_type(name)), name);
  }
  EXPECT_THROW(parse_secret_type("Symmetric"), Error);
  EXPECT_EQ(parse_time("2026-11-20T23:59:29.360530"), parse_time("2026-11-20T23:59:29Z"));
  EXPECT_EQ(time_text(*parse_time("2024-02-29 00:00:00")), "2024-02-29T00:00:00Z");
  EXPECT_EQ(parse_time("1970-01-01T00:00:01Z"), 1);
  for (const char* bad : {"", "2026", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z",
                          "2026-01-01T00:00:00+01", "-026-01-01T00:00:00", "2026-01-01T00:-1:00"}) {
    EXPECT_FALSE(parse_time(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace lukskeep::keys
