#include "image/volume_type.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kGiB = limits::kGiB;

VolumeType luks_type(std::string provider = "luks", std::uint32_t key_bits = 256) {
  return {.name = "t",
          .provider = std::move(provider),
          .cipher = "aes-xts-plain64",
          .key_bits = key_bits,
          .control_location = "front-end"};
}

luks::Header header_of(luks::Version version, const std::string& cipher, std::uint32_t key_bytes) {
  luks::Header header;
  header.version = version;
  header.segments[0].encryption = cipher;
  header.luks1_key_size_bytes = version == luks::Version::kLuks1 ? key_bytes : 0;
  header.keyslots[0].key_size_bytes = key_bytes;
  return header;
}

ImageFacts plain(std::string format, std::uint64_t bytes) {
  return {.format = std::move(format), .size_bytes = bytes, .virtual_size_bytes = bytes};
}

ImageFacts encrypted(const luks::Header& header, std::uint64_t file_bytes = kGiB) {
  return {.format = header.version == luks::Version::kLuks1 ? "luks1" : "luks2",
          .encrypted = true,
          .header = &header,
          .size_bytes = file_bytes,
          .virtual_size_bytes = file_bytes - 2 * limits::kMiB};
}

std::vector<std::string> refusals(const Verdict& verdict) {
  std::vector<std::string> names;
  for (const Reason& reason : verdict.reasons) {
    EXPECT_FALSE(reason.what.empty() || reason.remedy.empty()) << reason.name;
    if (reason.refuses) names.emplace_back(reason.name);
  }
  EXPECT_EQ(verdict.allowed(), names.empty());
  return names;
}

TEST(VolumeType, IsReadAsTheClientAndTheApiWriteIt) {
  const VolumeType client = parse_volume_type(
      R"({"name":"LUKS","id":"x","encryption":{"provider":"luks","cipher":"aes-xts-plain64",
          "key_size":512,"control_location":"front-end"},
          "properties":{"provisioning:min_vol_size":"2","provisioning:max_vol_size":"10"}})",
      "'t'");
  EXPECT_EQ(client.name, "LUKS");
  EXPECT_EQ(client.provider, "luks");
  EXPECT_EQ(client.key_bits, 512U);
  EXPECT_EQ(client.size_gib_min, 2U);
  EXPECT_EQ(client.size_gib_max, 10U);
  const VolumeType api = parse_volume_type(
      R"({"volume_type":{"name":"a","extra_specs":{}},"encryption":{"provider":
          "nova.volume.encryptors.luks.LuksEncryptor","key_size":"256","cipher":null}})",
      "'t'");
  EXPECT_EQ(api.provider, "luks");
  EXPECT_EQ(api.key_bits, 256U);
  EXPECT_TRUE(parse_volume_type(R"({"provider":"luks2"})", "'t'").encrypted());
  EXPECT_FALSE(parse_volume_type(R"({"name":"a","encryption":null})", "'t'").encrypted());
  EXPECT_FALSE(parse_volume_type(R"({"name":"a","encryption":{}})", "'t'").encrypted());
}

TEST(VolumeType, RefusesWhatIsNone) {
  for (const char* text :
       {"[]", "{}", R"({"id":"x"})", R"({"name":1})", R"({"name":"a","encryption":[]})",
        R"({"provider":"luks","key_size":-1})", R"({"provider":"luks","key_size":"12x"})",
        R"({"provider":"luks","key_size":99999999})", R"({"volume_type":"x"})",
        R"({"name":"a","extra_specs":{"provisioning:max_vol_size":"99999999999999"}})"}) {
    try {
      static_cast<void>(parse_volume_type(text, "'t'"));
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument) << text;
      EXPECT_THAT(error.message(), HasSubstr("'t'"));
    }
  }
}

struct Case {
  const char* what;
  VolumeType type;
  ImageFacts facts;
  std::vector<std::string> brick;
  std::vector<std::string> rbd;
};

VolumeType changed(VolumeType type, void (*change)(VolumeType&)) {
  change(type);
  return type;
}
ImageFacts changed(ImageFacts facts, void (*change)(ImageFacts&)) {
  change(facts);
  return facts;
}

class Verdicts : public testing::Test {
 protected:
  const luks::Header luks1_ = header_of(luks::Version::kLuks1, "aes-xts-plain64", 64);
  const luks::Header luks2_ = header_of(luks::Version::kLuks2, "aes-xts-plain64", 64);
  const luks::Header camellia_ = header_of(luks::Version::kLuks1, "camellia-xts-plain64", 64);
  const luks::Header aes192_ = header_of(luks::Version::kLuks1, "aes-cbc-essiv:sha256", 24);

