#include "nbde/jws.h"

#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "nbde/advertisement.h"
#include "nbde/test_keys.h"

namespace lukskeep::nbde {
namespace {

EcKey key_of(std::string_view text) { return parse_ec_key(as_byte_view(text), "key"); }

// RFC 7515 A.3 and A.4, in the flattened form.
const struct {
  std::string_view key;
  std::string message;
} kVectors[] = {
    {kEs256Key,
     R"({"payload":"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",)"
     R"("protected":"eyJhbGciOiJFUzI1NiJ9","signature":)"
     R"("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"})"},
    {kEs512Key,
     R"({"payload":"UGF5bG9hZA","protected":"eyJhbGciOiJFUzUxMiJ9","signature":)"
     R"("AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"})"}};

TEST(Jws, VerifiesThePublishedSignatures) {
  for (const auto& row : kVectors) {
    const EcKey key = key_of(row.key);
    EXPECT_TRUE(verify_jws(parse_jws(row.message, "message"), key));
    std::string changed = row.message;
    changed.replace(changed.find(R"("payload":")") + 12, 1, "z");
    EXPECT_FALSE(verify_jws(parse_jws(changed, "message"), key));
    // By a key of another curve, and by another key of the same.
    EXPECT_FALSE(
        verify_jws(parse_jws(row.message, "message"), generate_signing_key(key.point.curve())));
  }
  EXPECT_FALSE(verify_jws(parse_jws(kVectors[0].message, "message"), key_of(kEs512Key)));
}

TEST(Jws, SignsInTheFormThatTheNumberOfKeysAsksFor) {
  for (const Curve curve : {Curve::kP256, Curve::kP384, Curve::kP521}) {
    const EcKey key = generate_signing_key(curve);
    const EcKey other = generate_signing_key();
    const EcKey* const one[] = {&key};
    const EcKey* const two[] = {&key, &other};
    const std::string flat = sign_jws(as_byte_view("hello"), one, "text");
    EXPECT_TRUE(Json::parse(flat).contains("signature"));
    EXPECT_TRUE(verify_jws_by_all(parse_jws(flat, "m"), one));
    EXPECT_FALSE(verify_jws_by_all(parse_jws(flat, "m"), two));
    const std::string general = sign_jws(as_byte_view("hello"), two, "text");
    EXPECT_EQ(Json::parse(general)["signatures"].size(), 2U);
    EXPECT_TRUE(verify_jws_by_all(parse_jws(general, "m"), two));
    EXPECT_EQ(as_string_view(parse_jws(general, "m").payload), "hello");
  }
  EXPECT_FALSE(verify_jws_by_all(parse_jws(kVectors[0].message, "m"), {}));
}

TEST(Jws, KeysThatMayNotVerifyDoNot) {
  EcKey key = key_of(kEs256Key);
  const Jws jws = parse_jws(kVectors[0].message, "m");
  key.use.operations = {{"deriveKey"}};
  EXPECT_FALSE(verify_jws(jws, key));
  key.use.operations = {{"verify"}};
  EXPECT_TRUE(verify_jws(jws, key));
  key.use.algorithm = "ECMR";
  EXPECT_FALSE(verify_jws(jws, key));
}

TEST(Jws, KeysThatCannotSignDoNot) {
  EcKey key = generate_exchange_key();
  const EcKey* const list[] = {&key};
  EXPECT_THROW(static_cast<void>(sign_jws(as_byte_view("x"), list, "")), Error);
  key = generate_signing_key();
  key.secret.reset();
  EXPECT_THROW(static_cast<void>(sign_jws(as_byte_view("x"), list, "")), Error);
  EXPECT_THROW(static_cast<void>(sign_jws(as_byte_view("x"), {}, "")), Error);
}

TEST(Jws, HostileMessagesAreRefused) {
  const std::string signature = R"({"protected":"eyJhbGciOiJFUzI1NiJ9","signature":"AAAA"})";
  std::string many = R"({"payload":"AAAA","signatures":[)" + signature;
  for (int i = 0; i < 32; ++i) many += "," + signature;
  many += "]}";
  const std::string critical = to_base64url(as_byte_view(R"({"alg":"ES256","crit":["b64"]})"));
  const struct {
    const char* name;
    std::string text;
    Code code;
  } rows[] = {
      {"empty", "", Code::kDamaged},
      {"a list", "[]", Code::kDamaged},
      {"no payload", signature, Code::kDamaged},
      {"payload is a number", R"({"payload":1,"protected":"","signature":""})", Code::kDamaged},
      {"no signature", R"({"payload":"AAAA"})", Code::kDamaged},
      {"empty list", R"({"payload":"AAAA","signatures":[]})", Code::kDamaged},
      {"no list", R"({"payload":"AAAA","signatures":{}})", Code::kDamaged},
      {"a number in the list", R"({"payload":"AAAA","signatures":[1]})", Code::kDamaged},
      {"both forms", R"({"payload":"AAAA","signature":"AAAA","signatures":[)" + signature + "]}",
       Code::kDamaged},
      {"too many", many, Code::kDamaged},
      {"header is no JSON", R"({"payload":"AAAA","protected":"AAAA","signature":"AAAA"})",
       Code::kDamaged},
      {"header is empty", R"({"payload":"AAAA","protected":"","signature":"AAAA"})",
       Code::kDamaged},
      {"critical", R"({"payload":"AAAA","protected":")" + critical + R"(","signature":"AAAA"})",
       Code::kUnsupported},
      {"too large", R"({"payload":")" + std::string(300'000, 'A') + "\"}", Code::kDamaged},
      {"padding", R"({"payload":"AA==","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"AAAA"})",
       Code::kDamaged},
  };
  for (const auto& row : rows) {
    try {
      static_cast<void>(parse_jws(row.text, "message"));
      ADD_FAILURE() << row.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), row.code) << row.name << ": " << error.message();
      EXPECT_TRUE(error.message().starts_with("message")) << error.message();
    }
  }
}

