#include "nbde/recovery.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/base64url.h"
#include "base/json.h"
#include "base/limits.h"
#include "nbde/recovery_text.h"
#include "nbde/test_servers.h"

namespace lukskeep::nbde {
namespace {

using ::testing::HasSubstr;
using testing::Mood;
using testing::TestNetwork;
using testing::TestServer;

constexpr std::string_view kPassphrase = "what opens the keyslot";

std::optional<Error> error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

Bytes bytes_of(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 37 + size);
  return bytes;
}

RecoveryRequest small_request() {
  return {.uuid = "a-volume",
          .points = {{.url = "http://a",
                      .kid = thumbprint(EcPoint::of(EcScalar::random(Curve::kP521))),
                      .blinded = EcPoint::of(EcScalar::random(Curve::kP384))},
                     {.url = "http://b/tang",
                      .kid = "AAAAAAAAAAAAAAAAAAAAAAAAAAA",
                      .blinded = EcPoint::of(EcScalar::random(Curve::kP521))}}};
}

// ---- points ----------------------------------------------------------------------------------

TEST(CompressedPoint, IsReadBack) {
  for (const Curve curve : {Curve::kP256, Curve::kP384, Curve::kP521}) {
    for (int i = 0; i < 8; ++i) {
      const EcPoint point = EcPoint::of(EcScalar::random(curve));
      EXPECT_EQ(point.compressed().size(), compressed_bytes(curve));
      EXPECT_EQ(EcPoint::from_compressed(curve, point.compressed()), point);
    }
  }
}

TEST(CompressedPoint, IsRefusedIfThereIsNone) {
  Bytes bytes = EcPoint::of(EcScalar::random(Curve::kP256)).compressed();
  for (const std::byte form : {std::byte{0}, std::byte{4}, std::byte{6}}) {
    Bytes other = bytes;
    other[0] = form;
    EXPECT_THROW(EcPoint::from_compressed(Curve::kP256, other), Error);
  }
  EXPECT_THROW(EcPoint::from_compressed(Curve::kP384, bytes), Error);
  EXPECT_THROW(EcPoint::from_compressed(Curve::kP256, {}), Error);
  // Half of all x have no y: one of these does not.
  int refused = 0;
  for (unsigned i = 0; i < 32; ++i) {
    bytes[32] = static_cast<std::byte>(i);
    if (error_of([&] { EcPoint::from_compressed(Curve::kP256, bytes); })) ++refused;
  }
  EXPECT_GT(refused, 0);
}

// ---- text ------------------------------------------------------------------------------------

TEST(RecoveryText, IsReadBackInEveryForm) {
  for (std::size_t size = 1; size < 80; ++size) {
    const Bytes bytes = bytes_of(size);
    const std::string lines = to_spoken_lines(bytes, "TEST");
    EXPECT_EQ(parse_recovery_text(lines, "it"), bytes) << lines;
    EXPECT_EQ(parse_recovery_text(to_qr_text(bytes), "it"), bytes);
  }
}

TEST(RecoveryText, IsForgivingWhereNothingIsLost) {
  const Bytes bytes = bytes_of(40);
  std::string text = to_spoken_lines(bytes, "TEST");
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  EXPECT_EQ(parse_recovery_text(text, "it"), bytes);
  const std::string body = text.substr(text.find('\n') + 1);
  EXPECT_EQ(parse_recovery_text(body, "it"), bytes);
  std::string typed;
  for (const char c : body) typed += c == '0' ? "o" : c == '1' ? "l" : std::string(1, c);
  EXPECT_EQ(parse_recovery_text(typed, "it"), bytes);
  std::string dashed;
  for (const char c : body) dashed += c == ' ' ? "-" : c == '\n' ? "\r\n\n" : std::string(1, c);
  EXPECT_EQ(parse_recovery_text(dashed, "it"), bytes);
}

// Each character replaced by each other one, and each pair of neighbours exchanged.
TEST(RecoveryText, NoSlipOfTheTongueOrFingerPasses) {
  const std::string text = to_spoken_lines(bytes_of(30), "TEST");
  const std::size_t start = text.find('\n') + 5;
  constexpr std::string_view kOthers = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  int slips = 0;
  for (std::size_t i = start; text[i] != '\n'; ++i) {
    if (text[i] == ' ') continue;
    for (const char other : kOthers) {
      if (other == text[i]) continue;
      std::string wrong = text;
      wrong[i] = other;
      const auto error = error_of([&] { parse_recovery_text(wrong, "it"); });
      ASSERT_TRUE(error) << wrong;
      EXPECT_THAT(error->message(), HasSubstr("line 1"));
      ++slips;
    }
    if (text[i + 1] == ' ' || text[i + 1] == '\n' || text[i + 1] == text[i]) continue;
    std::string wrong = text;
    std::swap(wrong[i], wrong[i + 1]);
    EXPECT_TRUE(error_of([&] { parse_recovery_text(wrong, "it"); })) << wrong;
  }
  EXPECT_EQ(slips, 27 * 31);
}

TEST(RecoveryText, SaysWhichLineIsMissing) {
  const std::string text = to_spoken_lines(bytes_of(60), "TEST");
  const std::size_t first = text.find("01 ");
  const std::size_t second = text.find("02 ");
  const std::size_t third = text.find("03 ");
  const struct {
    std::string text;
    std::string part;
  } cases[] = {
      {text.substr(0, second) + text.substr(third), "line 3 where line 2"},
      {text.substr(0, second) + text.substr(first), "line 1 where line 2"},
      {text.substr(second), "line 2 where line 1"},
      {"", "empty"},
      {"LUKSKEEP TEST\n", "empty"},
      {"hello\n", "no line number"},
      {"01  !\n", "line 1"},
      {"01\n", "line 1"},
      {"01 00\n", "line 1"},
      {"LUKSKEEP:U", "character"},
      {std::string(limits::kRecoveryTextBytesMax + 1, '0'), "too large"},
  };
  for (const auto& each : cases) {
    const auto error = error_of([&] { parse_recovery_text(each.text, "it"); });
    ASSERT_TRUE(error) << each.part;
    EXPECT_EQ(error->code(), Code::kInvalidArgument);
    EXPECT_THAT(error->message(), HasSubstr(each.part));
  }
}

// ---- request and answer ----------------------------------------------------------------------

TEST(RecoveryKit, IsReadBackInEveryForm) {
  const RecoveryRequest request = small_request();
  for (const std::string& text :
       {to_json(request).dump(2), to_spoken_lines(pack(request), "REQUEST"),
        to_qr_text(pack(request))}) {
    EXPECT_EQ(parse_recovery_request(text, "it"), request) << text;
  }
  const RecoveryAnswer answer{.request = recovery_code(request),
                              .points = {EcPoint::of(EcScalar::random(Curve::kP384)), {}}};
  for (const std::string& text : {to_json(answer).dump(), to_spoken_lines(pack(answer), "ANSWER"),
                                  to_qr_text(pack(answer))}) {
    EXPECT_EQ(parse_recovery_answer(text, "it"), answer) << text;
  }
}

TEST(RecoveryKit, AnotherRequestHasAnotherCode) {
  const RecoveryRequest request = small_request();
  EXPECT_EQ(recovery_code(request), recovery_code(request));
  RecoveryRequest other = request;
  other.points[0].url = "http://c";
  EXPECT_NE(recovery_code(request), recovery_code(other));
  EXPECT_EQ(recovery_code_text(recovery_code(request)).size(), 19U);
}

TEST(RecoveryKit, WhatIsWrongIsRefusedAndNamed) {
  const RecoveryRequest request = small_request();
  const RecoveryAnswer answer{.request = recovery_code(request), .points = {{}, {}}};
  const auto changed = [&](const std::function<void(OrderedJson&)>& change) {
    OrderedJson json = to_json(request);
    change(json);
    return json.dump();
  };
  Bytes packed = pack(request);
  packed[10] ^= std::byte{1};
  const struct {
    std::string text;
    std::string part;
  } cases[] = {
      {changed([](auto& j) { j["uuid"] = "another"; }), "checksum"},
      {changed([](auto& j) { j["points"][0]["url"] = "http://evil"; }), "checksum"},
      {changed([](auto& j) { j["points"][0]["url"] = "file:///etc/passwd"; }), "URL"},
      {changed([](auto& j) { j["points"][0]["kid"] = "../adv"; }), "thumbprint"},
      {changed([](auto& j) { j["points"] = OrderedJson::array(); }), "no points"},
      {changed([](auto& j) { j["version"] = 2; }), "version"},
      {changed([](auto& j) { j["points"][0]["point"]["y"] = j["points"][0]["point"]["x"]; }),
       "curve"},
      {changed([](auto& j) { j["points"][0].erase("point"); }), "it"},
      {to_json(answer).dump(), "recovery-answer"},
      {to_qr_text(pack(answer)), "an answer, not a request"},
      {to_qr_text(packed), "checksum"},
      {to_qr_text({}), "cut off"},
      {"{", "it"},
      {"[]", "line 1"},
  };
  for (const auto& each : cases) {
    const auto error = error_of([&] { parse_recovery_request(each.text, "it"); });
    ASSERT_TRUE(error) << each.part;
    EXPECT_EQ(error->code(), Code::kInvalidArgument);
    EXPECT_THAT(error->message(), HasSubstr(each.part));
  }
  EXPECT_TRUE(error_of([&] { parse_recovery_answer(to_json(request).dump(), "it"); }));
  EXPECT_TRUE(error_of([&] { parse_recovery_answer(to_qr_text(pack(request)), "it"); }));
}

TEST(RecoveryKit, HoldsNothingOfTheBinding) {
  TestNetwork network;
  const TestServer& server = network.add("http://a");
  PinContext context;
  context.send = network.send();
  const Jwe jwe = seal({TangPin{.url = "http://a", .thumbprint = server.thumbprint()}},
                       as_byte_view(kPassphrase), context);
  const Binding binding{.keyslot = 1, .jwe = jwe};
  const PreparedRecovery one = prepare_recovery("u", {&binding, 1});
  const PreparedRecovery two = prepare_recovery("u", {&binding, 1});
  // Blinded anew each time: two requests for the same volume have no point in common.
  EXPECT_NE(one.request.points[0].blinded, two.request.points[0].blinded);
  const std::string text = to_json(one.request).dump();
  const SealedPin pin = describe(jwe, "it");
  EXPECT_EQ(text.find(pin.epk.at("x").get<std::string>()), std::string::npos);
  EXPECT_EQ(text.find(jwe.ciphertext), std::string::npos);
}

// ---- the state -------------------------------------------------------------------------------

TEST(RecoveryState, IsReadBackAndRefusedIfItIsNone) {
  RecoveryState state{.volume = "/dev/\"x\"",
                      .header = "h",
                      .uuid = "u",
                      .request = recovery_code(small_request()),
                      .shares = {}};
  for (const Curve curve : {Curve::kP521, Curve::kP256}) {
    state.shares.push_back({.epk = "e", .secret = EcScalar::random(curve)});
  }
  const SecretBytes text = to_text(state);
  const RecoveryState read = parse_recovery_state(text.span(), "it");
  EXPECT_EQ(read.volume, state.volume);
  EXPECT_EQ(read.request, state.request);
  ASSERT_EQ(read.shares.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(equal_constant_time(read.shares[i].secret.bytes().span(),
                                    state.shares[i].secret.bytes().span()));
  }
  const std::string good(as_string_view(text.span()));
  const auto without = [&](std::string_view part) {
    std::string cut = good;
    const std::size_t place = cut.find(part);
    EXPECT_NE(place, std::string::npos) << part;
    return cut.erase(place, part.size());
  };
  for (const std::string& bad :
       {std::string("{}"), std::string(), without("lukskeep-"), without(",\"epk\":\"e\""),
        without("P-"), without("{\"crv\":\"P-521\",\"epk\":\"e\"},"), good.substr(0, 40)}) {
    const auto error = error_of([&] { parse_recovery_state(as_byte_view(bad), "it"); });
    ASSERT_TRUE(error) << bad;
    EXPECT_EQ(error->code(), Code::kInvalidArgument) << error->message();
  }
}

// ---- all of it -------------------------------------------------------------------------------

struct Site {
  TestNetwork network;
  PinContext near;  // reaches the servers
  PinContext far;   // reaches nobody