  static void check(const std::vector<Case>& cases) {
    for (const Case& row : cases) {
      EXPECT_EQ(refusals(judge_volume(row.type, row.facts, BackEnd::kBrick, {})), row.brick)
          << row.what;
      EXPECT_EQ(refusals(judge_volume(row.type, row.facts, BackEnd::kRbd, {})), row.rbd)
          << row.what;
    }
  }
};

TEST_F(Verdicts, OnImagesThatAreEncrypted) {
  const VolumeType none{.name = "none"};
  check({
      {"a type without encryption",
       none,
       encrypted(luks1_),
       {"type-not-encrypted"},
       {"type-not-encrypted"}},
      {"luks1", luks_type(), encrypted(luks1_), {}, {}},
      {"luks2 where QEMU opens",
       luks_type(),
       encrypted(luks2_),
       {"luks2-in-luks1-type"},
       {"luks2-in-luks1-type"}},
      {"luks2", luks_type("luks2"), encrypted(luks2_), {}, {"type-provider"}},
      {"luks1 opened by cryptsetup", luks_type("luks2"), encrypted(luks1_), {}, {"type-provider"}},
      {"plain",
       luks_type("plain"),
       encrypted(luks1_),
       {"type-provider"},
       {"type-provider", "type-provider"}},
      {"in qcow2",
       luks_type(),
       changed(encrypted(luks1_), [](ImageFacts& f) { f.format = "qcow2", f.header = nullptr; }),
       {"luks-in-qcow2"},
       {"luks-in-qcow2"}},
      {"a cipher that QEMU lacks",
       luks_type(),
       encrypted(camellia_),
       {"cipher-not-in-qemu"},
       {"cipher-not-in-qemu"}},
      {"a key that ends QEMU",
       luks_type(),
       encrypted(aes192_),
       {"cipher-not-in-qemu"},
       {"cipher-not-in-qemu"}},
      {"a cipher that cryptsetup has",
       luks_type("luks2"),
       encrypted(camellia_),
       {},
       {"type-provider", "cipher-not-in-qemu"}},
      {"a passphrase",
       luks_type(),
       changed(encrypted(luks1_),
               [](ImageFacts& f) { f.key_type = keys::SecretType::kPassphrase; }),
       {"key-type"},
       {"key-type"}},
      {"a wrong key",
       luks_type(),
       changed(encrypted(luks1_),
               [](ImageFacts& f) {
                 f.key_type = keys::SecretType::kSymmetric;
                 f.hex_opens = false;
               }),
       {"key-does-not-open"},
       {"key-does-not-open"}},
      {"qcow2 inside",
       luks_type(),
       changed(encrypted(luks1_), [](ImageFacts& f) { f.inner_format = "qcow2"; }),
       {"inner-format"},
       {"inner-format"}},
      {"a disk inside",
       luks_type(),
       changed(encrypted(luks1_), [](ImageFacts& f) { f.inner_format = "gpt"; }),
       {},
       {}},
      {"nobody decrypts",
       changed(luks_type(), [](VolumeType& t) { t.control_location = "back-end"; }),
       encrypted(luks1_),
       {"type-control-location"},
       {"type-control-location"}},
      {"an unknown provider",
       luks_type("rot13"),
       encrypted(luks1_),
       {"type-provider"},
       {"type-provider"}},
  });
}

TEST_F(Verdicts, OnImagesThatAreNot) {
  const VolumeType none{.name = "none"};
  check({
      {"raw", none, plain("raw", 1), {}, {}},
      {"qcow2", luks_type(), plain("qcow2", kGiB), {}, {}},
      {"qed", none, plain("qed", 1), {"image-format"}, {"image-format"}},
      {"compressed", luks_type(), plain("gzip", 1), {"image-format"}, {"image-format"}},
      {"key size 512: qemu-img knows no aes-512",
       luks_type("luks", 512),
       plain("raw", 1),
       {},
       {"type-key-size"}},
      {"key size 128: cryptsetup knows no aes-64",
       luks_type("luks", 128),
       plain("raw", 1),
       {"type-key-size"},
       {}},
      {"key size 192", luks_type("luks", 192), plain("raw", 1), {"type-key-size"}, {}},
      {"no key size",
       changed(luks_type(), [](VolumeType& t) { t.key_bits.reset(); }),
       plain("raw", 1),
       {"type-incomplete"},
       {"type-incomplete"}},
      {"no cipher",
       changed(luks_type(), [](VolumeType& t) { t.cipher.clear(); }),
       plain("raw", 1),
       {"type-incomplete"},
       {"type-incomplete"}},
      {"cipher_null",
       changed(luks_type(), [](VolumeType& t) { t.cipher = "cipher_null-ecb"; }),
       plain("raw", 1),
       {"type-cipher"},
       {"type-cipher"}},
      {"nonsense",
       changed(luks_type(), [](VolumeType& t) { t.cipher = "rot13"; }),
       plain("raw", 1),
       {"type-cipher"},
       {"type-cipher"}},
      {"luks2", luks_type("luks2"), plain("raw", 1), {}, {"type-provider"}},
  });
}

