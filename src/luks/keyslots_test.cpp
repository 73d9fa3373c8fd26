#include "luks/keyslots.h"

#include <chrono>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "crypto/random.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using testing::cheap_keyslot;
using testing::cheap_options;
using testing::kFirstPassphrase;
using testing::kSecondPassphrase;
using testing::make_volume;
using testing::must;
using testing::must_unlock;
using testing::opens;

template <typename Body>
Code code_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing thrown";
  return Code::kInternal;
}

class Keyslots : public ::testing::TestWithParam<Version> {};

TEST_P(Keyslots, AddChangeRemove) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  EXPECT_TRUE(opens(file, kFirstPassphrase));
  EXPECT_FALSE(opens(file, kSecondPassphrase));
  EXPECT_FALSE(opens(file, ""));

  const Unlocked key = must_unlock(file, kFirstPassphrase);
  EXPECT_EQ(add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(3)), 3);
  EXPECT_TRUE(opens(file, kSecondPassphrase, 3));
  EXPECT_FALSE(opens(file, kSecondPassphrase, 0));

  const Unlocked second = must_unlock(file, kSecondPassphrase);
  EXPECT_TRUE(equal_constant_time(second.key.span(), key.key.span()));
  EXPECT_EQ(change_keyslot(file, second, as_byte_view("third"), cheap_keyslot()), 3);
  EXPECT_TRUE(opens(file, "third", 3));
  EXPECT_FALSE(opens(file, kSecondPassphrase));
  EXPECT_TRUE(opens(file, kFirstPassphrase));
  EXPECT_EQ(file.header().keyslots.size(), 2U);

  remove_keyslot(file, 0, false);
  EXPECT_FALSE(opens(file, kFirstPassphrase));
  EXPECT_EQ(code_of([&] { remove_keyslot(file, 3, false); }), Code::kLastKeyslot);
  EXPECT_TRUE(opens(file, "third"));
  remove_keyslot(file, 3, true);
  EXPECT_EQ(code_of([&] { opens(file, "third"); }), Code::kWrongPassphrase);

  // The volume key still opens it, and can give it a keyslot again.
  const Unlocked by_key = must(unlock_with_volume_key(file, key.key.clone(), {}));
  EXPECT_EQ(add_keyslot(file, by_key, as_byte_view("fourth"), cheap_keyslot()), 0);
  EXPECT_TRUE(opens(file, "fourth"));
}

TEST_P(Keyslots, RemovedMaterialIsWiped) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(1));
  const Keyslot old = file.header().keyslots.at(1);
  Bytes before(old.area.size_bytes);
  file.device()->read(old.area.offset_bytes, before);
  remove_keyslot(file, 1, false);
  Bytes after(old.area.size_bytes);
  file.device()->read(old.area.offset_bytes, after);
  std::size_t same_sectors = 0;
  for (std::size_t at = 0; at + 512 <= before.size(); at += 512) {
    same_sectors += std::equal(before.begin() + static_cast<std::ptrdiff_t>(at),
                               before.begin() + static_cast<std::ptrdiff_t>(at + 512),
                               after.begin() + static_cast<std::ptrdiff_t>(at));
  }
  EXPECT_EQ(same_sectors, 0U);
}

TEST_P(Keyslots, ProblemsHaveTheirOwnCodes) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  EXPECT_EQ(code_of([&] { opens(file, "x", 5); }), Code::kNotFound);
  EXPECT_EQ(code_of([&] { remove_keyslot(file, 5, true); }), Code::kNotFound);
  const auto add = [&](NewKeyslot options) {
    return code_of([&] { add_keyslot(file, key, as_byte_view("x"), options); });
  };
  EXPECT_EQ(add(cheap_keyslot(0)), Code::kExists);
  EXPECT_EQ(add(cheap_keyslot(-1)), Code::kInvalidArgument);
  EXPECT_EQ(add(cheap_keyslot(32)), Code::kInvalidArgument);
  NewKeyslot weak = cheap_keyslot();
  weak.cost.iterations = 999;
  EXPECT_EQ(add(weak), Code::kInvalidArgument);
  EXPECT_EQ(file.header().keyslots.size(), 1U);
}

