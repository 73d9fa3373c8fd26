#include "luks/create.h"

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "crypto/cipher_spec.h"
#include "luks/crypt_device.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using testing::cheap_keyslot;
using testing::cheap_options;
using testing::kFirstPassphrase;
using testing::make_volume;
using testing::must_unlock;
using testing::opens;

TEST(Create, DefaultsAreThoseOfCryptsetup) {
  const NewHeader luks2 = make_header({.digest_iterations = 1000});
  EXPECT_EQ(luks2.volume_key.size(), 64U);
  EXPECT_EQ(luks2.header.metadata_size_bytes, 0x4000U);
  EXPECT_EQ(luks2.header.config.keyslots_size_bytes, 16'744'448U);
  EXPECT_EQ(luks2.header.segments.at(0).offset_bytes, 16U << 20);
  EXPECT_EQ(luks2.header.segments.at(0).sector_size_bytes, 4096U);

  const NewHeader luks1 = make_header({.version = Version::kLuks1, .digest_iterations = 1000});
  EXPECT_EQ(luks1.header.luks1_slots.at(0).material_offset_sectors, 8U);
  EXPECT_EQ(luks1.header.luks1_slots.at(1).material_offset_sectors, 8U + 504);
  EXPECT_EQ(luks1.header.segments.at(0).offset_bytes, 4096U * 512);
}

// LUKS1 §2.4, table 2: key bits, stride and payload offset in sectors.
TEST(Create, Luks1Geometry) {
  struct Row {
    std::uint32_t key_bytes;
    std::uint32_t stride;
    std::uint64_t payload;
  };
  for (const Row& row : {Row{16, 128, 2048}, Row{32, 256, 4096}, Row{64, 504, 4096}}) {
    CreateOptions options{.version = Version::kLuks1, .digest_iterations = 1000};
    options.cipher = row.key_bytes == 16 ? "aes-cbc-plain64" : "aes-xts-plain64";
    options.key_size_bytes = row.key_bytes;
    const Header header = make_header(options).header;
    EXPECT_EQ(header.luks1_slots.at(7).material_offset_sectors, 8 + 7 * row.stride);
    EXPECT_EQ(header.segments.at(0).offset_bytes / 512, row.payload);
  }
}

TEST(Create, EveryCipherAndKeySizeOpensAndKeepsData) {
  for (const crypto::CipherSpec& spec : crypto::all_cipher_specs()) {
    if (crypto::is_insecure(spec)) continue;
    for (const std::uint32_t key_bytes : crypto::key_sizes_bytes(spec)) {
      for (const Version version : {Version::kLuks1, Version::kLuks2}) {
        CreateOptions options = cheap_options(version);
        options.cipher = crypto::to_string(spec);
        options.key_size_bytes = key_bytes;
        SCOPED_TRACE(options.cipher);
        const HeaderFile file = make_volume(options);
        const Unlocked key = must_unlock(file, kFirstPassphrase);
        const auto device =
            make_crypt_device(file.header(), file.device(), key.key.span(), {.writable = true});
        const Bytes data(2000, std::byte{0x77});
        device->write(300, data);
        Bytes read(2000);
        device->read(300, read);
        ASSERT_EQ(read, data) << key_bytes;
      }
    }
  }
}

TEST(Create, EveryHash) {
  for (const char* hash : {"sha1", "sha256", "sha512", "ripemd160", "whirlpool", "sha3-256",
                           "blake2b-512", "blake2s-256"}) {
    for (const Version version : {Version::kLuks1, Version::kLuks2}) {
      CreateOptions options = cheap_options(version);
      options.hash = hash;
      const NewHeader fresh = make_header(options);
      NewKeyslot keyslot = cheap_keyslot();
      keyslot.cost.hash = hash;
      const HeaderFile file = create_volume(testing::blank_device(fresh.header), fresh,
                                            as_byte_view(kFirstPassphrase), keyslot);
      EXPECT_TRUE(opens(file, kFirstPassphrase)) << hash;
      EXPECT_FALSE(opens(file, "wrong")) << hash;
    }
  }
}