TEST(Jws, AlgorithmsOfHeadersAreNotTrusted) {
  const EcKey key = key_of(kEs256Key);
  for (const char* header : {R"({"alg":"none"})", R"({"alg":"HS256"})", R"({"alg":["ES256"]})",
                             "{}", R"({"alg":"ES512"})"}) {
    Json message = Json::parse(kVectors[0].message);
    message["protected"] = to_base64url(as_byte_view(header));
    EXPECT_FALSE(verify_jws(parse_jws(message.dump(), "m"), key)) << header;
    message["signature"] = "";
    EXPECT_FALSE(verify_jws(parse_jws(message.dump(), "m"), key)) << header;
  }
}

// ---- advertisements

struct Server {
  EcKey sign = generate_signing_key();
  EcKey old = generate_signing_key(Curve::kP256);
  EcKey exchange = generate_exchange_key();

  std::string advertisement() const {
    const EcKey* const keys[] = {&sign, &exchange};
    return make_advertisement(keys);
  }
};

TEST(Advertisement, IsReadAsItWasMade) {
  const Server server;
  const Advertisement read = parse_advertisement(server.advertisement(), "adv");
  ASSERT_EQ(read.keys.size(), 2U);
  EXPECT_EQ(read.signing_keys().at(0)->point, server.sign.point);
  EXPECT_EQ(read.exchange_keys().at(0)->point, server.exchange.point);
  EXPECT_FALSE(read.keys[0].secret);
  EXPECT_EQ(read.key_set.dump().find("\"d\""), std::string::npos);
  EXPECT_FALSE(is_signed_by(read, server.old));
  EXPECT_EQ(find_key(read.keys, thumbprint(server.sign.point, ThumbprintHash::kS1)), &read.keys[0]);
  EXPECT_EQ(find_key(read.keys, thumbprint(server.old.point)), nullptr);
}

TEST(Advertisement, AnOldKeyVouchesForTheNew) {
  const Server server;
  const EcKey* const keys[] = {&server.sign, &server.exchange};
  const EcKey* const more[] = {&server.old};
  const Advertisement read = parse_advertisement(make_advertisement(keys, more), "adv");
  EXPECT_TRUE(is_signed_by(read, server.old));
  EXPECT_EQ(read.keys.size(), 2U);
}

TEST(Advertisement, WhatIsNotSignedByAllIsRefused) {
  const Server server;
  EcKey second = generate_signing_key();
  const Json set = {
      {"keys", {public_jwk(server.sign), public_jwk(second), public_jwk(server.exchange)}}};
  const EcKey* const one[] = {&server.sign};
  const std::string text = sign_jws(as_byte_view(set.dump()), one, "jwk-set+json");
  EXPECT_THROW(static_cast<void>(parse_advertisement(text, "adv")), Error);
  // The same signature twice does not count for two.
  Json doubled = Json::parse(text);
  const Json signature = {{"protected", doubled["protected"]}, {"signature", doubled["signature"]}};
  doubled.erase("protected");
  doubled.erase("signature");
  doubled["signatures"] = {signature, signature};
  EXPECT_THROW(static_cast<void>(parse_advertisement(doubled.dump(), "adv")), Error);
}

TEST(Advertisement, HostileKeySetsAreRefused) {
  const Server server;
  const EcKey* const signer[] = {&server.sign};
  const Json good = {public_jwk(server.sign), public_jwk(server.exchange)};
  Json crowd = good;
  for (int i = 0; i < 63; ++i) crowd.push_back(public_jwk(server.exchange));
  Json secret = good;
  secret[1]["d"] = to_base64url(server.exchange.secret.value().bytes().span());
  const struct {
    const char* name;
    Json set;
    const char* type;
  } rows[] = {
      {"no keys", {{"keys", Json::array()}}, "jwk-set+json"},
      {"no member", Json::object(), "jwk-set+json"},
      {"a list", good, "jwk-set+json"},
      {"keys is an object", {{"keys", Json::object()}}, "jwk-set+json"},
      {"no exchange key", {{"keys", {public_jwk(server.sign)}}}, "jwk-set+json"},
      {"no signing key", {{"keys", {public_jwk(server.exchange)}}}, "jwk-set+json"},
      {"too many", {{"keys", crowd}}, "jwk-set+json"},
      {"a private key", {{"keys", secret}}, "jwk-set+json"},
      {"another type", {{"keys", good}}, "jwk+json"},
      {"no type", {{"keys", good}}, ""},
  };
  for (const auto& row : rows) {
    const std::string text = sign_jws(as_byte_view(row.set.dump()), signer, row.type);
    EXPECT_THROW(static_cast<void>(parse_advertisement(text, "adv")), Error) << row.name;
  }
  EXPECT_NO_THROW(static_cast<void>(parse_advertisement(
      sign_jws(as_byte_view(Json{{"keys", good}}.dump()), signer, "jwk-set+json"), "adv")));
}

}  // namespace
}  // namespace lukskeep::nbde
