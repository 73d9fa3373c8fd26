#include "luks/luks1_codec.h"

#include <array>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/codec_test_models.h"

namespace lukskeep::luks {
namespace {

struct Image {
  const char* name;
  const char* uuid;
  const char* encryption;
  const char* hash;
  std::uint32_t key_size_bytes;
  std::uint64_t payload_offset_sectors;
  std::set<int> keyslots;
};

const std::vector<Image> kImages = {
    {"plain.luks1",
     "6add1292-2f73-4ca5-b75d-2807711fb84d",
     "aes-xts-plain64",
     "sha256",
     64,
     4096,
     {0}},
    {"cbc.luks1",
     "2ea3ea61-4cbc-49f4-8151-9a36fb95d991",
     "aes-cbc-essiv:sha256",
     "ripemd160",
     16,
     2048,
     {0}},
    {"eight.luks1",
     "8a0b1352-a308-4260-9ddd-c9d690a603fb",
     "aes-xts-plain64",
     "sha256",
     32,
     4096,
     {0, 1, 2, 4, 5, 6, 7}},
    {"erased.luks1",
     "5af9fd2f-b562-43ec-aa3f-e9cf13afc87e",
     "aes-xts-plain64",
     "sha256",
     64,
     4096,
     {}},
    {"detached1.luks1",
     "20a6edcb-0df9-4ec7-86e0-d3c19c866591",
     "aes-xts-plain64",
     "sha256",
     64,
     0,
     {0}},
    {"qemu.luks1",
     "cb23e3ee-0db0-4a8c-9b2d-b8b3aab8a70b",
     "aes-xts-plain64",
     "sha256",
     64,
     4040,
     {0}},
    {"qemu-twofish.luks1",
     "7a47e0fc-a904-40b0-ad9d-ec780ac344f2",
     "twofish-cbc-essiv:sha256",
     "sha512",
     32,
     2056,
     {0}},
};

class Luks1Image : public ::testing::TestWithParam<Image> {};

TEST_P(Luks1Image, DecodesAndEncodesToTheSameBytes) {
  const Image& image = GetParam();
  const Bytes bytes = testing::read_header_image(image.name);
  const Header header = decode_luks1(bytes, image.name);
  EXPECT_EQ(header.version, Version::kLuks1);
  EXPECT_EQ(header.uuid, image.uuid);
  EXPECT_EQ(header.luks1_key_size_bytes, image.key_size_bytes);
  EXPECT_EQ(header.segments.at(0).encryption, image.encryption);
  EXPECT_EQ(header.segments.at(0).offset_bytes, 512 * image.payload_offset_sectors);
  EXPECT_EQ(header.digests.at(0).hash, image.hash);
  EXPECT_EQ(header.digests.at(0).keyslots, image.keyslots);
  for (const auto& [id, keyslot] : header.keyslots) {
    EXPECT_TRUE(image.keyslots.contains(id));
    EXPECT_EQ(keyslot.kdf.salt.size(), 32U);
    EXPECT_GE(keyslot.kdf.iterations, 1000U);
    EXPECT_EQ(keyslot.af.hash, image.hash);
    EXPECT_EQ(keyslot.area.encryption, image.encryption);
    EXPECT_EQ(keyslot.area.key_size_bytes, image.key_size_bytes);
  }
  EXPECT_EQ(encode_luks1(header), bytes);
}

INSTANTIATE_TEST_SUITE_P(Real, Luks1Image, ::testing::ValuesIn(kImages));

TEST(Luks1Codec, KeepsWhatRemovedKeyslotsLeave) {
  const Header header = decode_luks1(testing::read_header_image("eight.luks1"), "eight");
  EXPECT_EQ(header.keyslots.at(7).kdf.iterations, 1007U);
  EXPECT_EQ(header.luks1_slots.at(3).material_offset_sectors, 8U + 3 * 256);
  EXPECT_EQ(header.luks1_slots.at(3).inactive_iterations, 0U);
  EXPECT_EQ(header.keyslots.at(4).area.offset_bytes, (8U + 4 * 256) * 512);
  EXPECT_EQ(header.keyslots.at(4).area.size_bytes, 128000U);
}

// cryptsetup opens these volumes too: by the other keyslots, and whatever the UUID says.
TEST(Luks1Codec, KeepsOddStatesAndUuids) {
  const Header good = testing::sample_luks1();
  for (const std::uint32_t state : {0U, 1U, 0xadde0000U, 0x00ac71f2U, 0xf371ac00U, UINT32_MAX}) {
    for (const char* uuid : {"", "no-uuid", "../../etc/shadow"}) {
      Header header = good;
      header.luks1_slots.at(5).inactive_state = state;
      header.uuid = uuid;
      ASSERT_FALSE(header.keyslots.contains(5));
      EXPECT_EQ(decode_luks1(encode_luks1(header), "odd"), header);
    }
  }
}

// Images of the 1.0 format have keyslots that no alignment fits, right behind the header.
TEST(Luks1Codec, AcceptsUnalignedKeyslotsOfLegacyImages) {
  Header header = testing::sample_luks1();
  header.segments[0].offset_bytes = 2065ULL * 512;
  for (std::size_t i = 0; i < header.luks1_slots.size(); ++i) {
    const auto sector = static_cast<std::uint32_t>(3 + 251 * i);
    header.luks1_slots.at(i).material_offset_sectors = sector;
    const auto keyslot = header.keyslots.find(static_cast<int>(i));
    if (keyslot != header.keyslots.end()) keyslot->second.area.offset_bytes = 512ULL * sector;
  }
  EXPECT_EQ(decode_luks1(encode_luks1(header), "legacy"), header);
}

TEST(Luks1Codec, AcceptsKeyslotsInAnyOrderAndFarAway) {
  Header header = testing::sample_luks1();
  header.segments[0].offset_bytes = 0;
  for (std::size_t i = 0; i < header.luks1_slots.size(); ++i) {
    const auto sector = static_cast<std::uint32_t>(UINT32_MAX - 250 * i);
    header.luks1_slots.at(i).material_offset_sectors = sector;
    const auto keyslot = header.keyslots.find(static_cast<int>(i));
    if (keyslot != header.keyslots.end()) keyslot->second.area.offset_bytes = 512ULL * sector;
  }
  EXPECT_EQ(decode_luks1(encode_luks1(header), "far"), header);
}

TEST(Luks1Codec, KeepsNamesThatNobodyKnows) {
  Header header = testing::sample_luks1();
  header.segments[0].encryption = "Rot13-SWAPPED-moon:phase";
  header.digests[0].hash = "MD4-and-a-half";
  for (auto& [id, keyslot] : header.keyslots) {
    keyslot.area.encryption = header.segments[0].encryption;
    keyslot.af.hash = keyslot.kdf.hash = header.digests[0].hash;
  }
  EXPECT_EQ(decode_luks1(encode_luks1(header), "names"), header);
}

TEST(Luks1Codec, ReadsWhatStandsBehindTheHeaderNot) {
  Bytes bytes = encode_luks1(testing::sample_luks1());
  bytes.resize(1 << 20, std::byte{0xff});
  EXPECT_EQ(decode_luks1(bytes, "long"), testing::sample_luks1());
}

TEST(Luks1Codec, RandomHeadersSurviveARoundTrip) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const Header header = testing::random_luks1(random);
    const Bytes bytes = encode_luks1(header);
    ASSERT_EQ(bytes.size(), kLuks1HeaderBytes);
    ASSERT_EQ(decode_luks1(bytes, "random"), header);
  }
}