TEST(Create, AnOldVolumesHeadersDoNotShineThrough) {
  CreateOptions old = cheap_options(Version::kLuks2);
  old.metadata_size_bytes = 0x10000;
  old.label = "old";
  const HeaderFile file = make_volume(old);
  const NewHeader fresh = make_header(cheap_options(Version::kLuks1));
  auto device = std::make_shared<storage::MemoryDevice>([&] {
    Bytes bytes(std::max(file.device()->size_bytes(), header_device_bytes(fresh.header) + 4096));
    file.device()->read(0, MutableBytes(bytes).first(file.device()->size_bytes()));
    return bytes;
  }());
  create_volume(device, fresh, as_byte_view("new"), cheap_keyslot());
  Bytes bytes = device->contents();
  std::fill_n(bytes.begin(), 4096, std::byte{0});
  EXPECT_THROW(HeaderFile::open(std::make_shared<storage::MemoryDevice>(bytes)), Error);
}

TEST(Create, WhatItRefuses) {
  struct Row {
    const char* name;
    std::function<void(CreateOptions&)> change;
    Code code;
  };
  const std::vector<Row> rows = {
      {"sector", [](auto& o) { o.sector_size_bytes = 513; }, Code::kInvalidArgument},
      {"sector 8192", [](auto& o) { o.sector_size_bytes = 8192; }, Code::kInvalidArgument},
      {"luks1 sector",
       [](auto& o) {
         o.version = Version::kLuks1;
         o.sector_size_bytes = 4096;
       },
       Code::kInvalidArgument},
      {"luks1 label",
       [](auto& o) {
         o.version = Version::kLuks1;
         o.label = "x";
       },
       Code::kInvalidArgument},
      {"label", [](auto& o) { o.label = std::string(48, 'x'); }, Code::kInvalidArgument},
      {"label bytes", [](auto& o) { o.label = "\xff"; }, Code::kInvalidArgument},
      {"uuid", [](auto& o) { o.uuid = "not-a-uuid"; }, Code::kInvalidArgument},
      {"metadata", [](auto& o) { o.metadata_size_bytes = 0x5000; }, Code::kInvalidArgument},
      {"keyslots", [](auto& o) { o.keyslots_size_bytes = 4095; }, Code::kInvalidArgument},
      {"keyslots max", [](auto& o) { o.keyslots_size_bytes = 256U << 20; }, Code::kInvalidArgument},
      {"offset in header", [](auto& o) { o.payload_offset_bytes = 4096; }, Code::kInvalidArgument},
      {"offset unaligned", [](auto& o) { o.payload_offset_bytes = (16U << 20) + 512; },
       Code::kInvalidArgument},
      {"cipher", [](auto& o) { o.cipher = "rot13-xts-plain64"; }, Code::kUnsupported},
      {"capi", [](auto& o) { o.cipher = "capi:xts(aes-generic)-plain64"; }, Code::kUnsupported},
      {"null", [](auto& o) { o.cipher = "cipher_null-ecb"; }, Code::kUnsafe},
      {"key size", [](auto& o) { o.key_size_bytes = 33; }, Code::kUnsupported},
      {"key sizes differ",
       [](auto& o) {
         o.key_size_bytes = 64;
         o.volume_key = SecretBytes(32);
       },
       Code::kInvalidArgument},
      {"hash", [](auto& o) { o.hash = "crc32"; }, Code::kUnsupported},
  };
  for (const Row& row : rows) {
    CreateOptions options{.digest_iterations = 1000};
    row.change(options);
    try {
      make_header(options);
      ADD_FAILURE() << row.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), row.code) << row.name << ": " << error.message();
    }
  }
}

TEST(Create, DeviceTooSmallIsNotTouched) {
  const NewHeader fresh = make_header(cheap_options(Version::kLuks2));
  auto device = std::make_shared<storage::MemoryDevice>(Bytes(100'000));
  EXPECT_THROW(create_volume(device, fresh, as_byte_view("x"), cheap_keyslot()), Error);
  EXPECT_TRUE(all_zero(device->contents()));
}

TEST(Create, APendingHeaderIsNoneUntilItIsWritten) {
  for (const Version version : {Version::kLuks1, Version::kLuks2}) {
    const HeaderFile old = make_volume(cheap_options(version));
    const std::shared_ptr<Device>& device = old.device();
    const NewHeader fresh = make_header(cheap_options(version));
    PendingHeader pending(device, fresh, as_byte_view("x"), cheap_keyslot());
    EXPECT_THROW(HeaderFile::open(device), Error);
    pending.write();
    EXPECT_TRUE(opens(HeaderFile::open(device), "x"));
    EXPECT_FALSE(opens(HeaderFile::open(device), kFirstPassphrase));
  }
}

}  // namespace
}  // namespace lukskeep::luks
