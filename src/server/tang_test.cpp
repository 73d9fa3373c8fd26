// The Tang server without its sockets: key folder, rules of access, rates, usage.
#include <algorithm>
#include <filesystem>
#include <string>

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
  auto usage = read_tang_usage(path);
  ASSERT_TRUE(usage);
  ASSERT_EQ(usage->uses.size(), 3U);
  EXPECT_EQ(usage->uses[1].client, "a");
  EXPECT_EQ(usage->uses[1].count, 4U);
  EXPECT_EQ(usage->uses[1].first_s, 100);
  EXPECT_EQ(usage->uses[1].last_s, 200);
  usage->since_s = 0;
  const auto names = [&](std::string_view key, std::int64_t quarantine_s, std::int64_t now_s) {
    std::string all;
    for (const DeleteRisk& risk : judge_delete(usage, key, quarantine_s, now_s)) {
      all += risk.name + " ";
    }
    return all;
  };
  EXPECT_EQ(names("old", 50, 1000), "needed ");
  EXPECT_EQ(names("old", 900, 1000), "used needed ");
  EXPECT_EQ(names("old", 2000, 1000), "unrecorded used needed ");
  EXPECT_EQ(names("other", 50, 1000), "");
  EXPECT_EQ(judge_delete(std::nullopt, "old", 0, 0).at(0).name, "unrecorded");
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
  const auto plain = archive::age_open(sealed, mine, "backup");
  for (const std::string& text :
       {std::string("{}\n"), std::string("no line"),
        std::string(as_string_view(plain.value())) + "more",
        std::string(as_string_view(plain.value())).substr(0, plain.value().size() - 1),
        std::string(R"({"payload":"e30","signatures":[]})") + "\n"}) {
    const Bytes forged = archive::age_seal(as_byte_view(text), recipients);
    EXPECT_EQ(error_of([&] { read_tang_backup(forged, mine, "backup"); }).code(), Code::kDamaged);
  }
}

TEST(TangService, NamesOfKeysAreNoPaths) {
  for (const char* name : {"a.jwk", ".a.jwk", "A-b_9.jwk"}) EXPECT_TRUE(is_key_file_name(name));
  for (const char* name : {"", ".jwk", "..jwk", "a", "a/b.jwk", "../a.jwk", "a b.jwk", "a\n.jwk"}) {
    EXPECT_FALSE(is_key_file_name(name)) << name;
  }
}

}  // namespace
}  // namespace lukskeep::server
