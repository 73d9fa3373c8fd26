#include "luks/header_file.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/luks2_codec.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using testing::cheap_keyslot;
using testing::cheap_options;
using testing::contents;
using testing::kFirstPassphrase;
using testing::kSecondPassphrase;
using testing::make_volume;
using testing::must_unlock;
using testing::opens;
using testing::reopen;

HeaderChange label_change(const HeaderFile& file, std::string label) {
  HeaderChange change{.header = file.header()};
  change.header.label = std::move(label);
  return change;
}

TEST(HeaderFile, SecondaryServesWhenThePrimaryIsGone) {
  for (const std::uint64_t metadata : kLuks2MetadataSizes) {
    CreateOptions options = cheap_options(Version::kLuks2);
    options.metadata_size_bytes = metadata;
    HeaderFile file = make_volume(options);
    file.commit(label_change(file, "kept"));
    Bytes bytes = contents(file);
    std::fill_n(bytes.begin(), 8192, std::byte{0x5a});
    const HeaderFile found = reopen(bytes);
    EXPECT_EQ(found.header().label, "kept");
    EXPECT_EQ(found.report().primary, CopyState::kAbsent);
    EXPECT_EQ(found.report().secondary_offset_bytes, metadata);
    EXPECT_EQ(found.report().problems.size(), 1U);
    EXPECT_TRUE(opens(found, kFirstPassphrase)) << metadata;
  }
}

TEST(HeaderFile, SecondaryServesWhenThePrimaryHasAnUnknownVersion) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  Bytes bytes = contents(file);
  bytes[7] = std::byte{9};
  const HeaderFile found = reopen(bytes);
  EXPECT_EQ(found.report().primary, CopyState::kDamaged);
  EXPECT_TRUE(opens(found, kFirstPassphrase));
}

TEST(HeaderFile, ReadingNeverWritesAndACommitMendsBothCopies) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const std::uint64_t metadata = file.header().metadata_size_bytes;
  for (const std::size_t damaged_at :
       {std::size_t{4097}, static_cast<std::size_t>(metadata) + 4097}) {
    Bytes bytes = contents(file);
    bytes[damaged_at] ^= std::byte{1};
    auto device = std::make_shared<storage::MemoryDevice>(bytes);
    HeaderFile found = HeaderFile::open(device);
    EXPECT_EQ(found.report().problems.size(), 1U);
    EXPECT_TRUE(opens(found, kFirstPassphrase));
    EXPECT_EQ(device->contents(), bytes);
    found.commit(label_change(found, "mended"));
    EXPECT_TRUE(HeaderFile::open(device).report().problems.empty());
  }
}

TEST(HeaderFile, TheHigherSequenceIdWins) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Bytes old = contents(file);
  file.commit(label_change(file, "newer"));
  const auto metadata = static_cast<std::ptrdiff_t>(file.header().metadata_size_bytes);
  Bytes stale_primary = contents(file);
  std::copy_n(old.begin(), metadata, stale_primary.begin());
  const HeaderFile first = reopen(stale_primary);
  EXPECT_EQ(first.header().label, "newer");
  EXPECT_EQ(first.report().primary, CopyState::kStale);
  Bytes stale_secondary = contents(file);
  std::copy_n(old.begin() + metadata, metadata, stale_secondary.begin() + metadata);
  const HeaderFile second = reopen(stale_secondary);
  EXPECT_EQ(second.header().label, "newer");
  EXPECT_EQ(second.report().secondary, CopyState::kStale);
}

TEST(HeaderFile, BothCopiesBadIsDamageThatNamesBoth) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  Bytes bytes = contents(file);
  bytes[4100] ^= std::byte{1};
  bytes[file.header().metadata_size_bytes + 6] = std::byte{9};
  try {
    reopen(bytes);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kDamaged);
    EXPECT_NE(error.message().find("primary LUKS2 header"), std::string::npos);
    EXPECT_NE(error.message().find("secondary LUKS2 header"), std::string::npos);
  }
}

TEST(HeaderFile, ForeignDataIsNotLuks) {
  for (const std::size_t size : {0U, 1U, 7U, 511U, 592U, 5000U, 100'000U}) {
    try {
      reopen(Bytes(size, std::byte{0x42}));
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kNotLuks) << size;
    }
  }
}

TEST(HeaderFile, AConcurrentChangeIsRefused) {
  for (const Version version : {Version::kLuks1, Version::kLuks2}) {
    HeaderFile mine = make_volume(cheap_options(version));
    HeaderFile theirs = HeaderFile::open(mine.device());
    add_keyslot(theirs, must_unlock(theirs, kFirstPassphrase), as_byte_view(kSecondPassphrase),
                cheap_keyslot());
    try {
      add_keyslot(mine, must_unlock(mine, kFirstPassphrase), as_byte_view("x"), cheap_keyslot(2));
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kConflict);
    }
    EXPECT_TRUE(opens(HeaderFile::open(mine.device()), kSecondPassphrase));
  }
}

TEST(HeaderFile, ReadOnlyDeviceIsRefusedBeforeAnyWrite) {
  const Bytes bytes = contents(make_volume(cheap_options(Version::kLuks2)));
  HeaderFile file = HeaderFile::open(std::make_shared<storage::MemoryDevice>(bytes, false));
  try {
    file.commit(label_change(file, "x"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kReadOnly);
  }
}

TEST(HeaderFile, JsonThatDoesNotFitIsRefusedBeforeAnyWrite) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Bytes before = contents(file);
  HeaderChange change{.header = file.header()};
  change.header.tokens[0] = parse_token(
      R"({"type":"big","keyslots":[],"x":")" + std::string(13'000, 'x') + R"("})", "token");
  EXPECT_THROW(file.commit(std::move(change)), Error);
  EXPECT_EQ(contents(file), before);
}

}  // namespace
}  // namespace lukskeep::luks
