#include "image/probe.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "image/inspector.h"
#include "luks/luks2_codec.h"

namespace lukskeep::image {
namespace {

// What is allowed, however often, does not keep out what is not.
TEST(Match, KeepsSoManyFindingsOfEachKind) {
  Match match;
  for (std::size_t i = 0; i < 3 * limits::kInspectFindingsMax; ++i) {
    match.add("qcow2-backing-file", std::to_string(i));
  }
  match.add("qcow2-data-file", "a danger");
  const auto count = [&](std::string_view name) {
    return static_cast<std::size_t>(std::ranges::count(match.findings, name, &Finding::name));
  };
  EXPECT_EQ(count("qcow2-backing-file"), limits::kInspectFindingsMax);
  EXPECT_EQ(count("qcow2-data-file"), 1U);
}

// Others open a volume by its second copy alone, also where that is far into the image.
TEST(LuksProbe, FindsASecondCopyAtEveryPlace) {
  for (const std::uint64_t offset : luks::kLuks2MetadataSizes) {
    SCOPED_TRACE(offset);
    Bytes bytes(5 * limits::kMiB);
    std::ranges::copy(as_byte_view("SKUL\xba\xbe"),
                      bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    Inspector inspector{InspectorOptions{}};
    inspector.feed(bytes);
    const Report report = inspector.finish();
    EXPECT_EQ(report.format, "luks2");
    EXPECT_FALSE(report.safe());
    EXPECT_TRUE(std::ranges::any_of(
        report.findings, [](const Finding& finding) { return finding.name == "luks-copies"; }));
  }
}

}  // namespace
}  // namespace lukskeep::image
