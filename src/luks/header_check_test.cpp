#include "luks/header_check.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "crypto/random.h"
#include "luks/codec_test_models.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"
#include "storage/memory_device.h"

namespace lukskeep::luks {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::vector<std::string> codes(const std::vector<Finding>& findings) {
  std::vector<std::string> names;
  for (const Finding& finding : findings) {
    EXPECT_FALSE(finding.problem.empty()) << finding.code;
    EXPECT_EQ(finding.offset_bytes.has_value() || finding.size_bytes == 0, true) << finding.code;
    // The costs of tests are the smallest that are legal, and say so in every volume.
    if (finding.code != "kdf-weak" && finding.code != "luks1") names.push_back(finding.code);
  }
  return names;
}

Finding only(const HeaderCheck& result, std::string_view code) {
  std::vector<Finding> found = result.findings;
  std::erase_if(found, [&](const Finding& finding) { return finding.code != code; });
  EXPECT_EQ(found.size(), 1U) << code;
  return found.empty() ? Finding{} : found.front();
}

// A volume of a random payload, whose bytes tests change.
class HeaderCheckTest : public ::testing::TestWithParam<Version> {
 protected:
  HeaderCheckTest() : HeaderCheckTest(testing::cheap_options(GetParam())) {}
  explicit HeaderCheckTest(const CreateOptions& options) {
    const HeaderFile file = testing::make_volume(options);
    header_ = file.header();
    bytes_ = std::dynamic_pointer_cast<storage::MemoryDevice>(file.device())->contents();
    const Bytes noise = crypto::random_bytes(testing::kPayloadBytes);
    std::copy(noise.begin(), noise.end(), bytes_.end() - testing::kPayloadBytes);
  }

  void put(std::uint64_t offset, std::string_view text) {
    const ByteView bytes = as_byte_view(text);
    std::copy(bytes.begin(), bytes.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void fill(std::uint64_t offset, std::uint64_t size, std::byte value = std::byte{0}) {
    std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), size, value);
  }

  HeaderCheck check(std::shared_ptr<Device> payload = nullptr) const {
    const auto device = std::make_shared<storage::MemoryDevice>(bytes_, false);
    return check_header(HeaderFile::open(device), {.payload = std::move(payload)});
  }

  std::uint64_t payload_offset() const { return header_.segments.at(0).offset_bytes; }