TEST_P(Keyslots, FullVolumeSaysSo) {
  CreateOptions options = cheap_options(GetParam());
  HeaderFile file = make_volume(options);
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  const std::size_t room = GetParam() == Version::kLuks1 ? 8 : 4;
  while (file.header().keyslots.size() < room) {
    add_keyslot(file, key, as_byte_view("x"), cheap_keyslot());
  }
  EXPECT_EQ(code_of([&] { add_keyslot(file, key, as_byte_view("y"), cheap_keyslot()); }),
            Code::kNoFreeKeyslot);
  // Without room to write the new before wiping the old, nothing is touched.
  EXPECT_EQ(code_of([&] { change_keyslot(file, key, as_byte_view("y"), cheap_keyslot()); }),
            Code::kNoFreeKeyslot);
  EXPECT_TRUE(opens(file, kFirstPassphrase, 0));
}

TEST_P(Keyslots, TooDearIsRefusedBeforeAnyWork) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  HeaderChange change{.header = file.header()};
  change.header.keyslots.at(0).kdf.iterations = 900'000'000;
  file.commit(std::move(change));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(code_of([&] {
              static_cast<void>(
                  unlock(file, as_byte_view(kFirstPassphrase), {.kdf_limit = {.seconds_max = 1}}));
            }),
            Code::kKdfLimit);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

// Each would be tried alone; both take too long. The one that is preferred is tried first.
TEST(KeyslotsLuks2, TheLimitIsOnAllThatAreTried) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(1));
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(2));
  crypto::KdfCost cost{.type = crypto::KdfType::kPbkdf2, .hash = "sha256", .iterations = 100'000};
  cost.iterations = static_cast<std::uint32_t>(0.6 / crypto::estimate_seconds(cost, 64) * 100'000);
  HeaderChange change{.header = file.header()};
  change.header.keyslots.at(2).priority = Priority::kPrefer;
  for (const int id : {1, 2}) change.header.keyslots.at(id).kdf.iterations = cost.iterations;
  file.commit(std::move(change));
  const UnlockOptions options{.kdf_limit = {.seconds_max = 1}};
  try {
    static_cast<void>(unlock(file, as_byte_view("wrong"), options));
    FAIL() << "nothing thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kKdfLimit);
    EXPECT_TRUE(error.message().starts_with("keyslot 1 would take about ")) << error.message();
    EXPECT_NE(error.hint().find("--slot"), std::string::npos);
  }
  // What is cheap enough opens all the same.
  EXPECT_EQ(must(unlock(file, as_byte_view(kFirstPassphrase), options)).keyslot, 0);
}

TEST_P(Keyslots, OneBeyondTheDeviceDoesNotHideTheOthers) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(1));
  file.device()->resize(file.header().keyslots.at(1).area.offset_bytes + 4096);
  EXPECT_TRUE(opens(file, kFirstPassphrase));
  EXPECT_FALSE(opens(file, kSecondPassphrase));
  EXPECT_EQ(code_of([&] { opens(file, kSecondPassphrase, 1); }), Code::kUnsupported);
}

TEST_P(Keyslots, CancelStopsUnlocking) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  CancelToken cancel;
  cancel.cancel();
  EXPECT_EQ(code_of([&] {
              static_cast<void>(unlock(file, as_byte_view(kFirstPassphrase), {.cancel = &cancel}));
            }),
            Code::kInterrupted);
}

TEST_P(Keyslots, EraseLeavesNoKeyslotAndNoMaterial) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const KeyslotArea area = file.header().keyslots.at(0).area;
  Bytes before(area.size_bytes);
  file.device()->read(area.offset_bytes, before);
  erase_keyslots(file);
  Bytes after(area.size_bytes);
  file.device()->read(area.offset_bytes, after);
  EXPECT_NE(before, after);
  EXPECT_TRUE(file.header().keyslots.empty());
  EXPECT_TRUE(HeaderFile::open(file.device()).header().keyslots.empty());
}

INSTANTIATE_TEST_SUITE_P(Both, Keyslots, ::testing::Values(Version::kLuks1, Version::kLuks2),
                         testing::version_name);

TEST(KeyslotsLuks2, PriorityDecidesWhoIsTried) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  add_keyslot(file, key, as_byte_view(kFirstPassphrase), cheap_keyslot(1));
  HeaderChange change{.header = file.header()};
  change.header.keyslots.at(1).priority = Priority::kPrefer;
  file.commit(std::move(change));
  EXPECT_EQ(must_unlock(file, kFirstPassphrase).keyslot, 1);
  change = {.header = file.header()};
  change.header.keyslots.at(1).priority = Priority::kIgnore;
  change.header.keyslots.at(0).priority = Priority::kIgnore;
  file.commit(std::move(change));
  EXPECT_THROW(static_cast<void>(opens(file, kFirstPassphrase)), Error);
  EXPECT_TRUE(opens(file, kFirstPassphrase, 1));
}

