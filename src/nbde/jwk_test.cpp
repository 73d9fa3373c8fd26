#include "nbde/jwk.h"

#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "nbde/jwk_text.h"
#include "nbde/test_keys.h"

namespace lukskeep::nbde {
namespace {

// RFC 9449 section 6.1; the S256 thumbprint is given there, the others are those of jose.
constexpr std::string_view kThumbprintKey =
    R"({"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",)"
    R"("y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"})";

EcKey key_of(std::string_view text) { return parse_ec_key(as_byte_view(text), "key"); }

std::string replaced(std::string_view text, std::string_view what, std::string_view by) {
  std::string result(text);
  const std::size_t at = result.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return result.replace(at, what.size(), by);
}

struct Refused {
  Code code = Code::kInternal;
  std::string message;
};

Refused refused(std::string_view text) {
  try {
    static_cast<void>(key_of(text));
  } catch (const Error& error) {
    return {error.code(), error.message()};
  }
  ADD_FAILURE() << "was accepted: " << text;
  return {};
}

TEST(Jwk, ThumbprintsOfAllHashes) {
  const EcPoint point = key_of(kThumbprintKey).point;
  const struct {
    ThumbprintHash hash;
    std::string text;
  } rows[] = {
      {ThumbprintHash::kS256, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},
      {ThumbprintHash::kS1, "zVH3NnluNMQushnaKFsoIE5dmrY"},
      {ThumbprintHash::kS224, "vOwmTJ84NV1_BoxDdQ0C-Nh1sblZgbTVQUctcA"},
      {ThumbprintHash::kS384, "WDimF4dzU2hWyX_J5Esolvqs9PG3zBAtfK_6l6nsFpaKputqYEqk1WJowN7hunEt"},
      {ThumbprintHash::kS512,
       "wIkJIb028vwclXrKjBTE41OiLeorH78DjYPE623MEjusHrnx7inuQeuPMXjVIWH3kbRzh559ciX-DUWcZ1mtyA"},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(thumbprint(point, row.hash), row.text);
    EXPECT_TRUE(has_thumbprint(point, row.text));
    EXPECT_FALSE(has_thumbprint(point, row.text.substr(1)));
  }
  EXPECT_FALSE(has_thumbprint(point, ""));
  EXPECT_FALSE(has_thumbprint(point, std::string(43, 'A')));
}

TEST(Jwk, PrivateKeysSurviveBothWays) {
  for (const std::string_view text : {kEs256Key, kEs512Key}) {
    const EcKey key = key_of(text);
    ASSERT_TRUE(key.secret);
    const SecretBytes again = private_jwk_text(key);
    EXPECT_EQ(Json::parse(as_string_view(again.span())), Json::parse(text));
    const EcKey same = parse_ec_key(again.span(), "again");
    EXPECT_EQ(same.point, key.point);
    EXPECT_FALSE(public_jwk(key).contains("d"));
  }
}

TEST(Jwk, TextIsSortedAndCompactAsJoseWritesIt) {
  const EcKey key = generate_signing_key();
  const SecretBytes text = private_jwk_text(key);
  const std::string_view view = as_string_view(text.span());
  EXPECT_TRUE(view.starts_with(R"({"alg":"ES512","crv":"P-521","d":")"));
  EXPECT_NE(view.find(R"(","key_ops":["sign","verify"],"kty":"EC","x":")"), std::string::npos);
}

TEST(Jwk, PublicPartLosesPrivateOperationsAndForeignSecretsOnly) {
  const EcKey key = key_of(replaced(
      kEs256Key, "}",
      R"(,"kid":"me","k":"x","p":"y","key_ops":["sign","verify","deriveKey","decrypt","unwrapKey"]})"));
  const Json jwk = public_jwk(key);
  EXPECT_EQ(jwk["key_ops"], Json({"verify", "deriveKey"}));
  EXPECT_EQ(jwk["kid"], "me");
  for (const char* name : {"d", "k", "p"}) EXPECT_FALSE(jwk.contains(name)) << name;
}

TEST(Jwk, GeneratedKeysSayWhatTheyAreFor) {
  EXPECT_TRUE(generate_signing_key(Curve::kP256).use.allows("sign", true));
  EXPECT_EQ(generate_signing_key(Curve::kP384).use.algorithm, "ES384");
  const EcKey exchange = generate_exchange_key();
  EXPECT_TRUE(exchange.use.allows("deriveKey", true));
  EXPECT_FALSE(exchange.use.allows("verify", true));
  EXPECT_EQ(exchange.use.algorithm, "ECMR");
}

TEST(KeyUse, AllowsWhatJoseAllows) {
  const struct {
    std::string use;
    std::optional<std::vector<std::string>> operations;
    std::string operation;
    bool if_it_must_say;
    bool otherwise;
  } rows[] = {
      {"", {}, "deriveKey", false, true},
      {"", {{"deriveKey"}}, "deriveKey", true, true},
      {"", {{}}, "deriveKey", false, false},
      {"enc", {}, "deriveKey", false, false},
      {"enc", {}, "wrapKey", true, true},
      {"sig", {}, "sign", true, true},
      {"sig", {}, "encrypt", false, false},
      {"sig", {{"deriveKey"}}, "deriveKey", true, true},
      {"enc", {{"verify"}}, "verify", true, true},
      {"other", {}, "verify", false, false},
  };
  for (const auto& row : rows) {
    const KeyUse use{.algorithm = {}, .use = row.use, .operations = row.operations};
    EXPECT_EQ(use.allows(row.operation, true), row.if_it_must_say) << row.use << row.operation;
    EXPECT_EQ(use.allows(row.operation, false), row.otherwise) << row.use << row.operation;
  }
}

TEST(Jwk, HostileKeysAreRefused) {
  const std::string x = R"("x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")";
  const struct {
    const char* name;
    std::string text;
    Code code;
  } rows[] = {
      {"no object", "[]", Code::kDamaged},
      {"no JSON", R"({"kty":"EC")", Code::kDamaged},
      {"empty", "", Code::kDamaged},
      {"member twice", replaced(kEs256Key, R"("crv")", R"("kty":"EC","crv")"), Code::kDamaged},
      {"secret twice", replaced(kEs256Key, "}", R"(,"d":"AA"})"), Code::kDamaged},
      {"no type", replaced(kEs256Key, R"("kty":"EC",)", ""), Code::kDamaged},
      {"another type", replaced(kEs256Key, "EC", "RSA"), Code::kUnsupported},
      {"type is a number", replaced(kEs256Key, R"("EC")", "1"), Code::kDamaged},
      {"another curve", replaced(kEs256Key, "P-256", "P-224"), Code::kUnsupported},
      {"curve of another size", replaced(kEs256Key, "P-256", "P-521"), Code::kDamaged},
      {"no x", replaced(kEs256Key, x + ",", ""), Code::kDamaged},
      {"x is an object", replaced(kEs256Key, x, R"("x":{})"), Code::kDamaged},
      {"x too short", replaced(kEs256Key, x, R"("x":"f83O")"), Code::kDamaged},
      {"x with padding", replaced(kEs256Key, R"(VEU")", R"(VEU=")"), Code::kDamaged},
      {"x not canonical", replaced(kEs256Key, R"(RVEU")", R"(RVEV")"), Code::kDamaged},
      {"off the curve", replaced(kEs256Key, "f83O", "f83P"), Code::kDamaged},
      {"secret of another key", replaced(kEs256Key, R"("jpsQ)", R"("jpsR)"), Code::kDamaged},
      {"secret is no base64url", replaced(kEs256Key, R"("jpsQ)", R"("jps+)"), Code::kDamaged},
      {"secret is a number",
       replaced(kEs256Key, R"("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI")", "1"),
       Code::kDamaged},
      {"secret is empty", replaced(kEs256Key, "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI", ""),
       Code::kDamaged},
      {"secret spelt otherwise", replaced(kEs256Key, R"("d")", R"("\u0064")"), Code::kDamaged},
      {"operations are a text", replaced(kEs256Key, "}", R"(,"key_ops":"sign"})"), Code::kDamaged},
      {"an operation is a number", replaced(kEs256Key, "}", R"(,"key_ops":[1]})"), Code::kDamaged},
      {"algorithm is null", replaced(kEs256Key, "}", R"(,"alg":null})"), Code::kDamaged},
      {"too large", std::string(70'000, ' ') + std::string(kEs256Key), Code::kDamaged},
      {"deep",
       replaced(kEs256Key, "}", ",\"a\":" + std::string(100, '[') + std::string(100, ']') + "}"),
       Code::kDamaged},
      {"octets", R"({"kty":"oct","k":"AAAA"})", Code::kUnsupported},
  };
  for (const auto& row : rows) {
    const Refused found = refused(row.text);
    EXPECT_EQ(found.code, row.code) << row.name << ": " << found.message;
    EXPECT_TRUE(found.message.starts_with("key")) << found.message;
    EXPECT_EQ(found.message.find("jpsQnnGQmL"), std::string::npos) << found.message;
  }
}

TEST(Jwk, PrivateKeysAreNoPublicOnes) {
  EXPECT_THROW(static_cast<void>(parse_public_key(Json::parse(kEs256Key), "key")), Error);
  EXPECT_NO_THROW(static_cast<void>(parse_public_key(public_jwk(key_of(kEs256Key)), "key")));
}

TEST(Jwk, CoordinatesOfRequestsMayBeShorterOrLonger) {
  // A point whose x starts with a zero byte, found by trying.
  EcKey key = generate_exchange_key(Curve::kP256);
  while (key.point.x()[0] != std::byte{0}) key = generate_exchange_key(Curve::kP256);
  Json jwk = public_jwk(key);
  Bytes longer(3);
  longer.insert(longer.end(), key.point.x().begin(), key.point.x().end());
  for (const std::string& x : {to_base64url(key.point.x().subspan(1)), to_base64url(longer)}) {
    jwk["x"] = x;
    EXPECT_THROW(static_cast<void>(parse_public_key(jwk, "key")), Error);
    EXPECT_EQ(parse_public_key(jwk, "key", Coordinates::kAnyLength).point, key.point);
  }
  jwk["x"] = "";
  EXPECT_THROW(static_cast<void>(parse_public_key(jwk, "key", Coordinates::kAnyLength)), Error);
}

TEST(Jwk, OctetKeys) {
  // RFC 7515 A.1.
  const std::string_view text =
      R"({"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"})";
  const OctKey key = parse_oct_key(as_byte_view(text), "key");
  EXPECT_EQ(key.bytes.size(), 64U);
  EXPECT_EQ(
      as_string_view(oct_jwk_text(key).span()),
      R"({"k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow","kty":"oct"})");
  for (const char* bad : {R"({"kty":"oct"})", R"({"kty":"oct","k":""})", R"({"kty":"oct","k":7})",
                          R"({"kty":"oct","k":"A"})", R"({"kty":"EC","k":"AAAA"})"}) {
    EXPECT_THROW(static_cast<void>(parse_oct_key(as_byte_view(bad), "key")), Error) << bad;
  }
}

TEST(JwkText, TheSecretNeverIsInTheRest) {
  const std::string_view text =
      R"( { "a" : {"d":"inner"}, "b":"\"d\":\"no\"", "d" : "SECRET" , "e":1})";
  const SplitJson split = split_secret(as_byte_view(text), "d");
  EXPECT_EQ(as_string_view(split.secret), "SECRET");
  EXPECT_EQ(split.rest, R"( { "a" : {"d":"inner"}, "b":"\"d\":\"no\"", "d" : "" , "e":1})");
}

TEST(JwkText, BrokenTextsEnd) {
  for (const char* text : {R"({"d":")", R"({"d")", R"({"d":)", "{\"", "\"", R"({"d":"\)",
                           R"(]]]]"d":"x")", R"({"d"   :   )"}) {
    const SplitJson split = split_secret(as_byte_view(text), "d");
    EXPECT_EQ(split.rest, text);
    EXPECT_TRUE(split.secret.empty());
  }
}

}  // namespace
}  // namespace lukskeep::nbde
