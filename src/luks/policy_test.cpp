#include "luks/policy.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/hash.h"
#include "luks/codec_test_models.h"
#include "luks/header_backup.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using testing::cheap_options;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::make_volume;

Policy untrusted() { return load_policy("untrusted"); }

// "rule object" of each violation.
std::vector<std::string> broken(const std::vector<Violation>& violations) {
  std::vector<std::string> list;
  list.reserve(violations.size());
  for (const Violation& violation : violations) {
    list.push_back(violation.rule + " " + violation.object);
    EXPECT_TRUE(violation.message.starts_with(violation.object + ": ")) << violation.message;
  }
  return list;
}

// A LUKS2 header that `untrusted` allows.
Header plain_header() {
  Header header = decode_luks2(testing::read_header_image("default.luks2"), 0, "default");
  EXPECT_THAT(broken(judge(untrusted(), header)), IsEmpty());
  return header;
}

// ---- reading -----------------------------------------------------------------------------------

struct BadFile {
  const char* name;
  std::string text;
  const char* message;
};

const std::vector<BadFile> kBadFiles = {
    {"NoToml", "a = \n", "policy 'p', line 1: "},
    {"NoUtf8", "description = \"\xff\"\n", "line 1: only comments may have"},
    {"Surrogate", "description = \"\\uD800\"\n", "policy 'p', line 1: "},
    {"Twice", "versions = [1]\nversions = [2]\n", "policy 'p', line 2: "},
    {"UnknownMember", "versions = [1]\ncipher = 1\n",
     "line 2: 'cipher' is not a member that a policy knows"},
    {"UnknownInSection", "[pin]\n\nfingerprint = []\n", "line 3: 'pin.fingerprint' is not"},
    {"UnknownKdf", "[kdf.scrypt]\n", "line 1: 'kdf.scrypt' is not"},
    {"MemberOfTheOtherKdf", "[kdf.pbkdf2]\nmemory_kib = {max = 1}\n",
     "line 2: 'kdf.pbkdf2.memory_kib' is not"},
    {"UnknownBound", "segments = {maximum = 1}\n", "line 1: 'segments.maximum' is not"},
    {"NumberForArray", "versions = 1\n", "line 1: 'versions' is not an array"},
    {"TextForNumber", "versions = [\n 1,\n \"2\"]\n", "line 3: 'versions' is not a whole number"},
    {"FloatForNumber", "versions = [1.0]\n", "'versions' is not a whole number"},
    {"NumberForText", "requirements = [1]\n", "'requirements' holds what is no string"},
    {"NumberForTable", "kdf = 1\n", "'kdf' is not a table"},
    {"NumberForBounds", "segments = 1\n", "'segments' is not a table of min and max"},
    {"TextForFlag", "integrity = \"no\"\n", "'integrity' is neither true nor false"},
    {"NumberForDescription", "description = 1\n", "'description' is not a string"},
    {"UnknownVersion", "versions = [3]\n", "'versions' cannot be 3"},
    {"OddSector", "sector_sizes = [513]\n", "'sector_sizes' cannot be 513"},
    {"Negative", "segments = {max = -1}\n", "'segments.max' is -1, not from 0"},
    {"MinAboveMax", "segments = {min = 2, max = 1}\n", "'segments' has a min above its max"},
    {"UnknownCipher", "[ciphers]\n\"aes-xts\" = []\n", "line 2: 'ciphers.aes-xts' is no cipher"},
    {"Implementation", "[ciphers]\n\"capi:xts(aes)-plain64\" = []\n", "names an implementation"},
    {"CipherTwice", "[ciphers]\n\"aes-cbc\" = []\naes-cbc-plain = []\n",
     "names 'aes-cbc-plain' a second time"},
    {"KeySize", "[ciphers]\naes-xts-plain64 = [128]\n", "cannot be 128"},
    {"UnknownHash", "[af]\nhashes = [\"sha265\"]\n", "names no known hash with 'sha265'"},
    {"ShortFingerprint", "[pin]\nfingerprints = [\"00ff\"]\n", "not 64 to 64 hex digits"},
    {"NoHex", "[pin]\nfingerprints = [\"" + std::string(64, 'g') + "\"]\n", "hex digits"},
    {"ShortDigest", "[pin]\nvolume_key_digests = [\"" + std::string(38, '0') + "\"]\n",
     "not 40 to 128 hex digits"},
    {"UnknownBase", "extends = \"trusted\"\n", "no built-in policy with 'trusted': there is untr"},
    {"ManyLines", "description = \"\"\"\n\"\"\"\n", "line 1: strings of many lines"},
    {"DeepKey", "versions = [1]\na" + std::string(17, '.') + " = 1\n", "line 2: more than 16 dots"},
    {"DeepTable",
     "[\"a\"" +
         [] {
           std::string text;
           for (int i = 0; i < 20'000; ++i) text += ".a";
           return text;
         }() +
         "]\n",
     "line 1: more than 16 dots"},
    {"NoAscii", "versions = [1] # ö\nversions\u00a0= [1]\n", "line 2: only comments may have"},
    {"NoAsciiInAString", "description = \"ö\"\n", "line 1: only comments may have"},
    {"FormFeed", "versions =\f[1]\n", "line 1: only comments may have"},
    {"NamelessTable", "versions = [1]\n\t[[ .a]]\n", "line 2: a table wants a name"},
    {"NamelessArray", "[[\n", "line 1: a table wants a name"},
    {"NamelessDeep", "versions = [1]\n[[[a]]]\n", "line 2: a table wants a name"},
    {"DeepValue", "versions = " + std::string(30'000, '[') + "\n", "policy 'p', line 1: "},
    {"TooLarge", std::string(limits::kPolicyBytesMax + 1, '\n'), "more than 65536 bytes"},
    {"ControlCharacters", "\"\x1b[31m\\u001b\" = 1\n", "policy 'p', line 1: "},
};

class PolicyFile : public ::testing::TestWithParam<BadFile> {};

TEST_P(PolicyFile, IsRefusedWithLineAndMember) {
  try {
    parse_policy(GetParam().text, "p");
    FAIL() << "was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_THAT(error.message(), HasSubstr(GetParam().message));
    EXPECT_EQ(error.message().find('\x1b'), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(Bad, PolicyFile, ::testing::ValuesIn(kBadFiles),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(Policy, OfAnEmptyFileAllowsEverything) {
  const Policy empty = parse_policy("", "empty");
  EXPECT_EQ(empty.name, "empty");
  EXPECT_EQ(to_toml(empty), "");
  for (const Header& header :
       {testing::sample_luks1(), testing::sample_luks2(), testing::sample_reencryption()}) {
    EXPECT_THAT(judge(empty, header), IsEmpty());
  }
}

TEST(Policy, IsWrittenAndReadToItself) {
  const std::string pin(64, 'A');
  const std::vector<std::string> texts = {
      std::string(builtin_policy_text("untrusted")),
      "kdf = {}\nciphers = {}\nversions = []\n",
      "[kdf.pbkdf2]\n[kdf.argon2i]\nparallel = {min = 3}\n",
      "extends = \"untrusted\"\nflags = [\"a\\\"\\u007f\\u0000\\u00e9\\u20AC\\U0001D11E\\\\\", "
      "\"b\"]\n[pin]\n"
      "fingerprints = [\"" +
          pin + "\"]\nvolume_key_digests = [\"" + pin + "\"]\n",
      R"(description = 'x # . . .' # a comment with ö . . . . . . . . . . . . . . . . . . dots
integrity = false
keyslot_ciphers = { 'aes' = [] }
keyslots = {}
)",
  };
  for (const std::string& text : texts) {
    const Policy policy = parse_policy(text, "first");
    const std::string written = to_toml(policy);
    EXPECT_EQ(parse_policy(written, "second"), policy) << written;
    EXPECT_EQ(to_toml(parse_policy(written, "second")), written);
  }
}

TEST(Policy, ExtendsOneThatIsBuiltInMemberByMember) {
  // Wherever it stands in the file.
  const Policy policy = parse_policy("versions = [2]\nextends = \"untrusted\"\n", "mine");
  Policy expected = untrusted();
  expected.description.clear();
  expected.versions = {2};
  EXPECT_EQ(policy, expected);
  EXPECT_EQ(policy.name, "mine");
}

TEST(Policy, IsLoadedFromAFile) {
  const std::string path = ::testing::TempDir() + "lukskeep-policy-test.toml";
  std::ofstream(path) << "versions = [2]\n";
  EXPECT_EQ(load_policy(path).versions, (std::set<std::uint32_t>{2}));
  std::filesystem::resize_file(path, limits::kPolicyBytesMax + 1);
  EXPECT_THROW(load_policy(path), Error);
  std::filesystem::remove(path);
  try {
    load_policy(path);
    FAIL() << "is not there";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNotFound);
    EXPECT_THAT(error.hint(), HasSubstr("untrusted"));
  }
}

// ---- judging -----------------------------------------------------------------------------------

struct Hostile {
  const char* name;
  std::function<void(Header&)> change;
  std::vector<std::string> breaks;  // of `untrusted`
};

std::function<void(Header&)> with_cipher(std::string encryption, std::uint32_t key_bytes = 64) {
  return [encryption = std::move(encryption), key_bytes](Header& header) {
    header.segments.at(0).encryption = encryption;
    header.keyslots.at(0).key_size_bytes = key_bytes;
  };
}

std::function<void(Header&)> with_argon2(std::uint32_t time, std::uint32_t memory_kib,
                                         std::uint32_t parallel) {
  return [=](Header& header) {
    Kdf& kdf = header.keyslots.at(0).kdf;
    kdf.type = Kdf::Type::kArgon2id;
    kdf.type_name = "argon2id";
    kdf.hash.clear();
    kdf.iterations = time;
    kdf.memory_kib = memory_kib;
    kdf.parallel = parallel;
  };
}

const std::vector<std::string> kCipher = {"ciphers segment 0"};

const std::vector<Hostile> kHostile = {
    {"Null", with_cipher("cipher_null-ecb"), kCipher},
    {"NullByItsOldName", with_cipher("null"), kCipher},
    {"Ecb", with_cipher("aes-ecb", 32), kCipher},
    {"EcbWithAnIv", with_cipher("aes-ecb-plain64", 32), kCipher},
    {"CbcPlain", with_cipher("aes-cbc-plain", 32), kCipher},
    {"CbcPlain64", with_cipher("aes-cbc-plain64", 32), kCipher},
    {"CbcByDefault", with_cipher("aes", 32), kCipher},
    {"CbcNull", with_cipher("aes-cbc-null", 32), kCipher},
    {"Ctr", with_cipher("aes-ctr-plain64", 32), kCipher},
    {"XtsPlain32", with_cipher("aes-xts-plain"), kCipher},
    {"Lrw", with_cipher("aes-lrw-benbi", 48), kCipher},
    {"Cast5", with_cipher("cast5-cbc-essiv:md5", 16), kCipher},
    {"Des", with_cipher("des-cbc-essiv:sha256", 8), kCipher},
    {"Capi", with_cipher("capi:xts(aes)-plain64"), kCipher},
    {"CapiDriver", with_cipher("capi:xts(ecb-aes-generic)-plain64"), kCipher},
    {"Driver", with_cipher("aes-generic-xts-plain64"), kCipher},
    {"WeakEssivHash", with_cipher("aes-cbc-essiv:md5", 16), kCipher},
    {"KeySize", with_cipher("aes-xts-plain64", 8), kCipher},
    {"OneOfTwoKeySizes",
     [](Header& header) {
       header.keyslots[1] = header.keyslots.at(0);
       header.keyslots.at(1).key_size_bytes = 8;
       header.digests.at(0).keyslots = {0, 1};
     },
     kCipher},
    {"NullKeyslot",
     [](Header& header) { header.keyslots.at(0).area.encryption = "cipher_null-ecb"; },
     {"ciphers keyslot 0"}},
    {"KeyslotKeySize",
     [](Header& header) { header.keyslots.at(0).area.key_size_bytes = 1; },
     {"ciphers keyslot 0"}},
    {"Linear",
     [](Header& header) {
       header.segments.at(0) = {.type = Segment::Type::kLinear, .type_name = "linear"};
     },
     {"segment_types segment 0"}},
    {"UnknownSegment",
     [](Header& header) {
       header.segments.at(0) = {.type = Segment::Type::kUnknown, .type_name = "hw-opal"};
     },
     {"segment_types segment 0"}},
    {"Stitched",
     [](Header& header) { header.segments[1] = header.segments.at(0); },
     {"segments header"}},
    {"InReencryption",
     [](Header& header) { header.segments.at(0).flags = {"in-reencryption"}; },
     {"segment_flags segment 0"}},
    {"Requirement",
     [](Header& header) { header.config.requirements = {"online-reencrypt-v2"}; },
     {"requirements header"}},
    {"ReencryptionKeyslot",
     [](Header& header) {
       header.keyslots[1] = {.type = Keyslot::Type::kReencrypt, .type_name = "reencrypt"};
     },
     {"keyslot_types keyslot 1"}},
    {"Integrity",
     [](Header& header) { header.segments.at(0).has_integrity = true; },
     {"integrity segment 0"}},
    {"Sectors",
     [](Header& header) { header.segments.at(0).sector_size_bytes = 65536; },
     {"sector_sizes segment 0"}},
    {"UnknownKdf",
     [](Header& header) {
       header.keyslots.at(0).kdf.type = Kdf::Type::kUnknown;
       header.keyslots.at(0).kdf.type_name = "argon2";
     },
     {"kdf keyslot 0"}},
    {"ManyIterations",
     [](Header& header) { header.keyslots.at(0).kdf.iterations = UINT32_MAX; },
     {"kdf.pbkdf2.iterations keyslot 0"}},
    {"FewIterations",
     [](Header& header) { header.keyslots.at(0).kdf.iterations = 1; },
     {"kdf.pbkdf2.iterations keyslot 0"}},
    {"KdfHash",
     [](Header& header) { header.keyslots.at(0).kdf.hash = "md5"; },
     {"kdf.pbkdf2.hashes keyslot 0"}},
    {"Memory",
     with_argon2(1, UINT32_MAX, 1),
     {"kdf.argon2id.memory_kib keyslot 0", "kdf.argon2id.time_memory_kib keyslot 0"}},
    {"Time",
     with_argon2(UINT32_MAX, 32, 1),
     {"kdf.argon2id.time keyslot 0", "kdf.argon2id.time_memory_kib keyslot 0"}},
    {"TimeAndMemory", with_argon2(1000, 4'194'304, 1), {"kdf.argon2id.time_memory_kib keyslot 0"}},
    {"Lanes", with_argon2(4, 1024, 17), {"kdf.argon2id.parallel keyslot 0"}},
    {"Stripes",
     [](Header& header) { header.keyslots.at(0).af.stripes = 1; },
     {"af.stripes keyslot 0"}},
    {"ShortDigest",
     [](Header& header) { header.digests.at(0).digest.resize(1); },
     {"digest.size_bytes digest 0"}},
    {"DigestIterations",
     [](Header& header) { header.digests.at(0).iterations = UINT32_MAX; },
     {"digest.iterations digest 0"}},
    {"DigestHash",
     [](Header& header) { header.digests.at(0).hash = "md5"; },
     {"digest.hashes digest 0"}},
    {"UnknownDigest",
     [](Header& header) { header.digests.at(0).type = Digest::Type::kUnknown; },
     {"digest digest 0"}},
    {"Everything",
     [](Header& header) {
       header.config.requirements = {"a", "b", "c", "d", "e", "f"};
       header.segments.at(0).encryption = "cipher_null-ecb";
       header.keyslots.at(0).area.encryption = "cipher_null-ecb";
       header.keyslots.at(0).kdf.iterations = UINT32_MAX;
       header.digests.at(0).digest.clear();
     },
     {"requirements header", "ciphers segment 0", "ciphers keyslot 0",
      "kdf.pbkdf2.iterations keyslot 0", "digest.size_bytes digest 0"}},
};

class HostileHeader : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileHeader, IsNotAllowedFromAStranger) {
  Header header = plain_header();
  GetParam().change(header);
  EXPECT_EQ(broken(judge(untrusted(), header)), GetParam().breaks);
}

INSTANTIATE_TEST_SUITE_P(Untrusted, HostileHeader, ::testing::ValuesIn(kHostile),
                         [](const auto& tested) { return std::string(tested.param.name); });

// The headers of tests/images that cryptsetup and QEMU wrote.
TEST(Untrusted, AllowsWhatCryptsetupAndQemuMake) {
  for (const char* name : {"default", "argon2", "label", "tokens", "unbound", "priorities",
                           "metadata-64k", "detached", "converted", "flags"}) {
    const std::string file = std::string(name) + ".luks2";
    const Header header = decode_luks2(testing::read_header_image(file), 0, name);
    EXPECT_THAT(broken(judge(untrusted(), header)), IsEmpty()) << name;
  }
  for (const char* name : {"plain.luks1", "cbc.luks1", "eight.luks1", "erased.luks1",
                           "detached1.luks1", "qemu.luks1", "qemu-twofish.luks1"}) {
    const Header header = decode_luks1(testing::read_header_image(name), name);
    EXPECT_THAT(broken(judge(untrusted(), header)), IsEmpty()) << name;
  }
}

TEST(Untrusted, AllowsNoReencryptionOfCryptsetup) {
  for (const char* name : {"reencrypt", "reencrypt-midway", "encrypt", "decrypt"}) {
    const std::string file = std::string(name) + ".luks2";
    const Header header = decode_luks2(testing::read_header_image(file), 0, name);
    const auto rules = broken(judge(untrusted(), header));
    EXPECT_THAT(rules, ::testing::Contains("requirements header")) << name;
    EXPECT_THAT(rules, ::testing::Contains(HasSubstr("segment_flags segment"))) << name;
  }
}

TEST(Policy, TellsOnlyOfTheFirstOfManyNames) {
  Header header = plain_header();
  for (int i = 0; i < 1000; ++i) header.config.requirements.insert(std::to_string(i) + "\x1b");
  const auto violations = judge(untrusted(), header);
  ASSERT_EQ(violations.size(), 1U);
  EXPECT_THAT(violations[0].message, HasSubstr("and 996 more are not allowed"));
  EXPECT_LT(violations[0].message.size(), 400U);
  EXPECT_EQ(violations[0].message.find('\x1b'), std::string::npos);
}

TEST(Policy, JudgesKeyslotsByTheirOwnCiphersIfItHasAny) {
  const Policy policy = parse_policy(
      "[ciphers]\naes-xts-plain64 = [512]\n[keyslot_ciphers]\nserpent-xts-plain64 = []\n", "p");
  Header header = plain_header();
  EXPECT_THAT(broken(judge(policy, header)), ElementsAre("keyslot_ciphers keyslot 0"));
  header.keyslots.at(0).area.encryption = "serpent-xts-plain64";
  EXPECT_THAT(judge(policy, header), IsEmpty());
  // No sizes: those that the cipher has.
  header.keyslots.at(0).area.key_size_bytes = 40;
  EXPECT_THAT(broken(judge(policy, header)), ElementsAre("keyslot_ciphers keyslot 0"));
}

TEST(Policy, JudgesTheKeySizeOfLuks1WithoutKeyslots) {
  const Header header = decode_luks1(testing::read_header_image("erased.luks1"), "erased");
  const Policy policy = parse_policy("[ciphers]\naes-xts-plain64 = [256]\n", "p");
  ASSERT_EQ(header.luks1_key_size_bytes, 64U);
  EXPECT_THAT(broken(judge(policy, header)), ElementsAre("ciphers segment 0"));
}

TEST(Policy, JudgesVersionsTokensFlagsAndCounts) {
  const Policy policy = parse_policy(
      "versions = [1]\ntoken_types = [\"a\"]\nflags = [\"b\"]\nkeyslots = {min = 5}\n", "p");
  Header header = plain_header();
  header.tokens[3] = {.type = "c", .keyslots = {}, .json = "{}"};
  header.config.flags = {"b", "d"};
  EXPECT_THAT(broken(judge(policy, header)), ElementsAre("versions header", "flags header",
                                                         "keyslots header", "token_types token 3"));
}

// ---- pins --------------------------------------------------------------------------------------

class Pins : public ::testing::TestWithParam<Version> {};

std::string with_fingerprint(const std::string& pin) {
  return "[pin]\nfingerprints = [\"" + pin + "\"]\n";
}

TEST_P(Pins, FingerprintIsOfTheBackup) {
  const HeaderFile file = make_volume(cheap_options(GetParam()));
  const std::string pin = to_hex(crypto::hash("sha256", backup_header(file)));
  EXPECT_EQ(header_fingerprint(file), pin);
  const Policy policy = parse_policy(with_fingerprint(pin), "p");
  EXPECT_THAT(judge(policy, file), IsEmpty());
  enforce(policy, file);
  // A byte of a keyslot, which no checksum covers.
  std::byte byte{};
  const std::uint64_t at = file.header().keyslots.at(0).area.offset_bytes;
  file.device()->read(at, {&byte, 1});
  byte ^= std::byte{1};
  file.device()->write(at, {&byte, 1});
  EXPECT_THAT(broken(judge(policy, file)), ElementsAre("pin.fingerprints header"));
  EXPECT_THROW(enforce(policy, file), Error);
}

TEST_P(Pins, FingerprintIsNotOfBytesThatCameLater) {
  const HeaderFile file = make_volume(cheap_options(GetParam()));
  const Bytes old = backup_header(file);
  HeaderFile changed = HeaderFile::open(file.device());
  remove_keyslot(changed, 0, true);
  // Judged is what was read, and the bytes there now say otherwise.
  try {
    header_fingerprint(file);
    FAIL() << "took the fingerprint of another header";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kConflict);
  }
  file.device()->write_zeroes(0, old.size(), ZeroMode::kAllocate);
  EXPECT_THROW(header_fingerprint(file), Error);
}

TEST_P(Pins, HeaderThatIsCutHasNoFingerprint) {
  const HeaderFile file = make_volume(cheap_options(GetParam()));
  file.device()->resize(file.header().keyslots.at(0).area.offset_bytes);
  const HeaderFile cut = HeaderFile::open(file.device());
  const Policy policy = parse_policy(with_fingerprint(std::string(64, '0')), "p");
  EXPECT_THAT(broken(judge(policy, cut)), ElementsAre("pin.fingerprints header"));
}

TEST_P(Pins, VolumeKeyIsKnownByItsDigest) {
  const HeaderFile file = make_volume(cheap_options(GetParam()));
  const std::string digest = to_hex(file.header().digests.at(0).digest);
  const Policy policy = parse_policy("[pin]\nvolume_key_digests = [\"" + digest + "\"]\n", "p");
  EXPECT_THAT(judge(policy, file), IsEmpty());
  const HeaderFile other = make_volume(cheap_options(GetParam()));
  EXPECT_THAT(broken(judge(policy, other)), ElementsAre("pin.volume_key_digests segment 0"));
  // A second digest, of a key of the attacker's, opens the same segment.
  Header header = file.header();
  header.digests[1] = other.header().digests.at(0);
  EXPECT_THAT(broken(judge(policy, header)), ElementsAre("pin.volume_key_digests segment 0"));
  header.digests.clear();
  EXPECT_THAT(broken(judge(policy, header)), ElementsAre("pin.volume_key_digests segment 0"));
}

INSTANTIATE_TEST_SUITE_P(BothVersions, Pins, ::testing::Values(Version::kLuks1, Version::kLuks2),
                         testing::version_name);

TEST(Policy, EnforcedNamesTheVolumeThePolicyAndEverything) {
  CreateOptions options = cheap_options(Version::kLuks2);
  const HeaderFile file = make_volume(options);
  enforce(untrusted(), file);
  const Policy policy = parse_policy("versions = [1]\nkeyslots = {max = 0}\n", "mine");
  try {
    enforce(policy, file);
    FAIL() << "was allowed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnsafe);
    EXPECT_THAT(error.message(), HasSubstr("policy 'mine' allows: header: LUKS2 is not allowed; "
                                           "header: number of keyslots of 1 is above 0"));
    EXPECT_THAT(error.message(), HasSubstr("'" + file.device()->name() + "'"));
  }
}

}  // namespace
}  // namespace lukskeep::luks
