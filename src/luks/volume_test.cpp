#include <lukskeep/volume.h>

#include <memory>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/test_volume.h"

namespace lukskeep {
namespace {

using luks::Version;
using luks::testing::cheap_options;
using luks::testing::kFirstPassphrase;
using luks::testing::make_volume;

class VolumeFacade : public ::testing::TestWithParam<Version> {};
INSTANTIATE_TEST_SUITE_P(Both, VolumeFacade, ::testing::Values(Version::kLuks1, Version::kLuks2),
                         luks::testing::version_name);

TEST_P(VolumeFacade, WhatIsWrittenIsReadByTheNext) {
  const std::shared_ptr<Device> device = make_volume(cheap_options(GetParam())).device();
  const Bytes data(1000, std::byte{0x42});
  {
    Volume volume = Volume::open(device, device);
    EXPECT_FALSE(volume.unlock(as_byte_view("wrong")));
    EXPECT_THROW(volume.activate(Access::kRead), Error);
    ASSERT_EQ(volume.unlock(as_byte_view(kFirstPassphrase)), 0);
    volume.activate(Access::kReadWrite)->write(700, data);
  }
  Volume volume = Volume::open(device, device);
  ASSERT_TRUE(volume.unlock(as_byte_view(kFirstPassphrase)));
  Bytes back(data.size());
  volume.activate(Access::kRead)->read(700, back);
  EXPECT_EQ(back, data);
}

// A detached header says that the payload is at byte 0 of another device: not of its own.
TEST_P(VolumeFacade, APayloadInsideTheHeaderIsNone) {
  auto options = cheap_options(GetParam());
  options.detached = true;
  const std::shared_ptr<Device> device = make_volume(options).device();
  Volume volume = Volume::open(device, device);
  ASSERT_TRUE(volume.unlock(as_byte_view(kFirstPassphrase)));
  for (const Access access : {Access::kRead, Access::kReadWrite}) {
    try {
      volume.activate(access);
      ADD_FAILURE() << "the header is taken for a payload";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsafe);
    }
  }
}

}  // namespace
}  // namespace lukskeep
