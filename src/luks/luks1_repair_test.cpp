#include "luks/luks1_repair.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "crypto/random.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using testing::cheap_options;
using testing::kFirstPassphrase;
using testing::make_volume;
using testing::opens;

struct Damage {
  const char* name;
  std::size_t offset;
  std::size_t size;
  const char* change;  // empty: it cannot be mended
};

// Offsets of LUKS1 §3.1.
const Damage kDamages[] = {
    {"Magic", 0, 6, "magic"},
    {"Version", 6, 2, "magic"},
    {"MagicAndVersion", 0, 8, "magic"},
    {"Uuid", 168, 40, "UUID"},
    {"StripesOfAnActiveKeyslot", 208 + 44, 4, "stripes of keyslot 0"},
    {"StripesOfAnUnusedKeyslot", 208 + 7 * 48 + 44, 4, "stripes of keyslot 7"},
    {"PlaceOfAnActiveKeyslot", 208 + 40, 4, "place of keyslot 0"},
    {"PlaceOfAnUnusedKeyslot", 208 + 3 * 48 + 40, 4, "place of keyslot 3"},
    {"CipherName", 8, 16, ""},
    {"Hash", 72, 16, ""},
    {"KeySize", 108, 4, ""},
};

Luks1Repair must_mend(ByteView damaged) {
  auto repair = mend_luks1(damaged);
  if (!repair) throw std::runtime_error("nothing was mended");
  return std::move(*repair);
}

class Mend : public ::testing::TestWithParam<Damage> {};

TEST_P(Mend, WhatCanBeKnown) {
  const Damage& damage = GetParam();
  const HeaderFile file = make_volume(cheap_options(Version::kLuks1));
  Device& device = *file.device();
  device.write(damage.offset, Bytes(damage.size, std::byte{0xee}));
  EXPECT_THROW(HeaderFile::open(file.device()), Error);
  Bytes head(kLuks1HeaderBytes);
  device.read(0, head);
  if (*damage.change == '\0') {
    EXPECT_FALSE(mend_luks1(head));
    return;
  }
  const Luks1Repair repair = must_mend(head);
  EXPECT_EQ(repair.changes.size(), 1U);
  EXPECT_NE(repair.changes.front().find(damage.change), std::string::npos);
  write_mended(device, head, repair);
  EXPECT_TRUE(opens(HeaderFile::open(file.device()), kFirstPassphrase));
}

INSTANTIATE_TEST_SUITE_P(Each, Mend, ::testing::ValuesIn(kDamages),
                         [](const ::testing::TestParamInfo<Damage>& tested) {
                           return std::string(tested.param.name);
                         });

TEST(MendLuks1, NothingIsMadeOfOtherData) {
  EXPECT_FALSE(mend_luks1(Bytes(kLuks1HeaderBytes)));
  EXPECT_FALSE(mend_luks1(Bytes(100)));
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(mend_luks1(crypto::random_bytes(kLuks1HeaderBytes)));
  }
}

TEST(MendLuks1, AWholeHeaderIsLeftAlone) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks1));
  Bytes head(kLuks1HeaderBytes);
  file.device()->read(0, head);
  EXPECT_FALSE(mend_luks1(head));
}

TEST(MendLuks1, AHeaderThatChangedMeanwhileIsNotOverwritten) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks1));
  Bytes head(kLuks1HeaderBytes);
  file.device()->read(0, head);
  Bytes damaged = head;
  damaged[0] = std::byte{0};
  EXPECT_THROW(write_mended(*file.device(), damaged, must_mend(damaged)), Error);
}

}  // namespace
}  // namespace lukskeep::luks