struct Refusal {
  const char* name;
  std::function<void(Header&)> change;
  const char* message;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class Luks1Refusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(Luks1Refusal, NamesWhatLuks1CannotHold) {
  Header header = testing::sample_luks1();
  GetParam().change(header);
  try {
    encode_luks1(header);
    FAIL() << "encoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_THAT(error.message(), ::testing::HasSubstr(GetParam().message));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Each, Luks1Refusal,
    ::testing::Values(
        Refusal{"Version", [](Header& h) { h.version = Version::kLuks2; }, "a LUKS2 header"},
        Refusal{"Label", [](Header& h) { h.label = "x"; }, "a label"},
        Refusal{"Subsystem", [](Header& h) { h.subsystem = "x"; }, "a subsystem"},
        Refusal{"Token", [](Header& h) { h.tokens[0] = {}; }, "tokens"},
        Refusal{"Flags", [](Header& h) { h.config.flags = {"allow-discards"}; }, "flags"},
        Refusal{"Requirement", [](Header& h) { h.config.requirements = {"x"}; }, "requirements"},
        Refusal{"Sizes", [](Header& h) { h.config.keyslots_size_bytes = 1; }, "sizes"},
        Refusal{"Metadata", [](Header& h) { h.metadata_size_bytes = 0x4000; }, "a metadata size"},
        Refusal{"Checksum", [](Header& h) { h.checksum_algorithm = "sha1"; }, "a checksum"},
        Refusal{"Unknown", [](Header& h) { h.unknown["x"] = "1"; }, "unknown members"},
        Refusal{"TwoSegments", [](Header& h) { h.segments[1] = h.segments[0]; }, "segments other"},
        Refusal{"LinearSegment", [](Header& h) { h.segments[0].type = Segment::Type::kLinear; },
                "a segment of type"},
        Refusal{"FixedSize", [](Header& h) { h.segments[0].size_bytes = 512; }, "fixed size"},
        Refusal{"IvTweak", [](Header& h) { h.segments[0].iv_tweak = 1; }, "an IV tweak"},
        Refusal{"SectorSize", [](Header& h) { h.segments[0].sector_size_bytes = 4096; },
                "sectors of 4096 bytes"},
        Refusal{"Integrity", [](Header& h) { h.segments[0].has_integrity = true; }, "integrity"},
        Refusal{"SegmentFlags", [](Header& h) { h.segments[0].flags = {"x"}; }, "segment flags"},
        Refusal{"OddOffset", [](Header& h) { h.segments[0].offset_bytes += 1; }, "a payload at"},
        Refusal{"FarOffset", [](Header& h) { h.segments[0].offset_bytes = 1ULL << 41; },
                "a payload at byte 2199023255552"},
        Refusal{"NearOffset", [](Header& h) { h.segments[0].offset_bytes = 4096; },
                "overlaps the payload at sector 8"},
        Refusal{"TwoDigests", [](Header& h) { h.digests[1] = h.digests[0]; }, "digests other"},
        Refusal{"Unbound", [](Header& h) { h.digests[0].segments.clear(); }, "unbound keyslots"},
        Refusal{"NoDigest", [](Header& h) { h.digests[0].keyslots = {0}; },
                "a keyslot without digest"},
        Refusal{"LongDigest", [](Header& h) { h.digests[0].digest.resize(32); },
                "a digest of 32 bytes"},
        Refusal{"ShortSalt", [](Header& h) { h.digests[0].salt.resize(31); },
                "a digest salt of 31 bytes"},
        Refusal{"DigestIterations", [](Header& h) { h.digests[0].iterations = 0; },
                "a digest of 0 iterations"},
        Refusal{"KeyslotNumber",
                [](Header& h) {
                  h.keyslots[8] = h.keyslots[0];
                  h.digests[0].keyslots.insert(8);
                },
                "a keyslot 8"},
        Refusal{"Argon2", [](Header& h) { h.keyslots[0].kdf.type = Kdf::Type::kArgon2id; }, "KDF"},
        Refusal{"OtherHash", [](Header& h) { h.keyslots[2].kdf.hash = "sha1"; },
                "hash 'sha1' in keyslot 2"},
        Refusal{"OtherAfHash", [](Header& h) { h.keyslots[2].af.hash = "sha1"; },
                "another AF splitter in keyslot 2"},
        Refusal{"OtherKeySize", [](Header& h) { h.keyslots[0].key_size_bytes = 64; },
                "a key of 64 bytes in keyslot 0"},
        Refusal{"OtherCipher", [](Header& h) { h.keyslots[0].area.encryption = "aes-ecb"; },
                "another area or encryption"},
        Refusal{"OtherOffset", [](Header& h) { h.keyslots[0].area.offset_bytes = 8192; },
                "another area or encryption"},
        Refusal{"SlotSalt", [](Header& h) { h.keyslots[0].kdf.salt.resize(64); },
                "a salt of 64 bytes in keyslot 0"},
        Refusal{"SlotIterations", [](Header& h) { h.keyslots[0].kdf.iterations = 0; },
                "iterations are 0"},
        Refusal{"Priority", [](Header& h) { h.keyslots[0].priority = Priority::kPrefer; },
                "a priority in keyslot 0"},
        Refusal{"InactiveValues", [](Header& h) { h.luks1_slots[0].inactive_iterations = 5; },
                "inactive values in keyslot 0"},
        Refusal{"Stripes",
                [](Header& h) {
                  h.luks1_slots[0].stripes = 10;
                  h.keyslots[0].af.stripes = 10;
                },
                "10 stripes"},
        Refusal{"LongCipherName",
                [](Header& h) { h.segments[0].encryption = std::string(32, 'a'); },
                "another area or encryption"},
        Refusal{"LongHash",
                [](Header& h) {
                  h.digests[0].hash = std::string(32, 'h');
                  for (auto& [id, k] : h.keyslots) k.af.hash = k.kdf.hash = h.digests[0].hash;
                },
                "the hash 'hhhh"},
        Refusal{"EmptyMode",
                [](Header& h) {
                  h.segments[0].encryption = "aes-";
                  for (auto& [id, k] : h.keyslots) k.area.encryption = "aes-";
                },
                "values that it has no field for"},
        Refusal{"BadUuid", [](Header& h) { h.uuid = "a b"; }, "not printable ASCII"}),
    [](const ::testing::TestParamInfo<Refusal>& row) { return row.param.name; });

}  // namespace
}  // namespace lukskeep::luks
