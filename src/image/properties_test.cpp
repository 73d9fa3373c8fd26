#include "image/properties.h"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "image/image_test_tools.h"

namespace lukskeep::image {
namespace {

using namespace testing;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr const char* kId = "6ea6b0a8-de50-45b8-90b7-9470c4dd201a";

Report look(const Image& image) {
  Inspector inspector;
  inspector.feed(image.bytes);
  return inspector.finish();
}

std::set<std::string> names(const std::vector<PropertyProblem>& problems, bool errors_only = true) {
  std::set<std::string> found;
  for (const PropertyProblem& problem : problems) {
    if (problem.error || !errors_only) found.insert(problem.name);
  }
  return found;
}

Description described(luks::Version version) {
  Description description = describe(look(luks(version)));
  description.key_id = kId;
  return description;
}

TEST(Properties, NewestSetOfAVolume) {
  const Properties set = write_properties(described(luks::Version::kLuks1), {});
  EXPECT_THAT(set, UnorderedElementsAre(
                       Pair("disk_format", "luks"), Pair("container_format", "bare"),
                       Pair("os_encrypt_format", "LUKSv1"), Pair("os_encrypt_key_id", kId),
                       Pair("os_decrypt_size", std::to_string(luks::testing::kPayloadBytes))));
  EXPECT_EQ(write_properties(described(luks::Version::kLuks2), {}).at("os_encrypt_format"),
            "LUKSv2");
}

TEST(Properties, CinderAndNova) {
  Description description = described(luks::Version::kLuks2);
  description.delete_key = true;
  EXPECT_THAT(
      write_properties(description, {.style = Style::kCinder, .disk_formats = {}}),
      UnorderedElementsAre(Pair("disk_format", "raw"), Pair("container_format", "bare"),
                           Pair("cinder_encryption_key_id", kId),
                           Pair("cinder_encryption_key_deletion_policy", "on_image_deletion")));
  EXPECT_THAT(write_properties(description, {.style = Style::kNova, .disk_formats = {}}),
              UnorderedElementsAre(Pair("disk_format", "raw"), Pair("container_format", "bare"),
                                   Pair("hw_ephemeral_encryption", "True"),
                                   Pair("hw_ephemeral_encryption_format", "luksv2"),
                                   Pair("hw_ephemeral_encryption_secret_uuid", kId)));
}

TEST(Properties, FallsBackWhereTheServerDoesNotTakeLuks) {
  const Description description = described(luks::Version::kLuks1);
  EXPECT_EQ(write_properties(description, {.disk_formats = {"raw", "qcow2"}}).at("disk_format"),
            "raw");
  EXPECT_EQ(write_properties(description, {.disk_formats = {"raw", "luks"}}).at("disk_format"),
            "luks");
}

TEST(Properties, WhatAStyleCannotSayIsRefused) {
  Description qcow2;
  qcow2.disk_format = "qcow2";
  qcow2.container_format = "bare";
  qcow2.encryption = Encryption::kLuks1;
  EXPECT_THROW(write_properties(qcow2, {.style = Style::kCinder, .disk_formats = {}}), Error);
  EXPECT_EQ(write_properties(qcow2, {}).at("disk_format"), "qcow2");
  Description compressed = described(luks::Version::kLuks1);
  compressed.container_format = "compressed";
  EXPECT_THROW(write_properties(compressed, {.style = Style::kCinder, .disk_formats = {}}), Error);
  EXPECT_THROW(write_properties(compressed, {.style = Style::kNova, .disk_formats = {}}), Error);
  EXPECT_EQ(write_properties(compressed, {}).at("os_decrypt_container_format"), "bare");
  EXPECT_THROW(describe(look(gpt())), Error);
}

struct ReadCase {
  const char* what;
  Properties set;
  std::set<std::string> problems;
  Description expected;
};

const ReadCase kReadCases[] = {
    {"spec",
     {{"disk_format", "luks"},
      {"container_format", "bare"},
      {"os_encrypt_format", "LUKSv1"},
      {"os_encrypt_key_id", kId},
      {"os_encrypt_key_deletion_policy", "True"},
      {"os_decrypt_size", "1048576"}},
     {},
     {.disk_format = "luks",
      .container_format = "bare",
      .encryption = Encryption::kLuks1,
      .key_id = kId,
      .delete_key = true,
      .decrypt_container_format = {},
      .decrypt_size_bytes = 1048576,
      .styles = {Style::kSpec}}},
    {"draft of 2024, and the upper case of its sample",
     {{"disk_format", "LUKS"},
      {"container_format", "bare"},
      {"os_encrypt_format", "LUKS"},
      {"os_encrypt_cipher", "AES256"},
      {"os_decrypt_format", "raw"},
      {"os_encrypt_key_id", kId},
      {"os_encrypt_key_deletion_policy", "on_image_deletion"}},
     {},
     {.disk_format = "luks",
      .container_format = "bare",
      .encryption = Encryption::kLuks,
      .key_id = kId,
      .delete_key = true,
      .decrypt_container_format = {},
      .decrypt_size_bytes = std::nullopt,
      .styles = {Style::kSpec}}},
    {"Cinder's pair",
     {{"disk_format", "raw"},
      {"container_format", "bare"},
      {"cinder_encryption_key_id", kId},
      {"cinder_encryption_key_deletion_policy", "do_not_delete"}},
     {},
     {.disk_format = "raw",
      .container_format = "bare",
      .encryption = Encryption::kLuks,
      .key_id = kId,
      .delete_key = false,
      .decrypt_container_format = {},
      .decrypt_size_bytes = std::nullopt,
      .styles = {Style::kCinder}}},
    {"Nova's set",
     {{"hw_ephemeral_encryption", "true"},
      {"hw_ephemeral_encryption_format", "luks"},
      {"hw_ephemeral_encryption_secret_uuid", kId}},
     {},
     {.disk_format = {},
      .container_format = {},
      .encryption = Encryption::kLuks1,
      .key_id = kId,
      .delete_key = std::nullopt,
      .decrypt_container_format = {},
      .decrypt_size_bytes = std::nullopt,
      .styles = {Style::kNova}}},
    {"two generations that agree",
     {{"os_encrypt_format", "LUKSv2"},
      {"os_encrypt_key_id", kId},
      {"cinder_encryption_key_id", kId}},
     {},
     {.disk_format = {},
      .container_format = {},
      .encryption = Encryption::kLuks2,
      .key_id = kId,
      .delete_key = std::nullopt,
      .decrypt_container_format = {},
      .decrypt_size_bytes = std::nullopt,
      .styles = {Style::kSpec, Style::kCinder}}},
    {"nothing about encryption", {{"os_distro", "debian"}}, {}, {}},
};

TEST(Properties, ReadsEveryGeneration) {
  for (const ReadCase& test : kReadCases) {
    SCOPED_TRACE(test.what);
    const ReadProperties read = read_properties(test.set);
    EXPECT_EQ(names(read.problems), test.problems);
    const Description& got = read.description;
    EXPECT_EQ(got.disk_format, test.expected.disk_format);
    EXPECT_EQ(got.container_format, test.expected.container_format);
    EXPECT_EQ(got.encryption, test.expected.encryption);
    EXPECT_EQ(got.key_id, test.expected.key_id);
    EXPECT_EQ(got.delete_key, test.expected.delete_key);
    EXPECT_EQ(got.decrypt_size_bytes, test.expected.decrypt_size_bytes);
    EXPECT_EQ(got.styles, test.expected.styles);
  }
}

struct BadCase {
  Properties set;
  std::set<std::string> problems;
};

const BadCase kBadCases[] = {
    {{{"os_encrypt_key_id", kId}, {"cinder_encryption_key_id", "other"}}, {"key-id-conflict"}},
    {{{"os_encrypt_key_id", "two words"}}, {"bad-value"}},
    {{{"os_encrypt_key_id", std::string(300, 'a')}}, {"bad-value"}},
    {{{"os_encrypt_format", "GPG"}}, {"bad-value"}},
    {{{"os_encrypt_format", "LUKSv1"},
      {"hw_ephemeral_encryption", "1"},
      {"hw_ephemeral_encryption_format", "luksv2"}},
     {"encryption-conflict"}},
    {{{"hw_ephemeral_encryption_format", "luks"}}, {"nova-off"}},
    {{{"hw_ephemeral_encryption", "perhaps"}}, {"bad-value"}},
    {{{"os_encrypt_key_deletion_policy", "sometimes"}}, {"bad-value"}},
    {{{"os_encrypt_key_deletion_policy", "True"},
      {"cinder_encryption_key_deletion_policy", "do_not_delete"}},
     {"deletion-policy-conflict"}},
    {{{"os_decrypt_size", "12 GB"}}, {"bad-value"}},
    {{{"os_decrypt_size", "-1"}}, {"bad-value"}},
    {{{"os_decrypt_size", "99999999999999999999"}}, {"bad-value"}},
    {{{"container_format", "luks"}}, {"old-container-format"}},
    {{{"os_decrypt_format", "qcow2"}}, {"dropped-property"}},
};

TEST(Properties, NamesWhatIsWrongInASet) {
  for (const BadCase& test : kBadCases) {
    SCOPED_TRACE(test.set.begin()->first + "=" + test.set.begin()->second);
    EXPECT_EQ(names(read_properties(test.set).problems), test.problems);
  }
}

// What two members contradict each other about is not deleted with the image.
TEST(Properties, KeyStaysWhereThePolicyIsContradictory) {
  const auto read = read_properties({{"os_encrypt_key_deletion_policy", "True"},
                                     {"cinder_encryption_key_deletion_policy", "do_not_delete"}});
  EXPECT_EQ(read.description.delete_key, false);
}

TEST(Properties, EveryStyleIsReadBackAsWritten) {
  for (const Style style : kStyles) {
    Description description = described(luks::Version::kLuks1);
    description.delete_key = true;
    const auto read =
        read_properties(write_properties(description, {.style = style, .disk_formats = {}}));
    EXPECT_TRUE(read.problems.empty());
    EXPECT_EQ(read.description.key_id, kId);
    EXPECT_EQ(read.description.styles, std::vector{style});
    EXPECT_FALSE(has_error(check_properties(read.description, look(luks1())))) << style_name(style);
  }
}

struct FileCase {
  Properties change;  // an empty value removes the member
  std::set<std::string> problems;
};

const FileCase kFileCases[] = {
    {{}, {}},
    {{{"disk_format", "raw"}}, {}},
    {{{"disk_format", "qcow2"}}, {"disk-format-wrong"}},
    {{{"disk_format", ""}}, {"disk-format-missing"}},
    {{{"container_format", ""}}, {"container-format-missing"}},
    {{{"container_format", "ovf"}}, {"container-format-wrong"}},
    {{{"container_format", "compressed"}}, {"not-compressed", "decrypt-container-format-missing"}},
    {{{"os_encrypt_format", "LUKSv2"}}, {"encrypt-format-wrong"}},
    {{{"os_encrypt_format", "LUKS"}}, {}},
    {{{"os_encrypt_key_id", ""}}, {"key-id-missing"}},
    {{{"os_decrypt_size", "65535"}}, {"decrypt-size-wrong"}},
    {{{"os_decrypt_size", ""}}, {"decrypt-size-missing"}},
};

TEST(Properties, ComparesASetWithTheFile) {
  for (const FileCase& test : kFileCases) {
    Properties set = write_properties(described(luks::Version::kLuks1), {});
    for (const auto& [name, value] : test.change) {
      SCOPED_TRACE(name);
      if (value.empty()) {
        set.erase(name);
      } else {
        set[name] = value;
      }
    }
    EXPECT_EQ(names(check_properties(read_properties(set).description, look(luks1()))),
              test.problems);
  }
}

TEST(Properties, PlainFilesAndSetsThatSayOtherwise) {
  const Properties plain = {{"disk_format", "qcow2"}, {"container_format", "bare"}};
  EXPECT_EQ(names(check_properties(read_properties(plain).description, look(qcow2()))),
            std::set<std::string>());
  EXPECT_EQ(names(check_properties(read_properties(plain).description, look(luks1()))),
            (std::set<std::string>{"encryption-missing", "disk-format-wrong", "key-id-missing"}));
  const Properties raw = {{"disk_format", "raw"}, {"container_format", "bare"}};
  EXPECT_EQ(names(check_properties(read_properties(raw).description, look(gpt()))),
            std::set<std::string>());
  const Properties luks = write_properties(described(luks::Version::kLuks1), {});
  EXPECT_EQ(names(check_properties(read_properties(luks).description, look(gpt()))),
            (std::set<std::string>{"not-encrypted", "disk-format-wrong"}));
  Image evil = qcow2();
  evil.be64(8, 512).be32(16, 11).put(512, "/etc/passwd");
  EXPECT_TRUE(
      names(check_properties(read_properties(plain).description, look(evil))).contains("unsafe"));
}

TEST(Properties, CompressedImageIsJudgedByItsWrapper) {
  Description description = described(luks::Version::kLuks1);
  description.container_format = "compressed";
  const auto read = read_properties(write_properties(description, {}));
  const Image gzip =
      Image().put(0, std::string_view("\x1f\x8b\x08\0\0\0\0\0\0\3", 10)).put(600, "x");
  EXPECT_EQ(names(check_properties(read.description, look(gzip))), std::set<std::string>());
}

TEST(Properties, ParsesWhatGlanceAndItsClientPrint) {
  const Properties set = parse_properties(
      R"({"id": "x", "disk_format": "luks", "size": 10, "tags": [], "min_disk": null,
          "hw_ephemeral_encryption": true,
          "properties": {"os_encrypt_key_id": "k", "os_hidden": false}})",
      "test");
  EXPECT_THAT(set,
              UnorderedElementsAre(Pair("id", "x"), Pair("disk_format", "luks"), Pair("size", "10"),
                                   Pair("hw_ephemeral_encryption", "True"),
                                   Pair("os_encrypt_key_id", "k"), Pair("os_hidden", "False")));
  EXPECT_THROW(parse_properties("[]", "test"), Error);
  EXPECT_THROW(parse_properties("{", "test"), Error);
  EXPECT_THROW(parse_properties(R"({"a":"1","a":"2"})", "test"), Error);
  Json many = Json::object();
  for (std::size_t i = 0; i <= limits::kImagePropertiesMax; ++i) many[std::to_string(i)] = "v";
  EXPECT_THROW(parse_properties(many.dump(), "test"), Error);
}

TEST(Properties, OptionsAreQuotedForAShell) {
  EXPECT_EQ(openstack_options({{"container_format", "bare"},
                               {"disk_format", "luks"},
                               {"os_encrypt_key_id", "k"},
                               {"x", "a b'; rm $(c)"}}),
            "--disk-format luks --container-format bare --property os_encrypt_key_id=k "
            "--property 'x=a b'\\''; rm $(c)'");
}

TEST(Properties, StyleNames) {
  for (const Style style : kStyles) EXPECT_EQ(parse_style(style_name(style)), style);
  EXPECT_THROW(parse_style("glance"), Error);
  EXPECT_TRUE(is_encryption_property("os_decrypt_size"));
  EXPECT_FALSE(is_encryption_property("disk_format"));
}

}  // namespace
}  // namespace lukskeep::image