TEST(KeyslotsLuks2, Argon2AndOtherAreaCiphers) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  NewKeyslot options{.keyslot = 1,
                     .cost = {.type = crypto::KdfType::kArgon2id,
                              .iterations = 4,
                              .memory_kib = 64,
                              .parallel = 2},
                     .area_encryption = "serpent-cbc-essiv:sha256",
                     .area_key_size_bytes = 32,
                     .af_hash = "sha512"};
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), options);
  options = {
      .keyslot = 2,
      .cost = {.type = crypto::KdfType::kArgon2i, .iterations = 4, .memory_kib = 32, .parallel = 1},
      .area_encryption = "twofish-xts-plain64",
      .area_key_size_bytes = 64};
  add_keyslot(file, key, as_byte_view("third"), options);
  EXPECT_TRUE(opens(file, kSecondPassphrase, 1));
  EXPECT_TRUE(opens(file, "third", 2));
  EXPECT_EQ(file.header().keyslots.at(1).af.hash, "sha512");
}

TEST(KeyslotsLuks2, UnboundKeysOpenNothingByThemselves) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const SecretBytes unbound = crypto::random_secret(32);
  HeaderChange change{.header = file.header()};
  Digest digest = change.header.digests.at(0);
  digest.segments.clear();
  digest.keyslots.clear();
  crypto::derive({.type = crypto::KdfType::kPbkdf2, .hash = "sha256", .iterations = 1000},
                 unbound.span(), digest.salt, digest.digest);
  change.header.digests[1] = digest;
  change.new_areas.push_back(
      put_keyslot(change.header, 2, 1, unbound.span(), as_byte_view("unbound"), cheap_keyslot()));
  file.commit(std::move(change));
  EXPECT_FALSE(opens(file, "unbound"));
  const Unlocked found = must(unlock(file, as_byte_view("unbound"), {.allow_unbound = true}));
  EXPECT_TRUE(equal_constant_time(found.key.span(), unbound.span()));
  EXPECT_FALSE(opens_segment(file.header(), 2));
  // It does not count as a way into the volume.
  EXPECT_EQ(code_of([&] { remove_keyslot(file, 0, false); }), Code::kLastKeyslot);
  remove_keyslot(file, 2, false);
  EXPECT_FALSE(file.header().digests.contains(1));
}

TEST(KeyslotsLuks2, TokensForgetRemovedKeyslots) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(1));
  HeaderChange change{.header = file.header()};
  change.header.tokens[0] =
      parse_token(R"({"type":"mine","keyslots":["0","1"],"x":1.50})", "test token");
  file.commit(std::move(change));
  remove_keyslot(file, 1, false);
  EXPECT_EQ(file.header().tokens.at(0).keyslots, std::set<int>{0});
  EXPECT_NE(file.header().tokens.at(0).json.find("\"x\":1.50"), std::string::npos);
}

TEST(KeyslotsLuks2, NullAreaCipherIsRefused) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  HeaderChange change{.header = file.header()};
  change.header.keyslots.at(0).area.encryption = "cipher_null-ecb";
  file.commit(std::move(change));
  EXPECT_EQ(code_of([&] { opens(file, kFirstPassphrase); }), Code::kUnsafe);
}

TEST(KeyslotsLuks1, OtherKdfsAreRefused) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks1));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  NewKeyslot options = cheap_keyslot();
  options.cost = {
      .type = crypto::KdfType::kArgon2id, .iterations = 4, .memory_kib = 64, .parallel = 1};
  EXPECT_EQ(code_of([&] { add_keyslot(file, key, as_byte_view("x"), options); }),
            Code::kInvalidArgument);
}

TEST(KeyslotsDigest, KeyOfAnotherLengthNeverFits) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  EXPECT_TRUE(find_digest(file.header(), key.key.span()));
  // PBKDF2's HMAC would not see the difference of a trailing zero.
  SecretBytes longer(key.key.size() + 1);
  std::copy(key.key.span().begin(), key.key.span().end(), longer.span().begin());
  EXPECT_FALSE(find_digest(file.header(), longer.span()));
}

