#include "nbde/rekey.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include <sys/resource.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/uuid.h"
#include "nbde/test_servers.h"

namespace lukskeep::nbde {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::TestNetwork;
using testing::TestServer;

constexpr std::string_view kUuid = "4c7dd2b4-6540-4f84-af75-ffcce7d2c8eb";

struct Folder {
  fs::path path = fs::temp_directory_path() / random_uuid();
  Folder() { fs::create_directory(path); }
  ~Folder() { fs::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string journal() const { return path / "journal"; }
  std::string text() const {
    std::ifstream file(journal());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& text) const { std::ofstream(journal()) << text; }
};

std::optional<Error> error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

Jwe some_jwe() { return seal({NullPin{}}, as_byte_view("x"), PinContext{}); }

TEST(RekeyKeys, AreThoseThatAPinDependsOn) {
  TestNetwork network;
  const TestServer& a = network.add("http://a");
  const TestServer& b = network.add("http://b");
  const TestServer& c = network.add("http://c");
  PinContext context;
  context.send = network.send();
  const PinPolicy inner{
      SssPin{.threshold = 1,
             .pins = {{TangPin{.url = "http://b", .thumbprint = b.thumbprint()}}, {NullPin{}}}}};
  const PinPolicy policy{SssPin{
      .threshold = 1, .pins = {{TangPin{.url = "http://a", .thumbprint = a.thumbprint()}}, inner}}};
  const SealedPin pin = describe(seal(policy, as_byte_view("x"), context), "it");
  EXPECT_EQ(keys_of(pin), (std::set<std::string>{a.thumbprint(), thumbprint(a.exchange.point),
                                                 b.thumbprint(), thumbprint(b.exchange.point)}));
  const auto depends = [&](std::vector<std::string> keys) { return depends_on(pin, keys); };
  EXPECT_TRUE(depends({}));
  EXPECT_TRUE(depends({b.thumbprint()}));
  EXPECT_TRUE(depends({c.thumbprint(), thumbprint(b.exchange.point, ThumbprintHash::kS1)}));
  EXPECT_FALSE(depends({c.thumbprint(), thumbprint(c.exchange.point)}));
  const SealedPin none = describe(some_jwe(), "it");
  EXPECT_FALSE(depends_on(none, {}));
  EXPECT_TRUE(keys_of(none).empty());
}

// What is added when the server is there again is taken from whoever the old key vouches for.
TEST(RekeyKeys, OfAPendingShareAreTheOneThatItTrusts) {
  TestNetwork network;
  const TestServer& a = network.add("http://a");
  TestServer& b = network.add("http://b");
  b.mood = testing::Mood::kDown;
  PinContext context;
  context.send = network.send();
  context.allow_pending = true;
  const PinPolicy policy{
      SssPin{.threshold = 1,
             .pins = {{TangPin{.url = "http://a", .thumbprint = a.thumbprint()}},
                      {TangPin{.url = "http://b", .thumbprint = b.thumbprint()}}}}};
  const SealedPin pin = describe(seal(policy, as_byte_view("x"), context), "it");
  EXPECT_TRUE(keys_of(pin).contains(b.thumbprint()));
  const std::vector<std::string> key = {b.thumbprint()};
  EXPECT_TRUE(depends_on(pin, key));
  EXPECT_TRUE(trusts(pin, key));
}

TEST(RekeyKeys, ThatNobodyExpectsAreFound) {
  TestNetwork network;
  const TestServer& a = network.add("http://a");
  const TestServer& b = network.add("http://b");
  PinContext context;
  context.send = network.send();
  const auto sealed = [&](const TestServer& server, const char* url) {
    const PinPolicy policy{TangPin{.url = url, .thumbprint = server.thumbprint()}};
    return describe(seal(policy, as_byte_view("x"), context), "it");
  };
  const SealedPin before = sealed(a, "http://a");
  const SealedPin after = sealed(b, "http://b");
  const std::string exchange = thumbprint(b.exchange.point);
  const auto unexpected = [&](std::vector<std::string> expected) {
    return unexpected_keys(before, after, expected);
  };
  EXPECT_EQ(unexpected({}), (std::set<std::string>{b.thumbprint(), exchange}));
  EXPECT_EQ(unexpected({b.thumbprint()}), (std::set<std::string>{exchange}));
  EXPECT_TRUE(
      unexpected({b.thumbprint(), thumbprint(b.exchange.point, ThumbprintHash::kS1)}).empty());
  EXPECT_TRUE(unexpected_keys(before, sealed(a, "http://a"), {}).empty());
  const auto trusts_one = [&](std::vector<std::string> keys) { return trusts(before, keys); };
  EXPECT_TRUE(trusts_one({a.thumbprint()}));
  EXPECT_FALSE(trusts_one({thumbprint(a.exchange.point), b.thumbprint()}));
}

TEST(RekeyJournal, ForgetsWhatIsFinished) {
  const Folder folder;
  const Jwe jwe = some_jwe();
  {
    RekeyJournal journal(folder.journal());
    journal.note(kUuid, 1, jwe);
    journal.finish();
    EXPECT_FALSE(journal.is_done(kUuid, 1, jwe));
  }
  RekeyJournal journal(folder.journal());
  EXPECT_FALSE(journal.is_done(kUuid, 1, jwe));
  journal.note(kUuid, 1, jwe);
  EXPECT_TRUE(journal.is_done(kUuid, 1, jwe));
}

// A disk that is full: the limit on the size of files stands for it.
TEST(RekeyJournal, IsAsBeforeAfterANoteThatFailed) {
  const Folder folder;
  const Jwe jwe = some_jwe();
  RekeyJournal journal(folder.journal());
  journal.note(kUuid, 1, jwe);
  const std::string before = folder.text();
  struct rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit full = limit;
  full.rlim_cur = before.size() + 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  const auto error = error_of([&] { journal.note(kUuid, 2, jwe); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  ASSERT_NE(std::signal(SIGXFSZ, old_handler), SIG_ERR);
  ASSERT_TRUE(error);
  EXPECT_EQ(folder.text(), before);
  EXPECT_FALSE(journal.is_done(kUuid, 2, jwe));
  journal.note(kUuid, 3, jwe);
  EXPECT_TRUE(folder.text().starts_with(before));
}

TEST(RekeyJournal, RemembersWhatIsDone) {
  const Folder folder;
  const Jwe jwe = some_jwe();
  {
    RekeyJournal journal(folder.journal());
    EXPECT_FALSE(journal.is_done(kUuid, 1, jwe));
    journal.note(kUuid, 1, jwe);
    EXPECT_TRUE(journal.is_done(kUuid, 1, jwe));
  }
  const RekeyJournal journal(folder.journal());
  EXPECT_TRUE(journal.is_done(kUuid, 1, jwe));
  EXPECT_FALSE(journal.is_done(kUuid, 2, jwe));
  EXPECT_FALSE(journal.is_done("another", 1, jwe));
  // A header that was restored has another binding than the one that was made.
  EXPECT_FALSE(journal.is_done(kUuid, 1, some_jwe()));
}

// Whatever of the last line reached the disk: what was noted before stays, and the next is whole.
TEST(RekeyJournal, GoesOnWhereItWasCut) {
  const Jwe first = some_jwe();
  const Jwe second = some_jwe();
  std::string whole;
  std::size_t one_line = 0;
  {
    const Folder folder;
    RekeyJournal journal(folder.journal());
    journal.note(kUuid, 0, first);
    one_line = folder.text().size();
    journal.note(kUuid, 1, second);
    whole = folder.text();
  }
  for (std::size_t size = one_line; size <= whole.size(); ++size) {
    const Folder folder;
    folder.write(whole.substr(0, size));
    {
      RekeyJournal journal(folder.journal());
      EXPECT_TRUE(journal.is_done(kUuid, 0, first)) << size;
      EXPECT_EQ(journal.is_done(kUuid, 1, second), size == whole.size()) << size;
      journal.note(kUuid, 1, second);
    }
    EXPECT_TRUE(RekeyJournal(folder.journal()).is_done(kUuid, 1, second)) << size;
  }
  // Also before the first line was whole.
  const Folder folder;
  folder.write(whole.substr(0, 10));
  EXPECT_FALSE(RekeyJournal(folder.journal()).is_done(kUuid, 0, first));
}

TEST(RekeyJournal, HasOneWriterAtATime) {
  const Folder folder;
  const RekeyJournal journal(folder.journal());
  const auto error = error_of([&] { const RekeyJournal other(folder.journal()); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), Code::kBusy);
}

TEST(RekeyJournal, TakesNotesFromManyThreads) {
  const Folder folder;
  const Jwe jwe = some_jwe();
  {
    RekeyJournal journal(folder.journal());
    std::vector<std::jthread> threads;
    threads.reserve(8);
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&journal, &jwe, i] { journal.note(fmt::format("u{}", i), i, jwe); });
    }
  }
  const RekeyJournal journal(folder.journal());
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(journal.is_done(fmt::format("u{}", i), i, jwe));
}

TEST(RekeyJournal, WhatIsNoneIsRefusedAndLeftAlone) {
  const std::string head = R"({"type":"lukskeep-rekey-journal","version":1})"
                           "\n";
  const struct {
    std::string text;
    std::string part;
  } cases[] = {
      {"root:x:0:0\n", "damaged"},
      {"no end of line", "no journal"},
      {"{}\n{\"keyslot\":", "no journal"},
      {"{}\n", "no journal"},
      {R"({"type":"lukskeep-rekey-journal","version":2})"
       "\n",
       "no journal"},
      {head + "[]\n", "line 2"},
      {head + R"({"keyslot":-1,"uuid":"u","sealed":"s"})" + "\n", "line 2"},
      {head + R"({"keyslot":1e9,"uuid":"u","sealed":"s"})" + "\n", "line 2"},
      {head + R"({"keyslot":1,"uuid":1,"sealed":"s"})" + "\n", "line 2"},
      {head + "{\n", "line 2"},
  };
  for (const auto& each : cases) {
    const Folder folder;
    folder.write(each.text);
    const auto error = error_of([&] { const RekeyJournal journal(folder.journal()); });
    ASSERT_TRUE(error) << each.text;
    EXPECT_EQ(error->code(), Code::kInvalidArgument);
    EXPECT_THAT(error->message(), HasSubstr(each.part));
    EXPECT_EQ(folder.text(), each.text);
  }
  const Folder folder;
  EXPECT_TRUE(error_of([&] { const RekeyJournal journal(folder.path); }));
  EXPECT_TRUE(error_of([&] { const RekeyJournal journal(folder.path / "a" / "b"); }));
}

TEST(RekeyReport, SaysWhatIsLeftAndWhatIsInUse) {
  const std::vector<std::string> keys = {"old"};
  std::vector<RekeyedVolume> volumes(3);
  volumes[0] = {.volume = "a",
                .uuid = "1",
                .rebound = {1, 2},
                .unproven = {2},
                .left = {},
                .in_use = {"new"}};
  volumes[1] = {
      .volume = "b", .uuid = "2", .rebound = {}, .unproven = {}, .left = {}, .in_use = {"other"}};
  volumes[2].volume = "c";
  volumes[2].left.push_back({.keyslot = -1, .error = Error(Code::kRemote, "it is down")});
  const OrderedJson json = rekey_report(keys, volumes);
  EXPECT_EQ(json["good"], false);
  EXPECT_EQ(json["volumes"][0]["state"], "done");
  EXPECT_EQ(json["volumes"][0]["unproven"], OrderedJson({2}));
  EXPECT_EQ(json["volumes"][1]["state"], "unchanged");
  EXPECT_EQ(json["volumes"][2]["state"], "left");
  EXPECT_EQ(json["volumes"][2]["left"][0]["keyslot"], nullptr);
  EXPECT_EQ(json["volumes"][2]["left"][0]["code"], "remote");
  const RekeyVerdict verdict = parse_rekey_report(json.dump(), "it");
  EXPECT_EQ(verdict.volumes, 3U);
  EXPECT_EQ(verdict.left, 1U);
  EXPECT_EQ(verdict.in_use, (std::set<std::string>{"new", "other"}));
  EXPECT_EQ(verdict.keys, (std::set<std::string>{"old"}));
  volumes.pop_back();
  EXPECT_EQ(parse_rekey_report(rekey_report(keys, volumes).dump(), "it").left, 0U);
}

TEST(RekeyReport, WhatIsNoneIsRefused) {
  OrderedJson good = rekey_report({}, {});
  const auto changed = [&](const char* name, const Json& value) {
    OrderedJson json = good;
    json[name] = value;
    return json.dump();
  };
  for (const std::string& bad :
       {std::string("{"), std::string("[]"), std::string("{}"), changed("type", "x"),
        changed("version", 2), changed("left", -1), changed("left", "0"), changed("volumes", 3),
        changed("in_use", Json()), changed("in_use", {1}), changed("keys", Json()),
        changed("keys", {1})}) {
    const auto error = error_of([&] { parse_rekey_report(bad, "it"); });
    ASSERT_TRUE(error) << bad;
    EXPECT_EQ(error->code(), Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace lukskeep::nbde
