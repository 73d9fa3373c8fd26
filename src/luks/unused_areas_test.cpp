#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/keyslots.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using testing::cheap_keyslot;
using testing::cheap_options;
using testing::kFirstPassphrase;
using testing::kSecondPassphrase;
using testing::make_volume;
using testing::must_unlock;
using testing::opens;

Bytes bytes_of(const HeaderFile& file, const AreaRange& range) {
  Bytes bytes(range.size_bytes);
  file.device()->read(range.offset_bytes, bytes);
  return bytes;
}

AreaRange material_of(const HeaderFile& file, int keyslot) {
  const Keyslot& slot = file.header().keyslots.at(keyslot);
  return {.offset_bytes = slot.area.offset_bytes,
          .size_bytes = material_bytes(slot.key_size_bytes, slot.af.stripes)};
}

class UnusedAreas : public ::testing::TestWithParam<Version> {};
INSTANTIATE_TEST_SUITE_P(Both, UnusedAreas, ::testing::Values(Version::kLuks1, Version::kLuks2),
                         testing::version_name);

// As after a power cut between the commit of a removal and the wiping.
TEST_P(UnusedAreas, WipingCompletesARemovalThatWasInterrupted) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  for (const int id : {1, 2}) {
    add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(id));
  }
  const AreaRange removed = material_of(file, 1);
  const Bytes material = bytes_of(file, removed);
  remove_keyslot(file, 1, false);
  EXPECT_NE(bytes_of(file, removed), material);
  file.device()->write(removed.offset_bytes, material);
  const Bytes payload_before =
      bytes_of(file, {.offset_bytes = file.device()->size_bytes() - testing::kPayloadBytes,
                      .size_bytes = testing::kPayloadBytes});

  std::uint64_t unused_bytes = 0;
  for (const AreaRange& range : unused_areas(file.header())) unused_bytes += range.size_bytes;
  EXPECT_EQ(wipe_unused_areas(file), unused_bytes);

  const Bytes now = bytes_of(file, removed);
  for (std::size_t at = 0; at < material.size(); at += 512) {
    EXPECT_FALSE(std::equal(&material[at], &material[at] + 512, &now[at])) << "sector " << at / 512;
  }
  EXPECT_TRUE(opens(file, kFirstPassphrase, 0));
  EXPECT_TRUE(opens(file, kSecondPassphrase, 2));
  EXPECT_TRUE(HeaderFile::open(file.device()).report().problems.empty());
  EXPECT_EQ(bytes_of(file, {.offset_bytes = file.device()->size_bytes() - testing::kPayloadBytes,
                            .size_bytes = testing::kPayloadBytes}),
            payload_before);
}

TEST_P(UnusedAreas, AndUsedOnesCoverTheKeyslotsAreaWithoutOverlap) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(2));
  remove_keyslot(file, 0, false);
  const std::vector<AreaRange> unused = unused_areas(file.header());
  ASSERT_FALSE(unused.empty());
  const AreaRange used = material_of(file, 2);
  std::uint64_t end = 0;
  for (const AreaRange& range : unused) {
    EXPECT_GE(range.offset_bytes, end);
    end = range.offset_bytes + range.size_bytes;
    EXPECT_TRUE(end <= used.offset_bytes ||
                used.offset_bytes + used.size_bytes <= range.offset_bytes);
  }
  EXPECT_LE(end, header_end_bytes(file.header()));
  if (GetParam() == Version::kLuks1) {
    EXPECT_EQ(unused.size(), 7U);
    return;
  }
  ASSERT_EQ(unused.size(), 2U);
  EXPECT_EQ(unused[0].offset_bytes, 2 * file.header().metadata_size_bytes);
  EXPECT_EQ(end, header_end_bytes(file.header()));
}

TEST_P(UnusedAreas, ThatLieBeyondTheDeviceAreNoFault) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  erase_keyslots(file);
  const std::uint64_t first = unused_areas(file.header()).front().offset_bytes;
  const std::uint64_t needed = header_size_bytes(file.header());
  if (GetParam() == Version::kLuks2) {
    // The whole keyslots area belongs to the header: without it nothing is changed.
    file.device()->resize(needed - 4096);
    EXPECT_THROW(wipe_unused_areas(file), Error);
    return;
  }
  file.device()->resize(first + 4096);
  EXPECT_EQ(wipe_unused_areas(file), 4096U);
}

// A requirement that is not known may mean that the room is not unused at all.
TEST(UnusedAreasLuks2, StayWhereARequirementIsNotKnown) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  HeaderChange change{.header = file.header()};
  change.header.config.requirements.insert("inline-hw-tags");
  file.commit(std::move(change));
  const AreaRange last = unused_areas(file.header()).back();
  const Bytes before = bytes_of(file, last);
  try {
    wipe_unused_areas(file);
    FAIL() << "nothing thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnsupported);
    EXPECT_NE(error.message().find("'inline-hw-tags'"), std::string::npos);
  }
  EXPECT_EQ(bytes_of(file, last), before);
}

// Whatever its type is.
TEST(UnusedAreasLuks2, DoNotHoldThoseOfUnknownKeyslots) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(1));
  const AreaRange area = material_of(file, 1);
  HeaderChange change{.header = file.header()};
  Keyslot foreign{.type = Keyslot::Type::kUnknown, .type_name = "foreign"};
  foreign.key_size_bytes = 64;
  foreign.area.offset_bytes = area.offset_bytes;
  foreign.area.size_bytes = change.header.keyslots.at(1).area.size_bytes;
  change.header.keyslots.at(1) = foreign;
  file.commit(std::move(change));
  const Bytes before = bytes_of(file, area);
  wipe_unused_areas(file);
  EXPECT_EQ(bytes_of(file, area), before);
}

}  // namespace
}  // namespace lukskeep::luks
