#include "luks/luks2_codec.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/json.h"
#include "luks/codec_test_models.h"

namespace lukskeep::luks {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Bytes kSalt(64, std::byte{0x5a});

std::string json_of(const Bytes& copy) {
  const std::string_view area = as_string_view(ByteView(copy).subspan(kLuks2BinaryHeaderBytes));
  return std::string(area.substr(0, area.find('\0')));
}

// Lists of ids are sets: their order, which a re-encryption shuffles, means nothing.
Json with_sorted_ids(Json json) {
  for (Json& digest : json["digests"]) {
    std::sort(digest["keyslots"].begin(), digest["keyslots"].end());
    std::sort(digest["segments"].begin(), digest["segments"].end());
  }
  return json;
}

Bytes encode_primary(const Header& header) {
  return encode_luks2(header, Luks2Copy::kPrimary, kSalt);
}

// --- headers that cryptsetup wrote ---------------------------------------------------------------

struct Image {
  const char* name;
  bool same_bytes;  // whether the members stand in our order
  std::set<int> keyslots;
  std::size_t segments;
  std::set<std::string> requirements;
};

void PrintTo(const Image& image, std::ostream* out) { *out << image.name; }

class Luks2Image : public ::testing::TestWithParam<Image> {};

TEST_P(Luks2Image, BothCopiesDecodeToTheSameHeader) {
  const std::string name = GetParam().name;
  const Bytes primary = testing::read_header_image(name + ".luks2");
  const Bytes secondary = testing::read_header_image(name + ".luks2-secondary");
  const Header header = decode_luks2(primary, 0, name);
  EXPECT_EQ(decode_luks2(secondary, secondary.size(), name), header);
  std::set<int> keyslots;
  for (const auto& [id, keyslot] : header.keyslots) keyslots.insert(id);
  EXPECT_EQ(keyslots, GetParam().keyslots);
  EXPECT_EQ(header.segments.size(), GetParam().segments);
  EXPECT_EQ(unsupported_requirements(header), GetParam().requirements);
}

TEST_P(Luks2Image, LosesNothingWhenEncodedAgain) {
  const std::string name = GetParam().name;
  for (const bool first : {true, false}) {
    const Bytes bytes = testing::read_header_image(name + (first ? ".luks2" : ".luks2-secondary"));
    const Header header = decode_luks2(bytes, first ? 0 : bytes.size(), name);
    const ByteView salt = ByteView(bytes).subspan(104, 64);
    const Bytes again =
        encode_luks2(header, first ? Luks2Copy::kPrimary : Luks2Copy::kSecondary, salt);
    EXPECT_EQ(decode_luks2(again, first ? 0 : bytes.size(), name), header);
    EXPECT_EQ(parse_json(json_of(again), "again"),
              with_sorted_ids(parse_json(json_of(bytes), "original")));
    EXPECT_EQ(again == bytes, GetParam().same_bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Real, Luks2Image,
    ::testing::Values(Image{"default", true, {0}, 1, {}}, Image{"argon2", true, {0, 1}, 1, {}},
                      Image{"label", true, {0}, 1, {}}, Image{"tokens", true, {0, 1}, 1, {}},
                      Image{"unbound", true, {0, 5}, 1, {}},
                      Image{"priorities", true, {0, 1, 31}, 1, {}},
                      Image{"metadata-64k", true, {0}, 1, {}}, Image{"detached", true, {0}, 1, {}},
                      Image{"keyslot-cipher", true, {0}, 1, {}},
                      Image{"converted", false, {0}, 1, {}}, Image{"flags", true, {0}, 1, {}},
                      Image{"integrity", true, {0}, 1, {}},
                      Image{"reencrypt", false, {0, 1, 2}, 3, {"online-reencrypt-v2"}},
                      Image{"reencrypt-midway", false, {0, 1, 2}, 5, {"online-reencrypt-v2"}},
                      Image{"encrypt", false, {0, 1}, 5, {"online-reencrypt-v2"}},
                      Image{"decrypt", false, {0, 1}, 5, {"online-reencrypt-v3"}}),
    [](const auto& row) {
      std::string name = row.param.name;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

Header read_image(const std::string& name) {
  return decode_luks2(testing::read_header_image(name + ".luks2"), 0, name);
}

TEST(Luks2Codec, DecodesEveryField) {
  const Header header = read_image("default");
  EXPECT_EQ(header.uuid.size(), 36U);
  EXPECT_EQ(header.checksum_algorithm, "sha256");
  EXPECT_EQ(header.metadata_size_bytes, 0x4000U);
  EXPECT_EQ(header.sequence_id, 3U);
  EXPECT_EQ(header.config.json_size_bytes, 0x3000U);
  EXPECT_EQ(header.config.keyslots_size_bytes, 16744448U);
  const Keyslot& keyslot = header.keyslots.at(0);
  EXPECT_EQ(keyslot.key_size_bytes, 64U);
  EXPECT_EQ(keyslot.af.hash, "sha256");
  EXPECT_EQ(keyslot.af.stripes, 4000U);
  EXPECT_EQ(keyslot.area.offset_bytes, 32768U);
  EXPECT_EQ(keyslot.area.size_bytes, 258048U);
  EXPECT_EQ(keyslot.area.encryption, "aes-xts-plain64");
  EXPECT_EQ(keyslot.area.key_size_bytes, 64U);
  EXPECT_EQ(keyslot.kdf.type, Kdf::Type::kPbkdf2);
  EXPECT_EQ(keyslot.kdf.iterations, 1000U);
  EXPECT_EQ(keyslot.kdf.salt.size(), 32U);
  EXPECT_EQ(keyslot.priority, Priority::kNormal);
  const Segment& segment = header.segments.at(0);
  EXPECT_EQ(segment.offset_bytes, 16777216U);
  EXPECT_FALSE(segment.size_bytes.has_value());
  EXPECT_EQ(segment.sector_size_bytes, 4096U);
  EXPECT_EQ(header.digests.at(0).digest.size(), 32U);
  EXPECT_EQ(header.digests.at(0).keyslots, std::set<int>{0});
  EXPECT_EQ(header.digests.at(0).segments, std::set<int>{0});
}

TEST(Luks2Codec, DecodesWhatOnlySomeHeadersHave) {
  EXPECT_EQ(read_image("label").label, "Märchen");
  EXPECT_EQ(read_image("label").subsystem, "a subsystem");
  EXPECT_THAT(read_image("flags").config.flags, ElementsAre("allow-discards", "no-read-workqueue"));
  EXPECT_TRUE(read_image("integrity").segments.at(0).has_integrity);
  EXPECT_EQ(read_image("metadata-64k").metadata_size_bytes, 0x10000U);
  EXPECT_EQ(read_image("detached").segments.at(0).offset_bytes, 0U);
  EXPECT_EQ(read_image("converted").digests.at(0).digest.size(), 20U);
  EXPECT_EQ(read_image("unbound").digests.at(1).segments, std::set<int>{});

  const Header priorities = read_image("priorities");
  EXPECT_EQ(priorities.keyslots.at(0).priority, Priority::kPrefer);
  EXPECT_EQ(priorities.keyslots.at(1).priority, Priority::kNormal);
  EXPECT_EQ(priorities.keyslots.at(31).priority, Priority::kIgnore);

  const Header argon2 = read_image("argon2");
  EXPECT_EQ(argon2.keyslots.at(0).kdf.type, Kdf::Type::kArgon2id);
  EXPECT_EQ(argon2.keyslots.at(1).kdf.type, Kdf::Type::kArgon2i);
  EXPECT_EQ(argon2.keyslots.at(1).kdf.memory_kib, 32U);
  EXPECT_EQ(argon2.keyslots.at(1).kdf.parallel, 1U);

  const Header midway = read_image("reencrypt-midway");
  EXPECT_EQ(midway.keyslots.at(2).type, Keyslot::Type::kReencrypt);
  EXPECT_EQ(midway.keyslots.at(2).area.type, "checksum");
  EXPECT_EQ(midway.keyslots.at(2).unknown.at("direction"), "\"forward\"");
  EXPECT_EQ(midway.segments.at(1).flags, std::set<std::string>{"in-reencryption"});
  EXPECT_EQ(midway.segments.at(2).iv_tweak, 262144U);
  EXPECT_EQ(read_image("encrypt").segments.at(0).type, Segment::Type::kLinear);
}

TEST(Luks2Codec, KeepsTokensByteForByte) {
  const Header header = read_image("tokens");
  EXPECT_EQ(header.tokens.at(7).type, "custom");
  EXPECT_EQ(header.tokens.at(7).keyslots, (std::set<int>{0, 1}));
  EXPECT_EQ(header.tokens.at(7).json, R"({"type":"custom","keyslots":["1","0"],"text":"a/b é €",)"
                                      R"("n":[1.50,0,1e3,{"x":null}]})");

  const std::string odd =
      "{ \"n\" : [1.50 , -0, 1E+3],\n\t\"text\":\"\\u0061\\/\\u00e9\", \"keyslots\":[\"0\" ], "
      "\"type\":\"x\"}";
  Header changed = header;
  changed.tokens[9] = parse_token(odd, "token");
  const Bytes copy = encode_primary(changed);
  EXPECT_THAT(json_of(copy), HasSubstr(odd));
  EXPECT_EQ(decode_luks2(copy, 0, "odd").tokens.at(9).json, odd);
}

// --- encoding
// --------------------------------------------------------------------------------------

TEST(Luks2Codec, SamplesSurviveARoundTrip) {
  for (const Header& header : {testing::sample_luks2(), testing::sample_reencryption()}) {
    EXPECT_EQ(decode_luks2(encode_primary(header), 0, "sample"), header);
    validate_luks2(header, "sample");
  }
}

TEST(Luks2Codec, AllNineMetadataSizes) {
  for (const std::uint64_t size : kLuks2MetadataSizes) {
    SCOPED_TRACE(size);
    Header header = testing::sample_luks2();
    for (auto& [id, keyslot] : header.keyslots) {
      keyslot.area.offset_bytes += 2 * size - 2 * header.metadata_size_bytes;
    }
    header.metadata_size_bytes = size;
    header.config.json_size_bytes = size - 4096;
    header.segments[0].offset_bytes = 64 << 20;
    const Bytes primary = encode_primary(header);
    const Bytes secondary = encode_luks2(header, Luks2Copy::kSecondary, kSalt);
    ASSERT_EQ(primary.size(), size);
    EXPECT_EQ(decode_luks2(primary, 0, "primary"), header);
    EXPECT_EQ(decode_luks2(secondary, size, "secondary"), header);
    EXPECT_EQ(as_string_view(secondary).substr(0, 4), "SKUL");
    EXPECT_FALSE(decode_luks2_prefix(secondary, 0, "secondary at the place of the primary"));
    EXPECT_FALSE(decode_luks2_prefix(primary, size, "primary at the place of the secondary"));
  }
}

TEST(Luks2Codec, RandomHeadersSurviveARoundTrip) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const Header header = testing::random_luks2(random);
    const bool first = seed % 2 == 0;
    const Bytes copy =
        encode_luks2(header, first ? Luks2Copy::kPrimary : Luks2Copy::kSecondary, kSalt);
    ASSERT_EQ(decode_luks2(copy, first ? 0 : copy.size(), "random"), header);
  }
}

TEST(Luks2Codec, ChecksumOfAnyKnownHash) {
  for (const char* hash : {"sha1", "sha256", "SHA512", "sha3-256", "whirlpool"}) {
    SCOPED_TRACE(hash);
    Header header = testing::sample_luks2();
    header.checksum_algorithm = hash;
    Bytes copy = encode_primary(header);
    EXPECT_EQ(decode_luks2(copy, 0, "hash"), header);
    copy[5000] ^= std::byte{1};
    EXPECT_THROW(decode_luks2(copy, 0, "hash"), Error);
  }
}

TEST(Luks2Codec, PrefixTellsWhereThingsAre) {
  const Header header = testing::sample_luks2();
  const Bytes copy = encode_luks2(header, Luks2Copy::kSecondary, kSalt);
  const auto prefix =
      decode_luks2_prefix(ByteView(copy).first(kLuks2BinaryHeaderBytes), 0x4000, "prefix");
  if (!prefix) FAIL() << "no prefix";
  EXPECT_EQ(prefix->copy, Luks2Copy::kSecondary);
  EXPECT_EQ(prefix->metadata_size_bytes, 0x4000U);
  EXPECT_EQ(prefix->sequence_id, header.sequence_id);
  EXPECT_EQ(prefix->offset_bytes, 0x4000U);
}

TEST(Luks2Codec, PrefixLeavesLuks1Alone) {
  const Bytes luks1 = testing::read_header_image("plain.luks1");
  EXPECT_FALSE(decode_luks2_prefix(luks1, 0, "luks1").has_value());
  Bytes longer = luks1;
  longer.resize(8192);
  EXPECT_FALSE(decode_luks2_prefix(longer, 0, "luks1").has_value());
  EXPECT_FALSE(decode_luks2_prefix({}, 0, "nothing").has_value());
}

TEST(Luks2Codec, SaysHowMuchRoomIsMissing) {
  Header header = testing::sample_luks2();
  const std::size_t used = luks2_json(header).size();
  header.unknown["x-fill"] = "\"\"";
  const std::size_t overhead = luks2_json(header).size() - used;
  header.unknown["x-fill"] = '"' + std::string(0x3000 - 1 - used - overhead, 'x') + '"';
  EXPECT_EQ(decode_luks2(encode_primary(header), 0, "full"), header);
  header.unknown["x-fill"].insert(1, "yyy");
  try {
    encode_primary(header);
    FAIL() << "encoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNoSpace);
    EXPECT_EQ(error.message(), "LUKS2 metadata needs 12290 bytes, 3 more than there is room for");
    EXPECT_THAT(error.hint(), HasSubstr("larger metadata size"));
  }
}

// --- what is read although the specification knows better, or does not know it -----------------

struct Leniency {
  const char* name;
  std::string from;
  std::string to;
  std::function<bool(const Header&)> holds;
};

void PrintTo(const Leniency& row, std::ostream* out) { *out << row.name; }

class Luks2Leniency : public ::testing::TestWithParam<Leniency> {};

TEST_P(Luks2Leniency, IsReadAndKept) {
  const Header sample = testing::sample_luks2();
  std::string json = luks2_json(sample);
  const std::size_t at = json.find(GetParam().from);
  ASSERT_NE(at, std::string::npos);
  json.replace(at, GetParam().from.size(), GetParam().to);
  const Header header =
      decode_luks2(testing::luks2_copy_with_json(encode_primary(sample), json), 0, "lenient");
  EXPECT_TRUE(GetParam().holds(header));
  EXPECT_EQ(decode_luks2(encode_primary(header), 0, "again"), header);
}

const std::string kArgon2id = R"("kdf":{"type":"argon2id","time":4,"memory":32,"cpus":1,)";

INSTANTIATE_TEST_SUITE_P(
    Each, Luks2Leniency,
    ::testing::Values(
        Leniency{"RequirementsAsArray", R"({"mandatory":["inline-hw-tags"],"optional":["x"]})",
                 R"(["b","a"])",
                 [](const Header& h) {
                   return h.config.requirements == std::set<std::string>{"a", "b"};
                 }},
        Leniency{"RequirementsEmpty", R"({"mandatory":["inline-hw-tags"],"optional":["x"]})", "{}",
                 [](const Header& h) { return h.config.requirements.empty(); }},
        Leniency{"UnknownKdf", kArgon2id, R"("kdf":{"type":"argon9","time":[4],)",
                 [](const Header& h) {
                   const Kdf& kdf = h.keyslots.at(1).kdf;
                   return kdf.type == Kdf::Type::kUnknown && kdf.unknown.at("time") == "[4]";
                 }},
        Leniency{"AbsurdCosts", kArgon2id,
                 R"("kdf":{"type":"argon2id","time":4294967295,"memory":4294967295,)"
                 R"("cpus":4294967295,)",
                 [](const Header& h) { return h.keyslots.at(1).kdf.memory_kib == UINT32_MAX; }},
        Leniency{"SectorSizeNoCipherHas",
                 R"("iv_tweak":"8","encryption":"aes-xts-plain64",)"
                 R"("sector_size":4096)",
                 R"("iv_tweak":"0","encryption":"x","sector_size":8192)",
                 [](const Header& h) { return h.segments.at(0).sector_size_bytes == 8192; }},
        Leniency{"UnknownSegment", R"("segments":{"0":{"type":"crypt")",
                 R"("segments":{"0":{"type":"hw-opal-crypt","opal_segment_number":1)",
                 [](const Header& h) {
                   const Segment& segment = h.segments.at(0);
                   return segment.type == Segment::Type::kUnknown &&
                          segment.unknown.at("sector_size") == "4096";
                 }},
        Leniency{"UnknownKeyslot", R"("keyslots":{"0":{"type":"luks2")",
                 R"("keyslots":{"0":{"type":"luks3")",
                 [](const Header& h) {
                   const Keyslot& keyslot = h.keyslots.at(0);
                   return keyslot.type == Keyslot::Type::kUnknown &&
                          keyslot.unknown.contains("kdf") &&
                          keyslot.area.unknown.at("key_size") == "64";
                 }},
        Leniency{"UnknownDigest", R"("digests":{"0":{"type":"pbkdf2")",
                 R"("digests":{"0":{"type":"pbkdf3")",
                 [](const Header& h) {
                   return h.digests.at(0).type == Digest::Type::kUnknown &&
                          h.digests.at(0).unknown.at("iterations") == "1000";
                 }},
        Leniency{"FutureReencryption", R"(["inline-hw-tags"])", R"(["offline-reencrypt","new"])",
                 [](const Header& h) { return unsupported_requirements(h).size() == 2; }},
        Leniency{"PrioritySpeltOut", R"("priority":2)", R"("priority":1)",
                 [](const Header& h) { return h.keyslots.at(1).priority == Priority::kNormal; }},
        Leniency{"WhiteSpace", R"({"keyslots":{)", "{ \"keyslots\"\t:\n{",
                 [](const Header& h) { return h.keyslots.size() == 3; }},
        Leniency{"WhiteSpaceAtTheEnd", R"(2.50]}})", "2.50]}} \r\n",
                 [](const Header& h) { return h.unknown.size() == 1; }},
        Leniency{"EscapedNames", R"("config":{)", R"("\u0063onfig":{)",
                 [](const Header& h) { return h.config.flags.size() == 2; }},
        Leniency{"RepeatedIds", R"("keyslots":["0","1"],"segments":["0"])",
                 R"("keyslots":["1","0","1"],"segments":["0","0"])",
                 [](const Header& h) { return h.digests.at(0).keyslots == std::set<int>{0, 1}; }},
        Leniency{"DeepestToken", R"("n": 1.50)",
                 R"("n":)" + std::string(28, '[') + "1" + std::string(28, ']'),
                 [](const Header& h) { return h.tokens.size() == 2; }},
        Leniency{"NumbersBeyondDouble", R"("x-future":{"a": [1, 2.50]})",
                 R"("x-future":123456789012345678901234567890.00)",
                 [](const Header& h) {
                   return h.unknown.at("x-future") == "123456789012345678901234567890.00";
                 }}),
    [](const ::testing::TestParamInfo<Leniency>& row) { return row.param.name; });

// --- models that must not be written
// --------------------------------------------------------------

// Also to what is no Priority.
void set_priority(Keyslot& keyslot, std::uint8_t value) {
  std::memcpy(&keyslot.priority, &value, sizeof(value));
}
static_assert(sizeof(Priority) == sizeof(std::uint8_t));

struct Refusal {
  const char* name;
  std::function<void(Header&)> change;
  const char* message;
};

void PrintTo(const Refusal& row, std::ostream* out) { *out << row.name; }

class Luks2Refusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(Luks2Refusal, ValidateAndEncodeAgree) {
  Header header = testing::sample_luks2();
  GetParam().change(header);
  try {
    validate_luks2(header, "model");
    ADD_FAILURE() << "validated";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kDamaged);
    EXPECT_THAT(error.message(), ::testing::StartsWith("model: "));
    EXPECT_THAT(error.message(), HasSubstr(GetParam().message));
  }
  try {
    encode_primary(header);
    ADD_FAILURE() << "encoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_THAT(error.message(), HasSubstr(GetParam().message));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Each, Luks2Refusal,
    ::testing::Values(
        Refusal{"Luks1", [](Header& h) { h.version = Version::kLuks1; }, "not a LUKS2 header"},
        Refusal{"LongLabel", [](Header& h) { h.label = std::string(48, 'x'); },
                "is longer than 47 bytes"},
        Refusal{"LabelWithZero", [](Header& h) { h.label = std::string("a\0b", 3); },
                "label 'a\\x00b' holds a zero byte"},
        Refusal{"LongSubsystem", [](Header& h) { h.subsystem = std::string(48, 'x'); },
                "subsystem"},
        Refusal{"Uuid", [](Header& h) { h.uuid = "a b"; }, "UUID 'a b' has characters"},
        Refusal{"Checksum", [](Header& h) { h.checksum_algorithm = "md17"; },
                "checksum algorithm 'md17' is unknown"},
        Refusal{"MetadataSize", [](Header& h) { h.metadata_size_bytes = 0x5000; },
                "not one of the nine legal ones"},
        Refusal{"JsonSize", [](Header& h) { h.config.json_size_bytes = 0x4000; },
                "json_size is 16384, not 12288"},
        Refusal{"TypeNameMismatch", [](Header& h) { h.keyslots[0].type = Keyslot::Type::kUnknown; },
                "keyslot 0: 'af' is missing"},
        Refusal{"KdfMismatch", [](Header& h) { h.keyslots[0].kdf.type_name = "argon2id"; },
                "'time' is missing"},
        Refusal{"HashOfArgon2", [](Header& h) { h.keyslots[1].kdf.hash = "sha256"; },
                "values that LUKS2 metadata has no member for"},
        Refusal{"MemoryOfPbkdf2", [](Header& h) { h.keyslots[0].kdf.memory_kib = 1; },
                "values that LUKS2 metadata has no member for"},
        Refusal{"Luks1Slots", [](Header& h) { h.luks1_slots[0].stripes = 1; },
                "values that LUKS2 metadata has no member for"},
        Refusal{"Luks1KeySize", [](Header& h) { h.luks1_key_size_bytes = 64; },
                "values that LUKS2 metadata has no member for"},
        Refusal{"IntegrityWithoutMember", [](Header& h) { h.segments[0].has_integrity = false; },
                "values that LUKS2 metadata has no member for"},
        Refusal{"UnknownShadowsKnown", [](Header& h) { h.keyslots[0].unknown["area"] = "{}"; },
                "JSON member 'area' is there twice"},
        Refusal{"UnknownIsNoJson", [](Header& h) { h.unknown["x"] = "}{"; }, "not valid JSON"},
        Refusal{"UnknownInjects", [](Header& h) { h.unknown["x"] = "1,\"y\":2"; },
                "values that LUKS2 metadata has no member for"},
        Refusal{"TokenFields", [](Header& h) { h.tokens[0].keyslots = {1}; },
                "values that LUKS2 metadata has no member for"},
        Refusal{"TokenJson", [](Header& h) { h.tokens[0].json = ""; }, "not valid JSON"},
        Refusal{"NotUtf8", [](Header& h) { h.segments[0].encryption = "aes\xff"; },
                "'aes\\xff' is not valid UTF-8"},
        Refusal{"KeyslotNumber",
                [](Header& h) {
                  h.keyslots[32] = h.keyslots[5];
                  h.keyslots[32].area.offset_bytes = 0x200000;
                  h.digests[1].keyslots.insert(32);
                },
                "keyslot id '32'"},
        Refusal{"TwoDigests", [](Header& h) { h.digests[1].keyslots.insert(0); },
                "keyslot 0: 2 digests are for it, not 1"},
        Refusal{"NegativeNumber",
                [](Header& h) {
                  h.digests[-1] = h.digests[1];
                  h.digests.erase(1);
                },
                "digest id '-1'"},
        Refusal{"Priority", [](Header& h) { set_priority(h.keyslots[0], 9); }, "'priority' is 9"},
        Refusal{"NoSalt", [](Header& h) { h.keyslots[0].kdf.salt.clear(); }, "'salt' has 0 bytes"},
        Refusal{"NoDigest", [](Header& h) { h.digests[0].digest.clear(); },
                "'digest' has 0 bytes, not 16 to 64"},
        Refusal{"NoHash", [](Header& h) { h.digests[0].hash = ""; }, "'hash' is empty"}),
    [](const ::testing::TestParamInfo<Refusal>& row) { return row.param.name; });

TEST(Luks2Codec, SaltHas64Bytes) {
  EXPECT_THROW(encode_luks2(testing::sample_luks2(), Luks2Copy::kPrimary, Bytes(63)), Error);
}

// --- tokens
// -----------------------------------------------------------------------------------------

TEST(Luks2Token, SetKeyslotsChangesNothingElse) {
  Token token = parse_token(
      " { \"a\":[\"keyslots\"], \"keyslots\" : [ \"3\",\"1\" ] , \"type\":\"t\",\"n\":1.0 }\n",
      "t");
  EXPECT_EQ(token.keyslots, (std::set<int>{1, 3}));
  set_token_keyslots(token, {2, 10});
  EXPECT_EQ(token.json,
            "{ \"a\":[\"keyslots\"], \"keyslots\" : [\"2\",\"10\"] , \"type\":\"t\",\"n\":1.0 }");
  EXPECT_EQ(token.keyslots, (std::set<int>{2, 10}));
  set_token_keyslots(token, {});
  EXPECT_THAT(token.json, HasSubstr("\"keyslots\" : [] ,"));
  EXPECT_EQ(parse_token(token.json, "again"), token);
}

struct BadToken {
  std::string json;
  const char* message;
};

TEST(Luks2Token, RefusesWhatCryptsetupWouldNotImport) {
  const std::string deep = std::string(29, '[') + "1" + std::string(29, ']');
  const std::vector<BadToken> rows = {
      {"", "not valid JSON"},
      {"[]", "not a JSON object"},
      {"{}", "'type' is missing"},
      {R"({"type":"x"})", "'keyslots' is missing"},
      {R"({"type":1,"keyslots":[]})", "'type' is 1, not a string"},
      {R"({"type":"","keyslots":[]})", "'type' is empty"},
      {R"({"type":"x","keyslots":["32"]})", "an array of ids"},
      {R"({"type":"x","keyslots":[0]})", "an array of ids"},
      {R"({"type":"x","keyslots":[],"type":"y"})", "'type' is there twice"},
      {R"({"type":"x","keyslots":[]} {})", "not valid JSON"},
      {R"({"type":"luks2-own","keyslots":[]})", "a type outside of the prefix 'luks2-'"},
      {R"({"type":"luks2-keyring","keyslots":[]})", "'key_description' is missing"},
      {R"({"type":"luks2-keyring","keyslots":[],"key_description":7})", "'key_description' is 7"},
      {R"({"type":"x","keyslots":[],"a\u0000":1})", "holds a zero byte"},
      {R"({"type":"x","keyslots":[],"a":)" + deep + "}", "nested deeper than 32"},
  };
  for (const BadToken& row : rows) {
    SCOPED_TRACE(row.json);
    try {
      parse_token(row.json, "token 'f'");
      ADD_FAILURE() << "parsed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kDamaged);
      EXPECT_THAT(error.message(), ::testing::StartsWith("token 'f'"));
      EXPECT_THAT(error.message(), HasSubstr(row.message));
    }
  }
}

}  // namespace
}  // namespace lukskeep::luks