TEST_F(Verdicts, SayWhatTheKeySizeBecomes) {
  const ImageFacts image = plain("raw", 1);
  EXPECT_EQ(judge_volume(luks_type(), image, BackEnd::kBrick, {}).key_bits, 256U);
  EXPECT_EQ(judge_volume(luks_type(), image, BackEnd::kRbd, {}).key_bits, 512U);
  // An image that Cinder made on RBD fits the type there, and not with cryptsetup.
  EXPECT_THAT(judge_volume(luks_type(), encrypted(luks1_), BackEnd::kRbd, {}).reasons, IsEmpty());
  EXPECT_EQ(judge_volume(luks_type(), encrypted(luks1_), BackEnd::kBrick, {}).reasons.at(0).name,
            "cipher-differs");
}

TEST_F(Verdicts, CountTheHeader) {
  const auto gib = [](const VolumeType& type, const ImageFacts& facts, BackEnd back_end) {
    return judge_volume(type, facts, back_end, {}).size_gib_min;
  };
  const VolumeType none{.name = "none"};
  EXPECT_EQ(gib(none, plain("raw", 0), BackEnd::kBrick), 1U);
  EXPECT_EQ(gib(none, plain("raw", kGiB), BackEnd::kBrick), 1U);
  EXPECT_EQ(gib(none, plain("raw", kGiB + 1), BackEnd::kBrick), 2U);
  // The headers: of 2 MiB and 16 MiB by cryptsetup, of 2068480 bytes by QEMU (aes-256-xts).
  EXPECT_EQ(gib(luks_type(), plain("raw", kGiB), BackEnd::kBrick), 2U);
  EXPECT_EQ(gib(luks_type(), plain("raw", kGiB - 2097152), BackEnd::kBrick), 1U);
  EXPECT_EQ(gib(luks_type("luks2"), plain("raw", kGiB - 16777216), BackEnd::kBrick), 1U);
  EXPECT_EQ(gib(luks_type("luks2"), plain("raw", kGiB - 16777215), BackEnd::kBrick), 2U);
  EXPECT_EQ(gib(luks_type(), plain("raw", kGiB - 2068480), BackEnd::kRbd), 1U);
  EXPECT_EQ(gib(luks_type(), plain("raw", kGiB - 2068479), BackEnd::kRbd), 2U);
  // What is encrypted already is copied as it is.
  EXPECT_EQ(gib(luks_type(), encrypted(luks1_, kGiB), BackEnd::kRbd), 1U);
  EXPECT_EQ(gib(luks_type(), encrypted(luks1_, kGiB + 512), BackEnd::kRbd), 2U);
  EXPECT_GT(gib(luks_type(), plain("raw", UINT64_MAX), BackEnd::kRbd), 1U);
}

TEST_F(Verdicts, HoldTheSizeThatIsAskedFor) {
  VolumeType type = luks_type();
  type.size_gib_min = 2;
  type.size_gib_max = 4;
  const auto names = [&](std::uint64_t bytes, std::uint64_t size_gib) {
    return refusals(judge_volume(type, plain("raw", bytes), BackEnd::kBrick, size_gib));
  };
  EXPECT_THAT(names(1, 2), IsEmpty());
  EXPECT_THAT(names(1, 1), ElementsAre("type-size"));
  EXPECT_THAT(names(1, 5), ElementsAre("type-size"));
  EXPECT_THAT(names(3 * kGiB, 3), ElementsAre("volume-too-small"));
  EXPECT_EQ(judge_volume(type, plain("raw", 1), BackEnd::kBrick, {}).size_gib_min, 2U);
  EXPECT_THAT(refusals(judge_volume(type, plain("raw", 4 * kGiB), BackEnd::kBrick, {})),
              ElementsAre("type-size"));
}

}  // namespace
}  // namespace lukskeep::image