  Site() {
    near.send = network.send();
    near.try_ms = 60;
    near.total_ms = 2'000;
    near.tries = 1;
    far.send = [](const auto&, const auto&, const auto*) -> net::HttpResponse {
      throw Error(Code::kInternal, "somebody asks a server from the site");
    };
  }

  PinPolicy tang(const std::string& url) {
    return {TangPin{.url = url, .thumbprint = network.add(url).thumbprint()}};
  }

  std::string open(const Jwe& jwe, const PreparedRecovery& prepared, const RecoveryAnswer& answer) {
    PinContext context = far;
    // Through the texts, as in life.
    context.tang_key = recovered_keys(parse_recovery_state(to_text(prepared.state).span(), "state"),
                                      parse_recovery_answer(to_qr_text(pack(answer)), "answer"));
    return std::string(as_string_view(unseal(jwe, context).span()));
  }
};

PreparedRecovery prepare(const Jwe& jwe) {
  const Binding binding{.keyslot = 1, .jwe = jwe};
  return prepare_recovery("uuid", {&binding, 1});
}

TEST(Recovery, OpensWhatOneServerSealed) {
  Site site;
  const Jwe jwe = seal(site.tang("http://a"), as_byte_view(kPassphrase), site.near);
  const PreparedRecovery prepared = prepare(jwe);
  const RecoveryOutcome outcome =
      answer_recovery(parse_recovery_request(to_json(prepared.request).dump(), "it"), site.near);
  EXPECT_FALSE(outcome.problems[0]);
  EXPECT_EQ(site.open(jwe, prepared, outcome.answer), kPassphrase);
}

TEST(Recovery, OpensNestedSharesWithSomeServersAndWhatIsOnSite) {
  Site site;
  const PinPolicy inner{SssPin{.threshold = 2, .pins = {site.tang("http://b"), {NullPin{}}}}};
  const PinPolicy policy{
      SssPin{.threshold = 2, .pins = {site.tang("http://a"), inner, site.tang("http://c")}}};
  const Jwe jwe = seal(policy, as_byte_view(kPassphrase), site.near);
  const PreparedRecovery prepared = prepare(jwe);
  ASSERT_EQ(prepared.request.points.size(), 3U);
  const auto answer_without = [&](const std::string& url) {
    PinContext context = site.near;
    context.send = [&](const net::HttpRequest& request, const net::HttpLimits& limits,
                       const CancelToken* cancel) {
      if (request.url.starts_with(url)) throw Error(Code::kRemote, "nobody is there");
      return site.near.send(request, limits, cancel);
    };
    return answer_recovery(prepared.request, context);
  };
  // The order is that of the tree, but nothing depends on it.
  for (const std::string url : {"http://a", "http://b", "http://c"}) {
    const RecoveryOutcome outcome = answer_without(url);
    EXPECT_EQ(std::ranges::count_if(outcome.problems, [](const auto& p) { return p.has_value(); }),
              1);
    EXPECT_EQ(site.open(jwe, prepared, outcome.answer), kPassphrase) << url;
  }
  const RecoveryOutcome none = answer_without("http://");
  const auto error = error_of([&] { site.open(jwe, prepared, none.answer); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), Code::kRemote);
  EXPECT_THAT(error->message(), HasSubstr("the answer has nothing of 'http://a'"));
}

TEST(Recovery, AnswersToOtherRequestsAreTold) {
  Site site;
  const Jwe jwe = seal(site.tang("http://a"), as_byte_view(kPassphrase), site.near);
  const PreparedRecovery prepared = prepare(jwe);
  const PreparedRecovery earlier = prepare(jwe);
  const RecoveryAnswer answer = answer_recovery(earlier.request, site.near).answer;
  const auto error = error_of([&] { site.open(jwe, prepared, answer); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), Code::kConflict);
}

TEST(Recovery, AnswersThatLieOpenNothing) {
  Site site;
  const Jwe jwe = seal(site.tang("http://a"), as_byte_view(kPassphrase), site.near);
  const PreparedRecovery prepared = prepare(jwe);
  const struct {
    std::optional<EcPoint> point;
    std::string part;
  } cases[] = {
      {EcPoint::of(EcScalar::random(Curve::kP521)), "does not open it"},
      {EcPoint::of(EcScalar::random(Curve::kP256)), "wrong answer"},
      {std::nullopt, "has nothing of"},
  };
  for (const auto& each : cases) {
    const auto error = error_of([&] {
      site.open(jwe, prepared, {.request = prepared.state.request, .points = {each.point}});
    });
    ASSERT_TRUE(error) << each.part;
    EXPECT_EQ(error->code(), Code::kRemote);
    EXPECT_THAT(error->message(), HasSubstr(each.part));
  }
}

TEST(Recovery, ABindingThatChangedSinceIsTold) {
  Site site;
  const PinPolicy policy = site.tang("http://a");
  const Jwe jwe = seal(policy, as_byte_view(kPassphrase), site.near);
  const PreparedRecovery prepared = prepare(jwe);
  const RecoveryAnswer answer = answer_recovery(prepared.request, site.near).answer;
  const Jwe changed = seal(policy, as_byte_view(kPassphrase), site.near);
  const auto error = error_of([&] { site.open(changed, prepared, answer); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), Code::kNotFound);
}

TEST(Recovery, OneBindingThatNoRequestCanHoldKeepsNoOtherOut) {
  Site site;
  const Jwe good = seal(site.tang("http://a"), as_byte_view(kPassphrase), site.near);
  Jwe odd = seal(site.tang("http://b"), as_byte_view(kPassphrase), site.near);
  Json header = jwe_header(odd, "it");
  header["clevis"]["tang"]["url"] = "file:///etc/passwd";
  odd.protected_header = to_base64url(as_byte_view(header.dump()));
  const std::vector<Binding> bindings = {{.keyslot = 1, .jwe = odd}, {.keyslot = 2, .jwe = good}};
  const PreparedRecovery prepared = prepare_recovery("uuid", bindings);
  ASSERT_EQ(prepared.request.points.size(), 1U);
  EXPECT_EQ(prepared.request.points[0].url, "http://a");
  EXPECT_EQ(prepared.state.shares.size(), 1U);
}

TEST(RecoveryState, LeavesOutNamesThatAreNoText) {
  Site site;
  RecoveryState state =
      std::move(prepare(seal(site.tang("http://a"), as_byte_view(kPassphrase), site.near)).state);
  state.volume = "/dev/\xff";
  state.header = "header";
  const RecoveryState read = parse_recovery_state(to_text(state).span(), "it");
  EXPECT_TRUE(read.volume.empty() && read.header.empty());
  EXPECT_EQ(read.shares.size(), 1U);
}

TEST(Recovery, AServerThatMisbehavesHoldsNothingUp) {
  for (const Mood mood : {Mood::kDown, Mood::kHangs, Mood::kOffCurve, Mood::kNonsense,
                          Mood::kRedirects, Mood::kNoKey}) {
    Site site;
    TestServer& server = site.network.add("http://a");
    const Jwe jwe = seal({TangPin{.url = "http://a", .thumbprint = server.thumbprint()}},
                         as_byte_view(kPassphrase), site.near);
    const PreparedRecovery prepared = prepare(jwe);
    server.mood = mood;
    const RecoveryOutcome outcome = answer_recovery(prepared.request, site.near);
    EXPECT_TRUE(outcome.problems[0]);
    EXPECT_FALSE(outcome.answer.points[0]);
  }
}

TEST(Recovery, AVolumeWithoutServersHasNoRequest) {
  const Binding bound{.keyslot = 1,
                      .jwe = seal({NullPin{}}, as_byte_view(kPassphrase), PinContext{})};
  const auto error = error_of([&] { prepare_recovery("u", {&bound, 1}); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), Code::kNotFound);
}

}  // namespace
}  // namespace lukskeep::nbde
