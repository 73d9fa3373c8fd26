#include "nbde/seal.h"

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/base64url.h"
#include "nbde/binding_test_tools.h"
#include "nbde/shamir.h"
#include "nbde/test_servers.h"

namespace lukskeep::nbde {
namespace {

using ::testing::HasSubstr;
using testing::Mood;
using testing::TestNetwork;
using testing::TestServer;

constexpr std::string_view kSecret = "what nobody may know";

std::string text_of(const SecretBytes& bytes) { return std::string(as_string_view(bytes.span())); }

std::string vector_text(const std::string& name) {
  std::ifstream file(LUKSKEEP_SOURCE_DIR "/tests/vectors/nbde/" + name);
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

std::optional<Error> error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

struct Places {
  TestNetwork network;
  PinContext context;

  Places() {
    context.send = network.send();
    context.try_ms = 60;
    context.total_ms = 2'000;
    context.tries = 2;
  }

  static PinPolicy tang(const TestServer& server, const std::string& url) {
    return {TangPin{.url = url, .thumbprint = server.thumbprint()}};
  }
};

TEST(Unseal, OpensWhatClevisSealedWithoutServers) {
  for (const std::string name : {"null", "sss", "nested"}) {
    const Jwe jwe = parse_compact_jwe(vector_text(name + ".jwe"), name);
    EXPECT_EQ(text_of(unseal(jwe, {})), "sealed by clevis " + name);
    EXPECT_EQ(parse_flattened_jwe(to_flattened(jwe), name), jwe);
    EXPECT_EQ(to_compact(jwe), vector_text(name + ".jwe"));
  }
}

TEST(Unseal, OpensWhatClevisSealedToServers) {
  for (const std::string name : {"tang-P-521", "tang-P-384", "tang-P-256", "old"}) {
    TestNetwork network;
    TestServer& server = network.add("http://tang.example");
    server.exchange = parse_ec_key(as_byte_view(vector_text(name + ".jwk")), name);
    const Jwe jwe = parse_compact_jwe(vector_text(name + ".jwe"), name);
    const SealedPin pin = describe(jwe, name);
    EXPECT_EQ(pin.kid.size(), name == "old" ? 27U : 43U);
    PinContext context;
    // The kid of the old one is a SHA-1 thumbprint, by which a server finds its key too.
    context.send = [&](const net::HttpRequest& request, const net::HttpLimits&,
                       const CancelToken*) -> net::HttpResponse {
      EXPECT_EQ(request.url, "http://tang.example/rec/" + pin.kid);
      const std::string answer = server.answer(request.body);
      const ByteView bytes = as_byte_view(answer);
      return {.status = 200, .headers = {}, .body = Bytes(bytes.begin(), bytes.end())};
    };
    EXPECT_EQ(text_of(unseal(jwe, context)), "sealed by clevis " + name) << name;
  }
}

TEST(Seal, OpensAgainWithTheServer) {
  Places places;
  const TestServer& server = places.network.add("http://a");
  const Jwe jwe = seal(Places::tang(server, "http://a/"), as_byte_view(kSecret), places.context);
  EXPECT_EQ(text_of(unseal(jwe, places.context)), kSecret);
  const Json header = jwe_header(jwe, "it");
  EXPECT_EQ(header.at("alg"), "ECDH-ES");
  EXPECT_EQ(header.at("epk").size(), 4U);
  EXPECT_FALSE(header.at("clevis").contains("lukskeep"));
  EXPECT_EQ(policy_of(describe(jwe, "it")).pin.index(), 0U);
}

TEST(Seal, TrustsOnlyForAReason) {
  Places places;
  const TestServer& server = places.network.add("http://a");
  const TestServer other;
  const Json known =
      parse_json(as_string_view(parse_jws(server.advertisement(), "it").payload), "keys");
  const Json others =
      parse_json(as_string_view(parse_jws(other.advertisement(), "it").payload), "keys");
  struct Row {
    std::string name;
    TangPin pin;
    bool first_use = false;
    bool good = false;
  };
  const std::string sha1 = thumbprint(server.signing.point, ThumbprintHash::kS1);
  const std::string sha512 = thumbprint(server.signing.point, ThumbprintHash::kS512);
  const std::string exchange = thumbprint(server.exchange.point);
  const std::vector<Row> rows = {
      {"nothing", {.url = "http://a"}},
      {"first use", {.url = "http://a"}, true, true},
      {"thumbprint", {.url = "http://a", .thumbprint = server.thumbprint()}, false, true},
      {"SHA-1", {.url = "http://a", .thumbprint = sha1}, false, true},
      {"SHA-512", {.url = "http://a", .thumbprint = sha512}, false, true},
      {"another's", {.url = "http://a", .thumbprint = other.thumbprint()}},
      {"another's, first use", {.url = "http://a", .thumbprint = other.thumbprint()}, true},
      {"the exchange key's", {.url = "http://a", .thumbprint = exchange}},
      {"saved", {.url = "http://b", .advertisement = server.advertisement()}, false, true},
      {"saved, another's thumbprint",
       {.url = "http://b",
        .thumbprint = other.thumbprint(),
        .advertisement = server.advertisement()}},
      {"signed by a key of before", {.url = "http://a", .trusted_keys = known}, false, true},
      {"not signed by a key of before", {.url = "http://a", .trusted_keys = others}, true}};
  for (const Row& row : rows) {
    places.context.trust_on_first_use = row.first_use;
    const auto error = error_of([&] { seal({row.pin}, as_byte_view(kSecret), places.context); });
    EXPECT_EQ(error.has_value(), !row.good) << row.name;
    if (!error) continue;
    EXPECT_EQ(error->code(), Code::kUnsafe) << row.name << ": " << error->message();
  }
}

// The first server of the policy answers last.
TEST(Seal, AsksAboutServersInTheOrderOfThePolicy) {
  Places places;
  SssPin sss{.threshold = 2, .pins = {}};
  for (const std::string url : {"http://a", "http://b", "http://c"}) {
    places.network.add(url);
    sss.pins.push_back({TangPin{.url = url}});
  }
  std::atomic<int> answered{0};
  places.context.try_ms = places.context.total_ms = 60'000;
  places.context.send = [&, send = places.network.send()](const net::HttpRequest& request,
                                                          const net::HttpLimits& limits,
                                                          const CancelToken* cancel) {
    if (request.url.starts_with("http://a/")) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      while (answered < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      // Time for questions that do not wait for their turn.
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    net::HttpResponse response = send(request, limits, cancel);
    ++answered;
    return response;
  };
  std::vector<std::string> asked;
  places.context.ask_trust = [&](std::string_view url, const std::vector<std::string>&) {
    asked.emplace_back(url);
    return true;
  };
  const Jwe jwe = seal({sss}, as_byte_view(kSecret), places.context);
  EXPECT_EQ(asked, (std::vector<std::string>{"http://a", "http://b", "http://c"}));
  EXPECT_EQ(text_of(unseal(jwe, places.context)), kSecret);

  // Nobody is asked about those behind one that fails, or about those behind a no.
  asked.clear();
  places.network.add("http://b").mood = Mood::kDown;
  EXPECT_EQ(error_of([&] { seal({sss}, as_byte_view(kSecret), places.context); })->code(),
            Code::kRemote);
  EXPECT_EQ(asked, (std::vector<std::string>{"http://a"}));
  asked.clear();
  places.network.add("http://b").mood = Mood::kWell;
  places.context.ask_trust = [&](std::string_view url, const std::vector<std::string>&) {
    asked.emplace_back(url);
    return url != "http://b";
  };
  EXPECT_EQ(error_of([&] { seal({sss}, as_byte_view(kSecret), places.context); })->code(),
            Code::kUnsafe);
  EXPECT_EQ(asked, (std::vector<std::string>{"http://a", "http://b"}));
}

TEST(Unseal, NamesWhatAServerDoesWrong) {
  Places places;
  TestServer& server = places.network.add("http://a");
  const Jwe jwe = seal(Places::tang(server, "http://a"), as_byte_view(kSecret), places.context);
  struct Row {
    Mood mood;
    Code code;
    std::string problem;
    int tries;
  };
  const std::vector<Row> rows = {{Mood::kDown, Code::kRemote, "nobody is there", 2},
                                 {Mood::kHangs, Code::kTimeout, "in time", 2},
                                 {Mood::kLies, Code::kRemote, "does not open it", 1},
                                 {Mood::kOffCurve, Code::kRemote, "wrong answer", 1},
                                 {Mood::kNonsense, Code::kRemote, "wrong answer", 1},
                                 {Mood::kRedirects, Code::kRemote, "sends elsewhere", 1},
                                 {Mood::kNoKey, Code::kRemote, "does not have the key", 1}};
  for (const Row& row : rows) {
    server.mood = row.mood;
    server.asked = 0;
    const auto error = error_of([&] { unseal(jwe, places.context); });
    ASSERT_TRUE(error) << row.problem;
    EXPECT_EQ(error->code(), row.code) << error->message();
    EXPECT_THAT(error->message(), HasSubstr(row.problem));
    EXPECT_EQ(server.asked, row.tries) << row.problem;
  }
  server.mood = Mood::kBusyOnce;
  server.asked = 0;
  EXPECT_EQ(text_of(unseal(jwe, places.context)), kSecret);
  EXPECT_EQ(server.asked, 2);
}

TEST(Unseal, NoServerHoldsUpMoreThanTheLimit) {
  Places places;
  TestServer& server = places.network.add("http://a");
  const Jwe jwe = seal(Places::tang(server, "http://a"), as_byte_view(kSecret), places.context);
  server.mood = Mood::kHangs;
  places.context.try_ms = 60'000;
  places.context.total_ms = 80;
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(error_of([&] { unseal(jwe, places.context); })->code(), Code::kTimeout);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

SssPin three_servers(Places& places, unsigned threshold) {
  SssPin sss{.threshold = threshold, .pins = {}};
  for (const std::string url : {"http://a", "http://b", "http://c"}) {
    sss.pins.push_back(Places::tang(places.network.add(url), url));
  }
  return sss;
}

// The limit is an hour: the test would not end if one server that hangs were waited for.
TEST(Unseal, TheFirstSharesThatSufficeWin) {
  Places places;
  SssPin sss = three_servers(places, 2);
  const Jwe jwe = seal({sss}, as_byte_view(kSecret), places.context);
  places.context.try_ms = places.context.total_ms = 3'600'000;
  places.network.add("http://b").mood = Mood::kHangs;
  std::vector<ShareReport> report;
  EXPECT_EQ(text_of(unseal(jwe, places.context, &report)), kSecret);
  ASSERT_EQ(report.size(), 3U);
  EXPECT_EQ(report[0].outcome, ShareReport::Outcome::kOpened);
  EXPECT_EQ(report[1].outcome, ShareReport::Outcome::kNotNeeded);
  EXPECT_EQ(report[2].outcome, ShareReport::Outcome::kOpened);
  EXPECT_EQ(report[1].url, "http://b");
}

TEST(Unseal, GivesUpAsSoonAsTooFewAreLeft) {
  Places places;
  const Jwe jwe = seal({three_servers(places, 2)}, as_byte_view(kSecret), places.context);
  places.context.try_ms = places.context.total_ms = 3'600'000;
  places.network.add("http://a").mood = Mood::kHangs;
  places.network.add("http://b").mood = Mood::kLies;
  places.network.add("http://c").mood = Mood::kNoKey;
  std::vector<ShareReport> report;
  const auto error = error_of([&] { unseal(jwe, places.context, &report); });
  EXPECT_THAT(error->message(), HasSubstr("0 of 2 shares"));
  EXPECT_THAT(error->message(), HasSubstr("http://b"));
  EXPECT_EQ(report.size(), 3U);
}

TEST(Unseal, IsCancelled) {
  Places places;
  const Jwe jwe = seal({three_servers(places, 3)}, as_byte_view(kSecret), places.context);
  places.context.try_ms = places.context.total_ms = 3'600'000;
  places.network.add("http://c").mood = Mood::kHangs;
  CancelToken cancel;
  places.context.cancel = &cancel;
  std::jthread canceller([&] {
    while (places.network.add("http://c").asked < 2) std::this_thread::yield();
    cancel.cancel();
  });
  EXPECT_EQ(error_of([&] { unseal(jwe, places.context); })->code(), Code::kInterrupted);
}

TEST(Seal, LeavesServersThatAreDownForLater) {
  Places places;
  SssPin sss = three_servers(places, 2);
  TestServer& late = places.network.add("http://c");
  late.mood = Mood::kDown;
  EXPECT_EQ(error_of([&] { seal({sss}, as_byte_view(kSecret), places.context); })->code(),
            Code::kRemote);
  places.context.allow_pending = true;
  const Jwe jwe = seal({sss}, as_byte_view(kSecret), places.context);
  const SealedPin pin = describe(jwe, "it");
  ASSERT_EQ(pin.shares.size(), 3U);
  EXPECT_EQ(pin.shares[2].state, ShareState::kPending);
  EXPECT_EQ(policy_of(pin).pin.index(), PinPolicy{sss}.pin.index());
  EXPECT_EQ(text_of(unseal(jwe, places.context)), kSecret);

  ToppedUp still = top_up(jwe, places.context);
  EXPECT_EQ(still.pending, 1U);
  EXPECT_EQ(still.jwe, jwe);
  EXPECT_EQ(still.errors.size(), 1U);

  late.mood = Mood::kWell;
  const ToppedUp done = top_up(jwe, places.context);
  EXPECT_EQ(done.added, 1U);
  EXPECT_EQ(done.pending, 0U);
  EXPECT_FALSE(jwe_header(done.jwe, "it").at("clevis").contains("lukskeep"));
  // The new share opens it together with an old one.
  places.network.add("http://a").mood = Mood::kDown;
  EXPECT_EQ(text_of(unseal(done.jwe, places.context)), kSecret);
  EXPECT_NE(error_of([&] { unseal(jwe, places.context); }), std::nullopt);
}

// One that hangs takes its own time only: with one limit for all nothing were left for the third.
TEST(Seal, AServerThatHangsKeepsNoOtherShareFromBeingAdded) {
  Places places;
  const SssPin sss = three_servers(places, 1);
  TestServer& hanging = places.network.add("http://b");
  TestServer& late = places.network.add("http://c");
  hanging.mood = late.mood = Mood::kDown;
  places.context.allow_pending = true;
  const Jwe jwe = seal({sss}, as_byte_view(kSecret), places.context);
  hanging.mood = Mood::kHangs;
  late.mood = Mood::kWell;
  places.context.try_ms = 60'000;
  places.context.total_ms = 1'000;
  const ToppedUp done = top_up(jwe, places.context);
  EXPECT_EQ(done.added, 1U);
  EXPECT_EQ(done.pending, 1U);
  ASSERT_EQ(done.errors.size(), 1U);
  EXPECT_EQ(done.errors[0].code(), Code::kTimeout);
}

// A region that waits for one of its servers remembers what the others showed.
TEST(Seal, TrustsTheKeysLaterThatItSawAtFirst) {
  Places places;
  const TestServer& a = places.network.add("http://a");
  const TestServer& b = places.network.add("http://b");
  places.network.add("http://c").mood = Mood::kDown;
  PinPolicy seen = Places::tang(b, "http://b");
  std::get<TangPin>(seen.pin).thumbprint.clear();
  const SssPin region{.threshold = 2,
                      .pins = {seen, Places::tang(places.network.add("http://c"), "http://c")}};
  const SssPin all{.threshold = 1, .pins = {Places::tang(a, "http://a"), {region}}};
  places.context.allow_pending = places.context.trust_on_first_use = true;
  const Jwe jwe = seal({all}, as_byte_view(kSecret), places.context);
  EXPECT_THAT(jwe_header(jwe, "it").dump(), HasSubstr(b.thumbprint()));
}

TEST(Seal, LeavesNothingForLaterThatCouldNotBeTrusted) {
  Places places;
  SssPin sss = three_servers(places, 1);
  places.network.add("http://c").mood = Mood::kDown;
  std::get<TangPin>(sss.pins[2].pin).thumbprint.clear();
  places.context.allow_pending = places.context.trust_on_first_use = true;
  EXPECT_EQ(error_of([&] { seal({sss}, as_byte_view(kSecret), places.context); })->code(),
            Code::kUnsafe);
  // A server that is there but lies is not one that is down.
  places.network.add("http://c").mood = Mood::kNonsense;
  EXPECT_EQ(error_of([&] { seal({sss}, as_byte_view(kSecret), places.context); })->code(),
            Code::kRemote);
}

// A share whose pin is another program's stays as it is beside those that come and go.
TEST(Seal, SharesOfPinsThatAreNotKnownStay) {
  Places places;
  const TestServer& server = places.network.add("http://late");
  SharedSecret secret = SharedSecret::make(1);
  const SecretBytes share = secret.new_share();
  const auto foreign = [](const Json& clevis) {
    return encrypt_jwe({{"alg", "dir"}, {"enc", "A256GCM"}, {"clevis", clevis}},
                       SecretBytes(kContentKeyBytes).span(), as_byte_view("a share"));
  };
  const std::string theirs =
      to_compact(foreign({{"pin", "pkcs11"}, {"pkcs11", {{"uri", "pkcs11:a"}}}}));
  const Json sss = {{"t", 1U},
                    {"p", to_base64url(secret.prime())},
                    {"jwe", {to_compact(testing::seal_null(share.span())), theirs}}};
  const Json pending = {{"pin", "tang"},
                        {"config", {{"url", "http://late"}, {"thp", server.thumbprint()}}}};
  const Jwe jwe = encrypt_jwe(
      {{"alg", "dir"},
       {"enc", "A256GCM"},
       {"clevis",
        {{"pin", "sss"}, {"sss", sss}, {"lukskeep", {{"pending", Json::array({pending})}}}}}},
      secret.key().span(), as_byte_view(kSecret));
  EXPECT_EQ(unknown_pins(describe(jwe, "it")), std::set<std::string>{"pkcs11"});
  EXPECT_EQ(text_of(unseal(jwe, places.context)), kSecret);
  EXPECT_EQ(error_of([&] { policy_of(describe(jwe, "it")); })->code(), Code::kUnsupported);
  const ToppedUp done = top_up(jwe, places.context);
  EXPECT_EQ(done.added, 1U);
  const Json list = jwe_header(done.jwe, "it").at("clevis").at("sss").at("jwe");
  ASSERT_EQ(list.size(), 3U);
  EXPECT_EQ(list[1], theirs);
  EXPECT_EQ(text_of(unseal(done.jwe, places.context)), kSecret);
}

TEST(Seal, SavedSharesAreConfirmedWhenTheirServerOpensThem) {
  Places places;
  SssPin inner = three_servers(places, 2);
  TestServer& server = places.network.add("http://d");
  server.mood = Mood::kDown;
  inner.pins.push_back({TangPin{.url = "http://d", .advertisement = server.advertisement()}});
  const PinPolicy policy{SssPin{.threshold = 1, .pins = {PinPolicy{inner}}}};
  const Jwe jwe = seal(policy, as_byte_view(kSecret), places.context);
  EXPECT_EQ(describe(jwe, "it").shares[0].shares[3].state, ShareState::kSaved);
  EXPECT_EQ(top_up(jwe, places.context).jwe, jwe);
  server.mood = Mood::kWell;
  const ToppedUp done = top_up(jwe, places.context);
  EXPECT_EQ(done.saved, 1U);
  EXPECT_EQ(describe(done.jwe, "it").shares[0].shares[3].state, ShareState::kConfirmed);
  EXPECT_EQ(text_of(unseal(done.jwe, places.context)), kSecret);
}

}  // namespace
}  // namespace lukskeep::nbde