// Whoever can write the header can plant a keyslot: it must not decide how ours is encrypted.
TEST(Keyslots, APlantedNullKeyslotWeakensNothing) {
  for (const char* name : {"cipher_null", "cipher_null-ecb", "null", "capi:x", "nonsense"}) {
    HeaderFile file = make_volume(cheap_options(Version::kLuks2));
    const Unlocked key = must_unlock(file, kFirstPassphrase);
    HeaderChange change{.header = file.header()};
    Keyslot planted = change.header.keyslots.at(0);
    change.header.keyslots[1] = planted;
    change.header.keyslots.at(1).area.offset_bytes =
        find_free_area(file.header(), planted.area.size_bytes).value_or(0);
    change.header.keyslots.at(0).area.encryption = name;
    change.header.digests.at(0).keyslots.insert(1);
    file.commit(std::move(change));
    EXPECT_EQ(add_keyslot(file, key, as_byte_view("new"), cheap_keyslot()), 2);
    EXPECT_EQ(file.header().keyslots.at(2).area.encryption, "aes-xts-plain64") << name;
  }
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  NewKeyslot options = cheap_keyslot();
  options.area_encryption = "cipher_null-ecb";
  options.area_key_size_bytes = 32;
  EXPECT_EQ(code_of([&] { add_keyslot(file, key, as_byte_view("new"), options); }), Code::kUnsafe);
}

// The key of a segment that is only kept as a backup opens nothing that is in use.
TEST(Keyslots, TheKeyOfABackupSegmentIsUnbound) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const SecretBytes other = crypto::random_secret(64);
  HeaderChange change{.header = file.header()};
  Digest digest = change.header.digests.at(0);
  digest.salt = crypto::random_bytes(32);
  crypto::derive({.type = crypto::KdfType::kPbkdf2, .hash = "sha256", .iterations = 1000},
                 other.span(), digest.salt, digest.digest, 1, nullptr);
  digest.keyslots.clear();
  digest.segments = {1};
  change.header.digests[1] = digest;
  change.header.segments[1] = change.header.segments.at(0);
  change.header.segments[1].flags = {"backup-final"};
  change.new_areas.push_back(
      put_keyslot(change.header, 1, 1, other.span(), as_byte_view("backup"), cheap_keyslot()));
  file.commit(std::move(change));
  EXPECT_FALSE(opens_segment(file.header(), 1));
  EXPECT_EQ(unlock(file, as_byte_view("backup"), {}).has_value(), false);
  EXPECT_TRUE(unlock(file, as_byte_view("backup"), {.allow_unbound = true}));
  EXPECT_EQ(code_of([&] { remove_keyslot(file, 0, false); }), Code::kLastKeyslot);
}

TEST(Keyslots, OneThatCannotBeTriedDoesNotHideTheOthers) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  NewKeyslot argon2 = cheap_keyslot(1);
  argon2.cost = {
      .type = crypto::KdfType::kArgon2id, .iterations = 4, .memory_kib = 32, .parallel = 1};
  add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view("x"), argon2);
  HeaderChange change{.header = file.header()};
  std::swap(change.header.keyslots.at(0), change.header.keyslots.at(1));
  change.header.keyslots.at(0).kdf.salt.resize(3);  // too short for Argon2
  file.commit(std::move(change));
  EXPECT_EQ(must_unlock(file, kFirstPassphrase).keyslot, 1);
}

TEST(Keyslots, OfTwoThatOpenTheLowerWins) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  NewKeyslot dear = cheap_keyslot(1);
  dear.cost.iterations = 200'000;
  add_keyslot(file, key, as_byte_view("same"), dear);
  add_keyslot(file, key, as_byte_view("same"), cheap_keyslot(2));
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(must(unlock(file, as_byte_view("same"), {.threads = 3})).keyslot, 1);
  }
}

TEST(Keyslots, ALeftoverOfAnOldProgramDoesNotBlockALuks1Keyslot) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks1));
  HeaderChange change{.header = file.header()};
  change.header.luks1_slots.at(1).inactive_iterations = 7;
  change.header.luks1_slots.at(1).inactive_salt.fill(std::byte{9});
  file.commit(std::move(change));
  EXPECT_EQ(
      add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view("x"), cheap_keyslot()),
      1);
  EXPECT_TRUE(opens(file, "x"));
}

TEST(Keyslots, ARequirementForbidsEveryChange) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  HeaderChange require{.header = file.header()};
  require.header.config.requirements = {"something-new"};
  file.commit(std::move(require));
  HeaderChange label{.header = file.header()};
  label.header.label = "x";
  EXPECT_EQ(code_of([&] { file.commit(label); }), Code::kUnsupported);
  EXPECT_EQ(code_of([&] { add_keyslot(file, key, as_byte_view("x"), cheap_keyslot()); }),
            Code::kUnsupported);
  EXPECT_EQ(code_of([&] { erase_keyslots(file); }), Code::kUnsupported);
  file.commit({.header = file.header()});  // a repair
}

}  // namespace
}  // namespace lukskeep::luks
