// The Tang server without its sockets: key folder, rules of access, rates, usage.
#include <algorithm>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <lukskeep/error.h>

#include "nbde/advertisement.h"
#include "server/tang_access.h"
#include "server/tang_backup.h"
#include "server/tang_key_folder.h"
#include "server/tang_keys.h"
#include "server/tang_service.h"
#include "server/tang_usage.h"
#include "storage/test_files.h"

namespace lukskeep::server {
namespace {

using storage::error_of;
using storage::TemporaryDirectory;

net::HttpPeer peer_at(std::initializer_list<int> last_four) {
  net::HttpPeer peer{.address = "192.0.2.1"};
  peer.ip[10] = peer.ip[11] = std::byte{0xff};
  std::size_t at = 12;
  for (const int part : last_four) peer.ip[at++] = static_cast<std::byte>(part);
  return peer;
}

template <typename T>
T present(std::optional<T> value) {
  if (!value) throw std::runtime_error("nothing is there");
  return std::move(*value);
}

TEST(TangKeyFolder, KeysAreMadeAsTangMakesThem) {
  const TemporaryDirectory place;
  const TangKeyFolder folder(place.path("db"));
  const mode_t before = umask(0);
  const auto made = folder.generate(nbde::Curve::kP521);
  umask(before);
  ASSERT_EQ(made.size(), 2U);
  for (const std::string& thumbprint : made) {
    struct stat status{};
    ASSERT_EQ(stat(place.path("db/" + thumbprint + ".jwk").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0440U);
  }
  EXPECT_TRUE(folder.generate(nbde::Curve::kP521, true).empty());
  EXPECT_EQ(folder.read().keys.size(), 2U);
}

TEST(TangKeyFolder, AFirstStartThatWasCutOffIsCompleted) {
  const TemporaryDirectory place;
  const TangKeyFolder folder(place.path("db"));
  const auto made = folder.generate(nbde::Curve::kP256);  // the signing and the exchange key
  std::filesystem::remove(place.path("db/" + made[0] + ".jwk"));
  const std::string unreadable = place.path("db/half.jwk");
  storage::put_file(unreadable, as_byte_view("{"));
  EXPECT_TRUE(folder.generate(nbde::Curve::kP521, true).empty());
  std::filesystem::remove(unreadable);
  const auto more = folder.generate(nbde::Curve::kP521, true);
  ASSERT_EQ(more.size(), 1U);
  const auto files = folder.read();
  EXPECT_TRUE(is_signing_key(find_key_file(files.keys, more[0]).key));
  EXPECT_TRUE(TangKeys(folder.read()).complete());
  EXPECT_TRUE(folder.generate(nbde::Curve::kP521, true).empty());
  // As tangd: where all keys are hidden, a pair is made.
  for (const TangKeyFile& key : files.keys) folder.set_hidden(key.thumbprint, true);
  EXPECT_EQ(folder.generate(nbde::Curve::kP256, true).size(), 2U);
}

TEST(TangKeyFolder, RotationHidesWhatWasAndKeepsIt) {
  const TemporaryDirectory place;
  const TangKeyFolder folder(place.path("db"));
  const auto old = folder.generate(nbde::Curve::kP256);
  storage::put_file(place.path("db/.lukskeep-0123.tmp"), as_byte_view("left"));
  const auto rotation = folder.rotate(nbde::Curve::kP256);
  EXPECT_EQ(rotation.hidden.size(), 2U);
  const auto files = folder.read();
  EXPECT_TRUE(files.problems.empty());
  for (const TangKeyFile& key : files.keys) {
    const bool was = std::ranges::find(old, key.thumbprint) != old.end();
    EXPECT_EQ(key.hidden, was);
  }
  EXPECT_FALSE(std::filesystem::exists(place.path("db/.lukskeep-0123.tmp")));
  EXPECT_TRUE(folder.set_hidden(old[0], false));
  EXPECT_FALSE(folder.set_hidden(old[0].substr(0, 8), false));
  folder.remove(old[1]);
  EXPECT_EQ(folder.read().keys.size(), 3U);
  EXPECT_EQ(error_of([&] { folder.remove(old[1]); }).code(), Code::kNotFound);
}

TEST(TangKeyFolder, PrefixesMustBeLongAndOfOneKey) {
  const TemporaryDirectory place;
  const TangKeyFolder folder(place.path("db"));
  const auto made = folder.generate(nbde::Curve::kP256);
  const auto files = folder.read();
  EXPECT_EQ(error_of([&] { find_key_file(files.keys, made[0].substr(0, 5)); }).code(),
            Code::kNotFound);
  EXPECT_EQ(error_of([&] { find_key_file(files.keys, ""); }).code(), Code::kNotFound);
  EXPECT_EQ(find_key_file(files.keys, made[0].substr(0, 6)).thumbprint, made[0]);
}

TEST(TangKeys, AHiddenKeySignsOnlyWhenItIsNamed) {
  const TemporaryDirectory place;
  const TangKeyFolder folder(place.path("db"));
  const auto old = folder.generate(nbde::Curve::kP256);
  folder.rotate(nbde::Curve::kP521);
  const TangKeys keys(folder.read());
  const nbde::EcKey& hidden = keys.find(old[0])->key;
  EXPECT_FALSE(is_signed_by(nbde::parse_advertisement(*keys.advertisement(), "adv"), hidden));
  EXPECT_TRUE(is_signed_by(nbde::parse_advertisement(*keys.advertisement(old[0]), "adv"), hidden));
  EXPECT_EQ(keys.advertisement(old[1]), nullptr);  // an exchange key
  EXPECT_TRUE(keys.complete());
}

TEST(TangAccess, RulesMeetWhoTheyName) {
  const net::HttpPeer near = peer_at({192, 0, 2, 1});
  const net::HttpPeer far = peer_at({198, 51, 100, 9});
  net::HttpPeer known = far;
  known.certificate_sha256 = std::string(64, 'a');
  net::HttpPeer six{.address = "2001:db8::1"};
  six.ip[0] = std::byte{0x20};
  six.ip[1] = std::byte{0x01};
  six.ip[2] = std::byte{0x0d};
  six.ip[3] = std::byte{0xb8};
  const std::string certificate = "certificate " + std::string(64, 'A');
  const struct {
    std::string rules;
    bool near, far, known, six;
  } rows[] = {
      {"", true, true, true, true},
      {"# nothing\n\n", true, true, true, true},
      {"deny 192.0.2.1", false, true, true, true},
      {"deny 192.0.2.0/24 # net", false, true, true, true},
      {"deny 192.0.2.0/31\r\n", false, true, true, true},
      {"deny 192.0.2.2/31", true, true, true, true},
      {"deny 0.0.0.0/0", false, false, false, true},
      {"deny ::/0", false, false, false, false},
      {"deny 2001:db8::/32", true, true, true, false},
      {"allow 192.0.2.0/24", true, false, false, false},
      {"allow 192.0.2.0/24\ndeny 192.0.2.1", false, false, false, false},
      {"deny 192.0.2.1\nallow 0.0.0.0/0", false, true, true, false},
      {"allow " + certificate, false, false, true, false},
      {"deny " + certificate, true, true, false, true},
      {"allow 0.0.0.0/0\ndeny " + certificate, true, true, false, false},
      {"deny " + certificate + "\nallow " + certificate, false, false, false, false},
  };
  for (const auto& row : rows) {
    const TangAccess access = TangAccess::parse(row.rules, "rules");
    EXPECT_EQ(access.allows(near), row.near) << row.rules;
    EXPECT_EQ(access.allows(far), row.far) << row.rules;
    EXPECT_EQ(access.allows(known), row.known) << row.rules;
    EXPECT_EQ(access.allows(six), row.six) << row.rules;
  }
}

TEST(TangAccess, NonsenseIsRefusedWithItsLine) {
  for (const char* rules :
       {"permit 192.0.2.1", "deny", "deny 192.0.2", "deny 192.0.2.0/33", "deny 192.0.2.0/",
        "deny 192.0.2.0/-1", "deny ::/129", "deny 192.0.2.0/8x", "deny certificate abc",
        "deny certificate", "deny example.org"}) {
    const Error error =
        error_of([&] { static_cast<void>(TangAccess::parse("\n" + std::string(rules), "rules")); });
    EXPECT_EQ(error.code(), Code::kInvalidArgument) << rules;
    EXPECT_TRUE(error.message().starts_with("rules, line 2")) << error.message();
  }
}

TEST(TangRateLimit, EachClientHasItsOwnRate) {
  TangRateLimit limit(10);
  const auto mine = peer_at({192, 0, 2, 1});
  int served = 0;
  for (int i = 0; i < 100; ++i) served += limit.wait_seconds(mine, 0) == 0 ? 1 : 0;
  EXPECT_EQ(served, 20);
  EXPECT_EQ(limit.wait_seconds(mine, 0), 1U);
  EXPECT_EQ(limit.wait_seconds(peer_at({192, 0, 2, 2}), 0), 0U);
  EXPECT_EQ(limit.wait_seconds(mine, 100), 0U);
  EXPECT_EQ(limit.wait_seconds(mine, 100), 1U);
}

TangKeyFile exchange(const std::string& thumbprint) {
  return {.name = thumbprint + ".jwk",
          .hidden = true,
          .key = nbde::generate_exchange_key(nbde::Curve::kP256),
          .thumbprint = thumbprint};
}

std::vector<TangKeyFile> exchange_keys(std::initializer_list<const char*> thumbprints) {
  std::vector<TangKeyFile> keys;
  for (const char* thumbprint : thumbprints) keys.push_back(exchange(thumbprint));
  return keys;
}

const TangKeyFile& find(const std::vector<TangKeyFile>& keys, std::string_view thumbprint) {
  return *std::ranges::find(keys, thumbprint, &TangKeyFile::thumbprint);
}

std::string risk_names(const std::vector<DeleteRisk>& risks) {
  std::string all;
  for (const DeleteRisk& risk : risks) all += risk.name + " ";
  return all;
}

TEST(TangUsage, IsCountedAndJudged) {
  const TemporaryDirectory place;
  const std::string path = place.path("usage.sqlite");
  EXPECT_FALSE(read_tang_usage(path));
  for (int start = 0; start < 2; ++start) {
    TangUsageRecorder recorder(path);
    recorder.note("old", "a", 100);
    recorder.note("old", "a", 200);
    recorder.note("old", "b", 150);
    recorder.note("new", "b", 300);
  }
  auto usage = present(read_tang_usage(path));
  ASSERT_EQ(usage.uses.size(), 3U);
  EXPECT_EQ(usage.uses[1].client, "a");
  EXPECT_EQ(usage.uses[1].count, 4U);
  EXPECT_EQ(usage.uses[1].first_s, 100);
  EXPECT_EQ(usage.uses[1].last_s, 200);
  usage.since_s = 0;
  const auto keys = exchange_keys({"old", "new", "other"});
  const auto names = [&](std::string_view key, std::int64_t quarantine_s, std::int64_t now_s) {
    return risk_names(judge_delete(usage, keys, find(keys, key), quarantine_s, now_s));
  };
  EXPECT_EQ(names("old", 50, 1000), "needed ");
  EXPECT_EQ(names("old", 900, 1000), "used needed ");
  EXPECT_EQ(names("old", 2000, 1000), "unrecorded used needed ");
  EXPECT_EQ(names("other", 50, 1000), "");
  EXPECT_EQ(risk_names(judge_delete(std::nullopt, keys, keys[0], 0, 0)), "unrecorded ");
}

TEST(TangService, ServesWithoutItsRecordUnlessThatIsRequired) {
  const TemporaryDirectory place;
  const TangKeyFolder folder(place.path("db"));
  folder.generate(nbde::Curve::kP256);
  storage::put_file(place.path("torn"), as_byte_view(std::string(4096, 'x')));
  for (const char* record : {"torn", "db", "none/usage.sqlite"}) {
    std::string told;
    const auto options = [&](bool required) {
      return TangServiceOptions{.key_folder = place.path("db"),
                                .usage_file = place.path(record),
                                .usage_required = required,
                                .warn = [&told](const std::string& text) { told += text; }};
    };
    TangService service(options(false));
    EXPECT_NE(told.find(record), std::string::npos) << told;
    const auto ask = [&](const char* path) {
      return service.handle({.method = "GET", .target = path, .body = {}, .peer = peer_at({})});
    };
    EXPECT_EQ(ask("/adv").status, 200U);
    EXPECT_NE(ask("/metrics").body.find("lukskeep_tang_usage_unwritten 1"), std::string::npos);
    EXPECT_NE(error_of([&] { const TangService refused(options(true)); }).code(), Code::kInternal)
        << record;
  }
}

TEST(TangUsage, OnlyAKeyForTheSamePurposeTakesThePlaceOfAnother) {
  TangKeyFile signing{.name = "s.jwk", .key = nbde::generate_signing_key(nbde::Curve::kP256)};
  signing.thumbprint = "signing";
  auto keys = exchange_keys({"old", "new"});
  keys.push_back(std::move(signing));
  TangUsage usage{.since_s = 0, .uses = {}};
  usage.uses = {{.key = "old", .client = "a", .count = 1, .first_s = 100, .last_s = 100},
                {.key = "signing", .client = "a", .count = 1, .first_s = 200, .last_s = 200},
                {.key = "deleted", .client = "a", .count = 1, .first_s = 200, .last_s = 200}};
  EXPECT_EQ(risk_names(judge_delete(usage, keys, keys[0], 50, 1000)), "needed ");
  usage.uses.push_back({.key = "new", .client = "a", .count = 1, .first_s = 150, .last_s = 150});
  EXPECT_EQ(risk_names(judge_delete(usage, keys, keys[0], 50, 1000)), "");
  // Of clients that were not told apart some may not have changed.
  usage.uses.push_back({.key = "old", .client = "others", .count = 9, .first_s = 1, .last_s = 100});
  usage.uses.push_back({.key = "new", .client = "others", .count = 9, .first_s = 1, .last_s = 200});
  EXPECT_EQ(risk_names(judge_delete(usage, keys, keys[0], 50, 1000)), "needed ");
}

TEST(TangUsage, TheRecordDoesNotGrowWithoutEnd) {
  const TemporaryDirectory place;
  const std::string path = place.path("usage.sqlite");
  for (int start = 0; start < 3; ++start) {
    TangUsageRecorder recorder(path, 10);
    for (int client = 0; client < 20; ++client) {
      recorder.note("key", "2001:db8::" + std::to_string(client + 15 * start), 100 + start);
    }
  }
  const auto usage = present(read_tang_usage(path));
  EXPECT_EQ(usage.uses.size(), 11U);
  std::uint64_t all = 0;
  std::uint64_t others = 0;
  for (const TangUse& use : usage.uses) {
    all += use.count;
    if (use.client == "others") others = use.count;
  }
  EXPECT_EQ(all, 60U);
  EXPECT_GE(others, 40U);
}

TEST(TangBackup, IsWhatWasThereAndNothingElse) {
  const TemporaryDirectory place;
  const TangKeyFolder folder(place.path("db"));
  folder.generate(nbde::Curve::kP256);
  folder.rotate(nbde::Curve::kP521);
  const auto keys = folder.read().keys;
  std::vector<archive::AgeIdentity> mine;
  mine.push_back(archive::make_age_identity());
  std::vector<archive::AgeIdentity> other;
  other.push_back(archive::make_age_identity());
  const archive::AgeRecipient recipients[] = {archive::recipient_of(mine[0])};
  const Bytes sealed = make_tang_backup(keys, recipients, 77);
  const TangBackup read = read_tang_backup(sealed, mine, "backup");
  EXPECT_EQ(key_set_fingerprint(read.keys), key_set_fingerprint(keys));
  EXPECT_EQ(read.signers.size(), 2U);
  EXPECT_EQ(read.created_s, 77);
  EXPECT_EQ(error_of([&] { read_tang_backup(sealed, other, "backup"); }).code(),
            Code::kWrongPassphrase);
  // What anybody could seal: without a signature, with another list, with more behind it.
  const auto plain = present(archive::age_open(sealed, mine, "backup"));
  for (const std::string& text :
       {std::string("{}\n"), std::string("no line"), std::string(as_string_view(plain)) + "more",
        std::string(as_string_view(plain)).substr(0, plain.size() - 1),
        std::string(R"({"payload":"e30","signatures":[]})") + "\n"}) {
    const Bytes forged = archive::age_seal(as_byte_view(text), recipients);
    EXPECT_EQ(error_of([&] { read_tang_backup(forged, mine, "backup"); }).code(), Code::kDamaged);
  }
}

TEST(TangBackup, HoldsOnlyWhatCanBeRestored) {
  const TemporaryDirectory place;
  const TangKeyFolder folder(place.path("db"));
  const auto made = folder.generate(nbde::Curve::kP256);
  const archive::AgeIdentity mine = archive::make_age_identity();
  const archive::AgeRecipient recipients[] = {archive::recipient_of(mine)};
  const std::string good = place.path("db/" + made[1] + ".jwk");
  for (const std::string name : {"a b.jwk", "\xff.jwk", "twice.jwk"}) {
    const std::string bad = place.path("db/" + name);
    std::filesystem::copy_file(good, bad);
    if (name != "twice.jwk") std::filesystem::remove(good);
    const Error error = error_of([&] { make_tang_backup(folder.read().keys, recipients, 77); });
    EXPECT_EQ(error.code(), Code::kInvalidArgument) << name;
    EXPECT_NE(error.message().find(made[1]), std::string::npos) << error.message();
    if (name != "twice.jwk") std::filesystem::copy_file(bad, good);
    std::filesystem::remove(bad);
  }
  EXPECT_FALSE(make_tang_backup(folder.read().keys, recipients, 77).empty());
}

TEST(TangService, NamesOfKeysAreNoPaths) {
  for (const char* name : {"a.jwk", ".a.jwk", "A-b_9.jwk"}) EXPECT_TRUE(is_key_file_name(name));
  for (const char* name : {"", ".jwk", "..jwk", "a", "a/b.jwk", "../a.jwk", "a b.jwk", "a\n.jwk"}) {
    EXPECT_FALSE(is_key_file_name(name)) << name;
  }
}

}  // namespace
}  // namespace lukskeep::server
