#include "luks/header_backup.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using storage::MemoryDevice;
using testing::cheap_keyslot;
using testing::cheap_options;
using testing::kFirstPassphrase;
using testing::kSecondPassphrase;
using testing::make_volume;
using testing::must_unlock;
using testing::opens;

std::shared_ptr<MemoryDevice> backup_of(const HeaderFile& file) {
  return std::make_shared<MemoryDevice>(backup_header(file), false);
}

bool mentions(const std::vector<Objection>& objections, std::string_view text) {
  return std::ranges::any_of(objections, [&](const Objection& objection) {
    return objection.text.find(text) != std::string::npos;
  });
}

bool mentions(const std::vector<std::string>& lines, std::string_view text) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

class HeaderBackup : public ::testing::TestWithParam<Version> {};

TEST_P(HeaderBackup, RestoresWhatWasDamaged) {
  const HeaderFile file = make_volume(cheap_options(GetParam()));
  const auto backup = backup_of(file);
  EXPECT_EQ(backup->size_bytes() % 4096, 0U);
  file.device()->write(0, Bytes(backup->size_bytes(), std::byte{0x5a}));
  EXPECT_THROW(HeaderFile::open(file.device()), Error);
  const RestorePlan plan = plan_restore(backup, file.device());
  EXPECT_FALSE(plan.present);
  EXPECT_TRUE(mentions(plan.objections, "holds other data"));
  restore_header(plan, *file.device());
  EXPECT_TRUE(opens(HeaderFile::open(file.device()), kFirstPassphrase));
}

TEST_P(HeaderBackup, RestoresToZeroesWithoutObjection) {
  const HeaderFile file = make_volume(cheap_options(GetParam()));
  const auto backup = backup_of(file);
  file.device()->write_zeroes(0, backup->size_bytes(), ZeroMode::kAllocate);
  const RestorePlan plan = plan_restore(backup, file.device());
  EXPECT_TRUE(plan.objections.empty());
  restore_header(plan, *file.device());
  EXPECT_TRUE(opens(HeaderFile::open(file.device()), kFirstPassphrase));
}

TEST_P(HeaderBackup, RefusesAHeaderThatChangedSinceItWasShown) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const auto backup = backup_of(file);
  const RestorePlan plan = plan_restore(backup, file.device());
  add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view(kSecondPassphrase),
              cheap_keyslot(1));
  try {
    restore_header(plan, *file.device());
    FAIL() << "restored over a change";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kConflict);
  }
  EXPECT_TRUE(opens(HeaderFile::open(file.device()), kSecondPassphrase));
}

TEST_P(HeaderBackup, SaysWhatARestoreWouldBringBack) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(1));
  const auto backup = backup_of(file);
  remove_keyslot(file, 1, false);
  const RestorePlan plan = plan_restore(backup, file.device());
  EXPECT_TRUE(mentions(plan.notes, "keyslots 1 come back"));
  EXPECT_TRUE(mentions(plan.objections, "older"));
}

TEST_P(HeaderBackup, ObjectsToAnotherVolumesHeader) {
  const auto backup = backup_of(make_volume(cheap_options(GetParam())));
  const HeaderFile other = make_volume(cheap_options(GetParam()));
  const RestorePlan plan = plan_restore(backup, other.device());
  EXPECT_TRUE(mentions(plan.objections, "the backup is of volume"));
  EXPECT_TRUE(mentions(plan.objections, "another volume key"));
}

TEST_P(HeaderBackup, ATruncatedBackupIsRefused) {
  Bytes bytes = backup_header(make_volume(cheap_options(GetParam())));
  bytes.resize(bytes.size() - 4096);
  const HeaderFile target = make_volume(cheap_options(GetParam()));
  EXPECT_THROW(plan_restore(std::make_shared<MemoryDevice>(bytes), target.device()), Error);
  EXPECT_TRUE(opens(HeaderFile::open(target.device()), kFirstPassphrase));
}

INSTANTIATE_TEST_SUITE_P(Both, HeaderBackup, ::testing::Values(Version::kLuks1, Version::kLuks2),
                         testing::version_name);

