#include "image/inspector.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "image/image_test_tools.h"

namespace lukskeep::image {
namespace {

using namespace testing;

Report inspect_all(ByteView bytes, InspectorOptions options = {}) {
  Inspector inspector(std::move(options));
  inspector.feed(bytes);
  return inspector.finish();
}

std::vector<std::string> names(const Report& report) {
  std::vector<std::string> all;
  for (const Finding& finding : report.findings) all.emplace_back(finding.name);
  return all;
}

TEST(Inspector, AnythingElseIsRaw) {
  for (const std::size_t size : {0U, 1U, 511U, 512U, 700'000U}) {
    const Report report = inspect_all(Bytes(size, std::byte{0x5a}));
    EXPECT_EQ(report.format, "raw");
    EXPECT_TRUE(report.safe());
    EXPECT_EQ(report.size_bytes, size);
    EXPECT_EQ(report.virtual_size_bytes, size);
    EXPECT_EQ(report.payload_size_bytes, size);
    EXPECT_TRUE(report.findings.empty());
  }
}

TEST(Inspector, SizesAreExact) {
  struct Case {
    Image image;
    std::uint64_t virtual_size;
    std::uint64_t payload_size;
  };
  for (const Case& c :
       {Case{qcow2(), kMiB, kMiB}, Case{vhd(), 4 * kMiB, 4 * kMiB}, Case{vhd_fixed(), kMiB, kMiB},
        Case{vhdx(), 8 * kMiB, 8 * kMiB}, Case{vmdk(), kMiB, kMiB}, Case{vdi(), 4 * kMiB, 4 * kMiB},
        Case{ploop(), 4 * kMiB, 4 * kMiB}, Case{iso(), 131072, 131072}, Case{gpt(), kMiB, kMiB},
        Case{mbr(), kMiB, kMiB},
        Case{luks1(), luks::testing::kPayloadBytes, luks::testing::kPayloadBytes},
        Case{luks2(), luks::testing::kPayloadBytes, luks::testing::kPayloadBytes}}) {
    const Report report = inspect_all(c.image.bytes);
    EXPECT_EQ(report.virtual_size_bytes, c.virtual_size) << report.format;
    EXPECT_EQ(report.payload_size_bytes, c.payload_size) << report.format;
    EXPECT_EQ(report.size_bytes, c.image.bytes.size()) << report.format;
  }
}

TEST(Inspector, HybridsAndWrappersAreNoPolyglots) {
  Image hybrid = iso();
  put_partition(hybrid, 0, 0, 0, 256);
  put_partition(hybrid, 1, 0xef, 64, 16);
  const Report iso_report = inspect_all(hybrid.bytes);
  EXPECT_TRUE(iso_report.safe());
  EXPECT_EQ(iso_report.formats, (std::vector<std::string>{"iso", "mbr"}));

  Image wrapped = gpt();
  put_vhd_footer(wrapped, kMiB, 2, kMiB);
  const Report vhd_report = inspect_all(wrapped.bytes);
  EXPECT_TRUE(vhd_report.safe());
  EXPECT_EQ(vhd_report.format, "vhd");
  EXPECT_EQ(vhd_report.variant, "fixed");
  EXPECT_EQ(vhd_report.formats, (std::vector<std::string>{"vhd", "gpt"}));
}

// The last cluster of an image ends as the disk in it does.
TEST(Inspector, BackupOfAGptInAContainerIsItsContents) {
  Image image = qcow2();
  image.put(image.bytes.size() - 512, "EFI PART");
  const Report report = inspect_all(image.bytes);
  EXPECT_TRUE(report.safe());
  EXPECT_EQ(report.formats, std::vector<std::string>{"qcow2"});
}

TEST(Inspector, BootSectorsOfFileSystemsAreNoPartitionTables) {
  Image fat = blank(kMiB);
  fat.put(0, "\xeb\x3c\x90").put(16, "\2").put(21, "\xf8").put(446, "code").put(510, "\x55\xaa");
  EXPECT_EQ(inspect_all(fat.bytes).format, "raw");
  Image ntfs = blank(kMiB);
  ntfs.put(0, "\xeb\x52\x90NTFS    ").put(446, "code").put(510, "\x55\xaa");
  EXPECT_EQ(inspect_all(ntfs.bytes).format, "raw");
}

TEST(Inspector, GrownDiskHasItsBackupInTheMiddle) {
  Image image = gpt();
  image.grow(3 * kMiB);
  const Report report = inspect_all(image.bytes);
  EXPECT_TRUE(report.safe());
  EXPECT_EQ(names(report), std::vector<std::string>{"gpt-backup-moved"});
}

TEST(Inspector, ExpectedFormat) {
  struct Case {
    Image image;
    std::string expected;
    bool good;
  };
  for (const Case& c :
       {Case{qcow2(), "qcow2", true}, Case{qcow2(), "raw", false}, Case{mbr(), "raw", true},
        Case{gpt(), "raw", true}, Case{gpt(), "gpt", true}, Case{gpt(), "mbr", false},
        Case{luks1(), "luks", true}, Case{luks2(), "luks", true}, Case{luks2(), "luks1", false},
        Case{vhd_fixed(), "vhd", true}, Case{vhd_fixed(), "raw", false},
        Case{iso(), "raw", false}}) {
    const Report report = inspect_all(c.image.bytes, {.expected = c.expected, .allow = {}});
    EXPECT_EQ(report.safe(), c.good) << report.format << " for " << c.expected;
    EXPECT_EQ(names(report).empty() || report.findings[0].name != "unexpected-format", c.good);
  }
  EXPECT_THROW(check_format_name("qcow3"), Error);
}

TEST(Inspector, AllowedFindingsAreNoDanger) {
  Image image = qcow2();
  image.be64(8, 512).be32(16, 1).be64(72, 2);
  EXPECT_FALSE(inspect_all(image.bytes, {.expected = {}, .allow = {"qcow2-corrupt"}}).safe());
  const Report report = inspect_all(
      image.bytes, {.expected = {}, .allow = parse_allow_list("qcow2-corrupt,qcow2-backing-file")});
  EXPECT_TRUE(report.safe());
  EXPECT_EQ(report.findings.size(), 2U);
}

TEST(Inspector, AllowListNamesFindings) {
  EXPECT_EQ(parse_allow_list("polyglot,mbr-hybrid"), (AllowList{"polyglot", "mbr-hybrid"}));
  for (const auto* text : {"", "polyglot,", ",polyglot", "polyglots", "polyglot mbr-hybrid"}) {
    EXPECT_THROW(parse_allow_list(text), Error) << text;
  }
}

TEST(Inspector, DangerInTheHeadIsKnownWhenItWasFed) {
  Image image = qcow2();
  image.be64(8, 512).grow(2 * limits::kInspectHeadBytes);
  Inspector inspector;
  inspector.feed(ByteView(image.bytes).first(limits::kInspectHeadBytes - 1));
  EXPECT_FALSE(inspector.dangerous());
  inspector.feed(ByteView(image.bytes).subspan(limits::kInspectHeadBytes - 1, 1));
  EXPECT_TRUE(inspector.dangerous());
  EXPECT_FALSE(inspector.so_far().safe());
}

TEST(Inspector, UnexpectedFormatIsKnownEarlyUnlessTheEndDecides) {
  Image other = vhdx();
  Inspector early({.expected = "qcow2", .allow = {}});
  early.feed(ByteView(other.bytes).first(limits::kInspectHeadBytes));
  EXPECT_TRUE(early.dangerous());

  const Image fixed = vhd_fixed();
  Inspector late({.expected = "vhd", .allow = {}});
  late.feed(ByteView(fixed.bytes).first(limits::kInspectHeadBytes));
  EXPECT_FALSE(late.dangerous());
  late.feed(ByteView(fixed.bytes).subspan(limits::kInspectHeadBytes));
  EXPECT_TRUE(late.finish().safe());
}

TEST(Inspector, FindingsHaveNamesOfTheirOwn) {
  AllowList seen;
  for (const FindingKind& kind : all_finding_kinds()) {
    EXPECT_TRUE(seen.emplace(kind.name).second) << kind.name;
    EXPECT_FALSE(kind.remedy.empty()) << kind.name;
    EXPECT_EQ(find_finding_kind(kind.name), &kind);
  }
}

}  // namespace
}  // namespace lukskeep::image