  Header header_;
  Bytes bytes_;
};

INSTANTIATE_TEST_SUITE_P(Versions, HeaderCheckTest,
                         ::testing::Values(Version::kLuks1, Version::kLuks2),
                         testing::version_name);

TEST_P(HeaderCheckTest, FindsNothingInAGoodVolume) {
  const HeaderCheck result = check();
  EXPECT_THAT(codes(result.findings), IsEmpty());
  ASSERT_EQ(result.keyslots.size(), 1U);
  EXPECT_EQ(result.keyslots[0].blocks, 500U);
  EXPECT_EQ(result.keyslots[0].bad_blocks, 0U);
  EXPECT_DOUBLE_EQ(result.keyslots[0].guesses_per_second.value_or(0), 5.5e6);
}

TEST_P(HeaderCheckTest, LaysOutTheWholeDevice) {
  const HeaderCheck result = check();
  std::uint64_t at = 0;
  for (const LayoutPart& part : result.layout) {
    EXPECT_EQ(part.offset_bytes, at) << part.name;
    EXPECT_GT(part.size_bytes, 0U) << part.name;
    at += part.size_bytes;
  }
  EXPECT_EQ(at, bytes_.size());
  EXPECT_EQ(result.layout.back().name, "payload");
  EXPECT_EQ(result.layout.back().size_bytes, testing::kPayloadBytes);
}

TEST_P(HeaderCheckTest, FindsDamageInKeyMaterial) {
  const std::uint64_t area = header_.keyslots.at(0).area.offset_bytes;
  fill(area + 1024, 512);
  const HeaderCheck result = check();
  EXPECT_THAT(codes(result.findings), UnorderedElementsAre("keyslot-not-random"));
  const Finding& finding = result.findings.front();
  EXPECT_EQ(finding.severity, Severity::kError);
  EXPECT_EQ(finding.object, "keyslot 0");
  EXPECT_EQ(finding.offset_bytes, area + 1024);
  EXPECT_EQ(finding.size_bytes, 512U);
  EXPECT_THAT(finding.problem, HasSubstr("zeroes"));
  EXPECT_EQ(result.keyslots[0].bad_blocks, 1U);
}

TEST_P(HeaderCheckTest, ListsSomePlacesOfManyOnly) {
  const std::uint64_t area = header_.keyslots.at(0).area.offset_bytes;
  for (std::uint64_t i = 0; i < 40; ++i) fill(area + i * 1024, 512);
  const HeaderCheck result = check();
  EXPECT_EQ(codes(result.findings).size(), limits::kCheckRangesMax);
  EXPECT_THAT(result.findings[limits::kCheckRangesMax - 1].problem, HasSubstr("24 more places"));
  EXPECT_EQ(result.keyslots[0].bad_blocks, 40U);
}

TEST_P(HeaderCheckTest, FindsMarksOfOthers) {
  struct Case {
    std::uint64_t offset;
    std::string_view bytes;
    std::string_view name;
  };
  using namespace std::string_view_literals;
  const std::array cases = {
      Case{0x8001, "CD001"sv, "ISO 9660"},
      Case{0x10040, "_BHRfS_M"sv, "btrfs"},
  };
  for (const Case& tested : cases) {
    const Bytes before = bytes_;
    put(tested.offset, tested.bytes);
    const HeaderCheck result = check();
    // Over keyslot 0, where 5 or 8 bytes are too few to show as anything but a mark.
    const Finding finding = only(result, "foreign-signature");
    EXPECT_EQ(finding.severity, Severity::kError);
    EXPECT_EQ(finding.offset_bytes, tested.offset);
    EXPECT_EQ(finding.size_bytes, tested.bytes.size());
    EXPECT_THAT(finding.problem, HasSubstr(tested.name));
    bytes_ = before;
  }
}

TEST_P(HeaderCheckTest, FindsAnExtFileSystemAtThePayload) {
  const std::uint64_t superblock = payload_offset() + 1024;
  fill(superblock, 1024);
  put(superblock + 0x38, "\x53\xef");
  EXPECT_EQ(only(check(), "payload-not-encrypted").offset_bytes, superblock + 0x38);
  // A block size that there is not: chance made the magic.
  fill(superblock + 0x18, 4, std::byte{0x77});
  EXPECT_THAT(codes(check().findings), IsEmpty());
}

TEST_P(HeaderCheckTest, FindsTheBackupOfAPartitionTable) {
  put(bytes_.size() - 512, "EFI PART");
  const HeaderCheck result = check();
  EXPECT_THAT(codes(result.findings), UnorderedElementsAre("backup-gpt"));
  EXPECT_EQ(result.findings[0].offset_bytes, bytes_.size() - 512);
  EXPECT_EQ(result.findings[0].severity, Severity::kWarning);
}

// Of a LUKS2 header with larger metadata, at a place where the volume has nothing.
TEST_P(HeaderCheckTest, FindsTheCopyOfAnotherHeader) {
  constexpr std::uint64_t kOffset = 0x100000;
  CreateOptions options = testing::cheap_options(Version::kLuks2);
  options.metadata_size_bytes = kOffset;
  const Bytes copy = encode_luks2(make_header(options).header, Luks2Copy::kSecondary, Bytes(64));
  std::copy_n(copy.begin(), 4096, bytes_.begin() + static_cast<std::ptrdiff_t>(kOffset));
  const HeaderCheck result = check();
  EXPECT_THAT(codes(result.findings), UnorderedElementsAre("old-header-copy"));
  EXPECT_EQ(only(result, "old-header-copy").offset_bytes, kOffset);
  EXPECT_EQ(only(result, "old-header-copy").severity, Severity::kWarning);
}

TEST_P(HeaderCheckTest, ComparesPlacesWithTheDevice) {
  const Bytes whole = bytes_;
  bytes_.resize(whole.size() - 1000);
  const HeaderCheck odd = check();
  EXPECT_THAT(codes(odd.findings), UnorderedElementsAre("payload-size-odd"));
  EXPECT_EQ(only(odd, "payload-size-odd").severity, Severity::kNote);
  EXPECT_EQ(only(odd, "payload-size-odd").size_bytes, 24U);

  bytes_ = whole;
  bytes_.resize(payload_offset() - 4096);
  EXPECT_EQ(only(check(), "payload-outside").severity, Severity::kError);

  bytes_ = whole;
  bytes_.resize(header_size_bytes(header_));
  EXPECT_EQ(only(check(), "header-only").severity, Severity::kNote);

  bytes_ = whole;
  bytes_.resize(header_.keyslots.at(0).area.offset_bytes + 8192);
  const HeaderCheck cut = check();
  EXPECT_EQ(only(cut, "keyslot-outside").severity, Severity::kError);
  EXPECT_EQ(only(cut, "header-cut").offset_bytes, bytes_.size());
  EXPECT_EQ(cut.keyslots[0].blocks, 0U);
}

TEST_P(HeaderCheckTest, LooksAtADetachedPayload) {
  header_.segments.at(0).offset_bytes = 0;
  if (GetParam() == Version::kLuks1) {
    const Bytes head = encode_luks1(header_);
    std::copy(head.begin(), head.end(), bytes_.begin());
  } else {
    const std::uint64_t size = header_.metadata_size_bytes;
    const Bytes primary = encode_luks2(header_, Luks2Copy::kPrimary, Bytes(64));
    const Bytes secondary = encode_luks2(header_, Luks2Copy::kSecondary, Bytes(64));
    std::copy(primary.begin(), primary.end(), bytes_.begin());
    std::copy(secondary.begin(), secondary.end(),
              bytes_.begin() + static_cast<std::ptrdiff_t>(size));
  }
  EXPECT_EQ(only(check(), "payload-elsewhere").severity, Severity::kNote);
  const auto payload =
      std::make_shared<storage::MemoryDevice>(crypto::random_bytes(testing::kPayloadBytes));
  EXPECT_THAT(codes(check(payload).findings), IsEmpty());
  payload->write(0, as_byte_view("XFSB"));
  const HeaderCheck result = check(payload);
  EXPECT_THAT(codes(result.findings), UnorderedElementsAre("payload-not-encrypted"));
  EXPECT_EQ(result.findings[0].offset_bytes, 0U);
  EXPECT_EQ(only(check(std::make_shared<storage::MemoryDevice>(Bytes{})), "payload-outside").code,
            "payload-outside");
}

class HeaderCheckLuks1Test : public HeaderCheckTest {};
class HeaderCheckLuks2Test : public HeaderCheckTest {};
INSTANTIATE_TEST_SUITE_P(Versions, HeaderCheckLuks1Test, ::testing::Values(Version::kLuks1),
                         testing::version_name);
INSTANTIATE_TEST_SUITE_P(Versions, HeaderCheckLuks2Test, ::testing::Values(Version::kLuks2),
                         testing::version_name);

// A partition table takes bytes 446 to 511: fields of keyslots 4 to 6, which then are impossible.
TEST_P(HeaderCheckLuks1Test, FindsAPartitionTable) {
  fill(446, 64);
  fill(450, 1, std::byte{0x83});
  fill(459, 1, std::byte{0x10});
  put(510, "\x55\xaa");
  const auto device = std::make_shared<storage::MemoryDevice>(bytes_);
  HeaderCheck result;
  try {
    HeaderFile::open(device);
    FAIL() << "the header reads";
  } catch (const Error& error) {
    result = check_broken_header(*device, error);
  }
  EXPECT_THAT(only(result, "header-unusable").problem, HasSubstr("keyslot 4"));
  EXPECT_EQ(only(result, "foreign-signature").offset_bytes, 446U);
  EXPECT_THAT(only(result, "foreign-signature").problem, HasSubstr("MBR"));
}

// In the salt of keyslot 6, which is not in use.
TEST_P(HeaderCheckLuks1Test, TakesNoTwoBytesForAPartitionTable) {
  put(510, "\x55\xaa");
  EXPECT_THAT(codes(check().findings), UnorderedElementsAre("keyslot-not-wiped"));
}

TEST_P(HeaderCheckLuks1Test, FindsAFileSystemInTheGap) {
  put(0x400, "\x10\x20\xf5\xf2");
  const HeaderCheck result = check();
  EXPECT_EQ(only(result, "foreign-signature").severity, Severity::kWarning);
}

TEST_P(HeaderCheckLuks2Test, JudgesTheCopies) {
  const std::uint64_t size = header_.metadata_size_bytes;
  const Bytes whole = bytes_;
  fill(8000, 4, std::byte{'x'});
  HeaderCheck result = check();
  EXPECT_EQ(only(result, "copy-damaged").severity, Severity::kError);
  EXPECT_EQ(only(result, "copy-damaged").object, "primary header");

  bytes_ = whole;
  fill(size, 512);
  result = check();
  EXPECT_EQ(only(result, "copy-absent").object, "secondary header");
  EXPECT_EQ(only(result, "copy-absent").offset_bytes, size);

  bytes_ = whole;
  Header older = header_;
  older.sequence_id -= 1;
  const Bytes stale = encode_luks2(older, Luks2Copy::kSecondary, Bytes(64));
  std::copy(stale.begin(), stale.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(size));
  EXPECT_EQ(only(check(), "copy-stale").severity, Severity::kWarning);

  Header forged = header_;
  forged.label = "forged";
  const Bytes other = encode_luks2(forged, Luks2Copy::kSecondary, Bytes(64));
  std::copy(other.begin(), other.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(size));
  EXPECT_EQ(only(check(), "copies-differ").severity, Severity::kWarning);
}

TEST_P(HeaderCheckLuks2Test, NamesWhatOverwroteTheStart) {
  fill(0, 4096);
  put(0x438, "\x53\xef");
  const HeaderCheck result = check();
  EXPECT_EQ(only(result, "copy-absent").object, "primary header");
  EXPECT_THAT(only(result, "copy-absent").advice, HasSubstr("find out what wrote"));
  EXPECT_THAT(only(result, "foreign-signature").problem, HasSubstr("ext"));
  EXPECT_EQ(only(result, "foreign-signature").severity, Severity::kError);
}

struct SettingsCase {
  std::string_view name;
  std::function<void(Header&)> change;
  std::vector<std::string> codes;
};

// sample: 64-byte key, aes-xts-plain64, one keyslot, unless changed.
Header sample(Version version) {
  return testing::make_volume(testing::cheap_options(version)).header();
}

TEST(HeaderCheckSettings, JudgesLuks2) {
  const auto cipher = [](std::string_view name) {
    return [name](Header& h) { h.segments.at(0).encryption = name; };
  };
  const std::vector<SettingsCase> cases = {
      {"nothing", [](Header&) {}, {}},
      {"null", cipher("cipher_null-ecb"), {"segment-not-encrypted"}},
      {"ecb", cipher("aes-ecb"), {"cipher-weak"}},
      {"ctr", cipher("aes-ctr-plain64"), {"cipher-weak"}},
      {"cbc", cipher("aes-cbc-essiv:sha256"), {"cipher-old"}},
      {"watermarks", cipher("aes-cbc-plain64"), {"cipher-old", "cipher-weak"}},
      {"small blocks", cipher("cast5-cbc-essiv:sha256"), {"cipher-weak", "cipher-old"}},
      {"lrw", cipher("aes-lrw-benbi"), {"cipher-old"}},
      {"null iv", cipher("aes-xts-null"), {"cipher-weak"}},
      {"unknown cipher", cipher("rot13-xts-plain64"), {"cipher-unknown"}},
      {"plain, 3 TiB", cipher("aes-xts-plain"), {"iv-wraps"}},
      {"plain, 2 TiB",
       [](Header& h) {
         h.segments.at(0).encryption = "aes-xts-plain";
         h.segments.at(0).size_bytes = std::uint64_t{1} << 41;
       },
       {}},
      {"128 bits", [](Header& h) { h.keyslots.at(0).key_size_bytes = 32; }, {"key-128"}},
      {"linear",
       [](Header& h) { h.segments.at(0).type = Segment::Type::kLinear; },
       {"segment-not-encrypted"}},
      {"unknown segment",
       [](Header& h) { h.segments.at(0).type = Segment::Type::kUnknown; },
       {"segment-unknown"}},
      {"null keyslot",
       [](Header& h) { h.keyslots.at(0).area.encryption = "cipher_null-ecb"; },
       {"keyslot-not-encrypted"}},
      {"no keyslots",
       [](Header& h) {
         h.keyslots.clear();
         h.digests.at(0).keyslots.clear();
       },
       {"no-keyslot"}},
      {"unbound",
       [](Header& h) {
         h.keyslots[1] = h.keyslots.at(0);
         h.keyslots[1].kdf.salt = Bytes(crypto::random_bytes(32));
         h.digests[1] = h.digests.at(0);
         h.digests[1].keyslots = {1};
         h.digests[1].segments.clear();
       },
       {"keyslot-unbound"}},
      {"unknown keyslot",
       [](Header& h) {
         h.keyslots[1].type = Keyslot::Type::kUnknown;
         h.keyslots[1].type_name = "future";
       },
       {"keyslot-unknown", "keyslot-without-digest"}},
      {"shared salt",
       [](Header& h) {
         h.keyslots[1] = h.keyslots.at(0);
         h.digests.at(0).keyslots.insert(1);
       },
       {"salt-shared"}},
      {"short salt", [](Header& h) { h.keyslots.at(0).kdf.salt.resize(8); }, {"salt-weak"}},
      {"zero salt", [](Header& h) { h.keyslots.at(0).kdf.salt = Bytes(32); }, {"salt-weak"}},
      {"unknown kdf",
       [](Header& h) { h.keyslots.at(0).kdf.type = Kdf::Type::kUnknown; },
       {"kdf-unknown"}},
      {"unknown hash", [](Header& h) { h.keyslots.at(0).kdf.hash = "x"; }, {"kdf-unknown"}},
      {"sha1", [](Header& h) { h.digests.at(0).hash = "sha1"; }, {"hash-old"}},
      {"token", [](Header& h) { h.tokens[3].type = "t"; }, {"token-unassigned"}},
      {"re-encryption",
       [](Header& h) { h.config.requirements = {"online-reencrypt-v2"}; },
       {"reencryption-unfinished"}},
      {"requirement",
       [](Header& h) { h.config.requirements = {"future"}; },
       {"requirement-unknown"}},
  };
  for (const SettingsCase& tested : cases) {
    Header header = sample(Version::kLuks2);
    tested.change(header);
    EXPECT_EQ(codes(check_settings(header, std::uint64_t{3} << 40)), tested.codes) << tested.name;
  }
}

TEST(HeaderCheckSettings, JudgesKeyDerivation) {
  Header header = sample(Version::kLuks2);
  const auto find = [&] {
    std::vector<Finding> findings = check_settings(header, {});
    std::erase_if(findings, [](const Finding& f) { return f.code != "kdf-weak"; });
    return findings;
  };
  ASSERT_EQ(find().size(), 1U);
  EXPECT_EQ(find()[0].severity, Severity::kWarning);
  EXPECT_THAT(find()[0].problem, HasSubstr("5.5 million passphrases a second"));
  EXPECT_THAT(find()[0].problem, HasSubstr("230 days"));
  EXPECT_THAT(find()[0].advice, HasSubstr("--slot 0 --pbkdf argon2id"));
  Kdf& kdf = header.keyslots.at(0).kdf;
  kdf.iterations = 600'000;
  EXPECT_THAT(find(), IsEmpty());
  kdf.type = Kdf::Type::kArgon2id;
  kdf.type_name = "argon2id";
  kdf.iterations = 4;
  kdf.memory_kib = 32;
  ASSERT_EQ(find().size(), 1U);
  EXPECT_THAT(find()[0].problem, HasSubstr("32 KiB and time 4"));
  kdf.memory_kib = 65536;
  EXPECT_THAT(find(), IsEmpty());
}

TEST(HeaderCheckSettings, JudgesLuks1) {
  Header header = sample(Version::kLuks1);
  EXPECT_THAT(codes(check_settings(header, {})), IsEmpty());
  EXPECT_EQ(check_settings(header, {})[0].code, "luks1");
  header.luks1_slots[3].inactive_iterations = 1000;
  header.luks1_key_size_bytes = 32;
  const std::vector<Finding> findings = check_settings(header, {});
  EXPECT_THAT(codes(findings), UnorderedElementsAre("keyslot-not-wiped", "key-128"));
}

// Whatever a header that decodes says, checking it ends and throws nothing.
TEST(HeaderCheckSettings, TakesWhatDecodes) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    static_cast<void>(codes(check_settings(testing::random_luks1(random), {})));
    static_cast<void>(codes(check_settings(testing::random_luks2(random), 1 << 20)));
  }
  EXPECT_THAT(codes(check_settings(testing::sample_reencryption(), {})),
              ::testing::Contains("reencryption-unfinished"));
}

}  // namespace
}  // namespace lukskeep::luks