TEST(HeaderBackupDamage, IsNotPreservedUnlessAsked) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  file.device()->write(5000, Bytes(1, std::byte{0x5a}));
  const HeaderFile damaged = HeaderFile::open(file.device());
  ASSERT_FALSE(damaged.report().problems.empty());
  EXPECT_THROW(backup_header(damaged), Error);
  EXPECT_NO_THROW(backup_header(damaged, true));
}

// A payload may start right behind the last keyslot area, and that area may end anywhere.
TEST(HeaderBackupLegacy, ThePayloadBehindAnUnalignedHeaderIsLeftAlone) {
  CreateOptions options = cheap_options(Version::kLuks1);
  options.key_size_bytes = 16;
  options.cipher = "aes-cbc-essiv:sha256";
  const HeaderFile made = make_volume(options);
  Header header = made.header();
  Luks1Slot& last = header.luks1_slots.back();
  header.segments.at(0).offset_bytes =
      std::uint64_t{last.material_offset_sectors} * 512 + material_bytes(16, last.stripes);
  ASSERT_NE(header.segments.at(0).offset_bytes % 4096, 0U);
  made.device()->write(0, encode_luks1(header));
  const HeaderFile file = HeaderFile::open(made.device());
  const std::uint64_t payload = payload_offset_bytes(file.header());
  const auto backup = backup_of(file);
  const Bytes data(4096, std::byte{0x77});
  file.device()->write(payload, data);
  file.device()->write(0, Bytes(512));
  restore_header(plan_restore(backup, file.device()), *file.device());
  Bytes back(data.size());
  file.device()->read(payload, back);
  EXPECT_EQ(back, data);
  EXPECT_TRUE(opens(HeaderFile::open(file.device()), kFirstPassphrase));
}

TEST(HeaderBackupObjections, AnUnreadableTargetThatDoesNotNameTheVolume) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const auto own = backup_of(file);
  const auto other = backup_of(make_volume(cheap_options(Version::kLuks2)));
  // Both copies damaged, the UUIDs left.
  file.device()->write(5000, Bytes(1, std::byte{0x5a}));
  file.device()->write(0x4000 + 5000, Bytes(1, std::byte{0x5a}));
  EXPECT_TRUE(plan_restore(own, file.device()).objections.empty());
  EXPECT_TRUE(mentions(plan_restore(other, file.device()).objections, "nothing in it says"));
}

TEST(HeaderBackupObjections, AnotherPayload) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const auto backup = backup_of(file);
  Header header = file.header();
  header.segments.at(0).encryption = "aes-cbc-essiv:sha256";
  HeaderFile changed = HeaderFile::open(file.device());
  changed.commit({.header = header});
  EXPECT_TRUE(mentions(plan_restore(backup, file.device()).objections, "describes the payload"));
}

// A new disk label over an old volume: its second copy alone does not make it one again.
TEST(HeaderBackupObjections, OtherDataBeforeAStaleSecondCopy) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const auto backup = backup_of(file);
  const Bytes label(512, std::byte{0x33});
  file.device()->write(0, Bytes(4096));
  file.device()->write(0, label);
  EXPECT_TRUE(mentions(plan_restore(backup, file.device()).objections, "holds other data"));
  HeaderFile stale = HeaderFile::open(file.device());
  ASSERT_TRUE(stale.report().foreign_start);
  HeaderChange change{.header = stale.header()};
  change.header.label = "new";
  EXPECT_THROW(stale.commit(change), Error);
  Bytes back(label.size());
  file.device()->read(0, back);
  EXPECT_EQ(back, label);
  change.overwrite_foreign = true;
  stale.commit(change);
  EXPECT_TRUE(HeaderFile::open(file.device()).report().problems.empty());
  // Zeroes are nobody's data.
  file.device()->write(0, Bytes(4096));
  EXPECT_FALSE(HeaderFile::open(file.device()).report().foreign_start);
}

TEST(HeaderBackupVersions, AnObjectionAndNotACrash) {
  const auto backup = backup_of(make_volume(cheap_options(Version::kLuks1)));
  const HeaderFile target = make_volume(cheap_options(Version::kLuks2));
  EXPECT_TRUE(mentions(plan_restore(backup, target.device()).objections, "LUKS1"));
}

}  // namespace
}  // namespace lukskeep::luks
