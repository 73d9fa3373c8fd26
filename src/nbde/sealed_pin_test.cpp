#include "nbde/sealed_pin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/base64url.h"
#include "base/limits.h"
#include "crypto/random.h"
#include "nbde/seal.h"
#include "nbde/shamir.h"
#include "nbde/test_servers.h"

namespace lukskeep::nbde {
namespace {

using ::testing::HasSubstr;

std::string jwe_of(const std::string& header) {
  return to_base64url(as_byte_view(header)) + "..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA";
}

std::string problem_with(const std::string& compact) {
  try {
    describe(parse_compact_jwe(compact, "it"), "it");
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == Code::kDamaged || error.code() == Code::kUnsupported ||
                error.code() == Code::kInvalidArgument)
        << error.message();
    return error.message();
  }
  return "nothing";
}

TEST(Jwe, RefusesTextsThatAreNone) {
  const std::string iv = ".AAAAAAAAAAAAAAAA";
  const std::string tag = ".AAAAAAAAAAAAAAAAAAAAAA";
  struct Row {
    std::string text, problem;
  };
  const std::vector<Row> rows = {
      {"", "five parts"},
      {"e30", "five parts"},
      {"e30." + iv + ".AAAA" + tag + ".", "five parts"},
      {"." + iv + ".AAAA" + tag, "no header"},
      {"e30.AAAA" + iv + ".AAAA" + tag, "wrapped key"},
      {"e30..AAAA.AAAA" + tag, "IV of the wrong size"},
      {"e30." + iv + ".AAAA.AAAA", "tag of the wrong size"},
      {"e30." + iv + ".A+A=" + tag, "base64url"},
      {"e30." + iv + ".A" + tag, "base64url"},
      {"e\n30." + iv + ".AAAA" + tag, "base64url"},
      {std::string(limits::kJweHeaderBytesMax + 1, 'A') + "." + iv + ".AAAA" + tag, "too large"}};
  for (const Row& row : rows) {
    EXPECT_THAT(problem_with(row.text), HasSubstr(row.problem)) << row.text.substr(0, 80);
  }
}

TEST(Jwe, RefusesHeadersByName) {
  struct Row {
    std::string header, problem;
  };
  const std::string rest = R"(,"enc":"A256GCM","clevis":{"pin":"null","null":{}}})";
  const std::vector<Row> rows = {
      {"", "no header"},
      {"[]", "not an object"},
      {"{}", "names no 'alg'"},
      {R"({"alg":5})", "names no 'alg'"},
      {R"({"alg":"dir","alg":"dir")" + rest, "alg"},
      {R"({"alg":"PBES2-HS256+A128KW","p2c":2000000000)" + rest, "'PBES2-HS256"},
      {R"({"alg":"RSA-OAEP")" + rest, "'RSA-OAEP'"},
      {R"({"alg":"ECDH-ES+A128KW")" + rest, "'ECDH-ES"},
      {R"({"alg":"dir","zip":"DEF")" + rest, "'zip'"},
      {R"({"alg":"dir","crit":["exp"])" + rest, "'crit'"},
      {R"({"alg":"dir","apu":"AA")" + rest, "'apu'"},
      {R"({"alg":"dir","enc":"A128CBC-HS256"})", "'A128CBC-HS256'"},
      {R"({"alg":"dir","enc":"A256GCM"})", "no 'clevis'"},
      {R"({"alg":"dir","enc":"A256GCM","clevis":{}})", "'pin'"},
      {R"({"alg":"dir","enc":"A256GCM","clevis":{"pin":"null"}})", "does not say"},
      {R"({"alg":"ECDH-ES","enc":"A256GCM","clevis":{"pin":"null","null":{}}})", "not go with"},
      {R"({"alg":"dir","enc":"A256GCM","clevis":{"pin":"tang","tang":{}}})", "not go with"},
      {R"({"alg":"ECDH-ES","enc":"A256GCM","clevis":{"pin":"tang","tang":{}}})", "'url'"},
      {R"({"alg":"dir","enc":"A256GCM","clevis":{"pin":"tpm2","tpm2":{"pcr_ids":"99"}}})", "PCR"},
      {R"({"alg":"dir","enc":"A256GCM","clevis":{"pin":"sss","sss":{"t":1,"p":"Aw","jwe":[]}}})",
       "without its shares"},
      {R"({"alg":"dir","enc":"A256GCM","clevis":{"pin":"sss","sss":{"t":2,"p":"Aw","jwe":["a"]}}})",
       "threshold"},
      {R"({"alg":"dir","enc":"A256GCM","clevis":{"pin":"sss","sss":{"t":1,"p":"Aw","jwe":["a"]}}})",
       "too small"}};
  for (const Row& row : rows) {
    EXPECT_THAT(problem_with(jwe_of(row.header)), HasSubstr(row.problem)) << row.header;
  }
}

TEST(Jwe, AuthenticatesEveryPart) {
  const SecretBytes key = crypto::random_secret(kContentKeyBytes);
  const Jwe good = encrypt_jwe({{"alg", "dir"}}, key.span(), as_byte_view("x"));
  EXPECT_EQ(as_string_view(decrypt_jwe(good, key.span())->span()), "x");
  EXPECT_FALSE(decrypt_jwe(good, crypto::random_secret(kContentKeyBytes).span()));
  for (std::string Jwe::* part : {&Jwe::protected_header, &Jwe::iv, &Jwe::ciphertext, &Jwe::tag}) {
    Jwe bad = good;
    (bad.*part)[0] = (bad.*part)[0] == 'B' ? 'C' : 'B';
    EXPECT_FALSE(decrypt_jwe(bad, key.span()));
  }
  const Jwe empty = encrypt_jwe({{"alg", "dir"}}, key.span(), {});
  EXPECT_EQ(decrypt_jwe(empty, key.span())->size(), 0U);
}

TEST(Jwe, RefusesFlattenedFormsThatMeanMore) {
  const SecretBytes key = crypto::random_secret(kContentKeyBytes);
  const Json good = to_flattened(encrypt_jwe({{"alg", "dir"}}, key.span(), as_byte_view("x")));
  for (const char* name : {"header", "unprotected", "recipients", "aad"}) {
    Json bad = good;
    bad[name] = Json::object();
    EXPECT_THROW(parse_flattened_jwe(bad, "it"), Error) << name;
  }
  for (const char* name : {"protected", "iv", "ciphertext", "tag"}) {
    Json bad = good;
    bad[name] = 5;
    EXPECT_THROW(parse_flattened_jwe(bad, "it"), Error) << name;
    bad.erase(name);
    EXPECT_THROW(parse_flattened_jwe(bad, "it"), Error) << name;
  }
}

// An sss of pins 'null', of which `change` spoils one.
Jwe sss_with(const std::function<void(Json& shares)>& change) {
  SharedSecret shared = SharedSecret::make(2);
  Json shares = Json::array();
  for (int i = 0; i < 3; ++i) {
    shares.push_back(to_compact(seal({NullPin{}}, shared.new_share().span(), {})));
  }
  change(shares);
  const Json header = {
      {"alg", "dir"},
      {"enc", "A256GCM"},
      {"clevis",
       {{"pin", "sss"},
        {"sss", {{"t", 2}, {"p", to_base64url(shared.prime())}, {"jwe", shares}}}}}};
  return encrypt_jwe(header, shared.key().span(), as_byte_view("x"));
}

TEST(SealedPin, AShareThatIsNotSoundSpoilsOnlyItself) {
  const std::vector<std::pair<std::string, std::function<void(Json&)>>> rows = {
      {"no JWE", [](Json& s) { s[0] = "nonsense"; }},
      {"an unknown pin",
       [](Json& s) {
         s[0] = jwe_of(R"({"alg":"dir","enc":"A256GCM","clevis":{"pin":"yubikey","yubikey":{}}})");
       }},
      {"an unknown algorithm",
       [](Json& s) { s[0] = jwe_of(R"({"alg":"RSA-OAEP","clevis":{"pin":"x"}})"); }},
      {"twice the same", [](Json& s) { s[1] = s[0]; }},
      {"a short share",
       [](Json& s) { s[0] = to_compact(seal({NullPin{}}, as_byte_view("short"), {})); }}};
  for (const auto& [name, change] : rows) {
    const SecretBytes plain = unseal(sss_with(change), {});
    EXPECT_EQ(as_string_view(plain.span()), "x") << name;
  }
}

TEST(SealedPin, CountsAllPinsOfTheTree) {
  const Jwe jwe = sss_with([](Json& shares) {
    while (shares.size() < limits::kPinsMax) shares.push_back(shares[0]);
  });
  EXPECT_THAT(problem_with(to_compact(jwe)), HasSubstr("more than 64 pins"));
}

TEST(SealedPin, NestsNoDeeperThanItMay) {
  PinPolicy policy{NullPin{}};
  for (std::size_t i = 0; i < limits::kPinDepthMax; ++i) {
    policy = {SssPin{.threshold = 1, .pins = {policy}}};
  }
  const Jwe jwe = seal(policy, as_byte_view("x"), {});
  EXPECT_EQ(as_string_view(unseal(jwe, {}).span()), "x");
  EXPECT_THROW(seal({SssPin{.threshold = 1, .pins = {policy}}}, as_byte_view("x"), {}), Error);
}

TEST(SealedPin, TellsWhatItIsSealedTo) {
  testing::TestServer server;
  const PinPolicy policy{
      SssPin{.threshold = 1,
             .pins = {{TangPin{.url = "http://a", .advertisement = server.advertisement()}},
                      {NullPin{}}}}};
  const SealedPin pin = describe(seal(policy, as_byte_view("x"), {}), "it");
  const OrderedJson json = to_json(pin);
  EXPECT_EQ(json.at("threshold"), 1);
  const OrderedJson& tang = json.at("shares").at(0);
  EXPECT_EQ(tang.at("url"), "http://a");
  EXPECT_EQ(tang.at("state"), "saved");
  EXPECT_EQ(tang.at("signing_keys").at(0).at("thumbprint"), server.thumbprint());
  EXPECT_EQ(tang.at("kid"), thumbprint(server.exchange.point));
  const PinPolicy again = policy_of(pin);
  const auto& sss = std::get<SssPin>(again.pin);
  EXPECT_EQ(std::get<TangPin>(sss.pins[0].pin).thumbprint, server.thumbprint());
}

}  // namespace
}  // namespace lukskeep::nbde
