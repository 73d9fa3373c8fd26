#include "image/inspect_device.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "image/image_test_tools.h"
#include "luks/crypt_device.h"
#include "storage/memory_device.h"

namespace lukskeep::image {
namespace {

using namespace testing;
using luks::testing::cheap_keyslot;
using luks::testing::cheap_options;
using luks::testing::kFirstPassphrase;

struct Recipe {
  luks::Version version = luks::Version::kLuks2;
  std::uint32_t key_size_bytes = 64;
  int keyslot = 0;
  std::string passphrase = std::string(kFirstPassphrase);
  std::string cipher = "aes-xts-plain64";
};

// A volume with these contents.
Image encrypt(const Image& plain, const Recipe& recipe) {
  luks::CreateOptions options = cheap_options(recipe.version);
  options.key_size_bytes = recipe.key_size_bytes;
  options.cipher = recipe.cipher;
  options.allow_insecure = recipe.cipher.starts_with("cipher_null");
  const luks::NewHeader fresh = luks::make_header(options);
  auto device = std::make_shared<storage::MemoryDevice>(
      Bytes(luks::header_device_bytes(fresh.header) + plain.bytes.size()));
  luks::create_volume(device, fresh, as_byte_view(recipe.passphrase),
                      cheap_keyslot(recipe.keyslot));
  luks::make_crypt_device(fresh.header, device, fresh.volume_key.span(),
                          {.allow_insecure = options.allow_insecure, .writable = true})
      ->write(0, plain.bytes);
  return {.bytes = device->contents()};
}

Unlocker with(std::vector<std::string> passphrases) {
  return [passphrases = std::move(passphrases)](const luks::HeaderFile& file, unsigned layer) {
    const luks::UnlockOptions options{.allow_insecure = true};
    for (const std::string& passphrase : passphrases) {
      if (auto key = luks::unlock(file, as_byte_view(passphrase), options)) return key;
    }
    EXPECT_NE(layer, 99U);
    return std::optional<luks::Unlocked>();
  };
}

Report look(const Image& image, InspectOptions options) {
  return inspect(std::make_shared<storage::MemoryDevice>(image.bytes, false), options);
}

Image evil_qcow2() {
  Image image = qcow2();
  image.be64(8, 512).be32(16, 11).put(512, "/etc/passwd");
  return image;
}

const Finding* find(const Report& report, std::string_view name) {
  for (const Finding& finding : report.findings) {
    if (finding.name == name) return &finding;
  }
  return nullptr;
}

// oslo.utils knows one of these: LUKS1, the first keyslot, a key of 64 bytes.
TEST(InspectDevice, SeesThroughEveryKindOfVolume) {
  for (const luks::Version version : {luks::Version::kLuks1, luks::Version::kLuks2}) {
    for (const std::uint32_t key_size : {32U, 64U}) {
      for (const int keyslot : {0, 3}) {
        const Recipe recipe{.version = version, .key_size_bytes = key_size, .keyslot = keyslot};
        const Report good = look(encrypt(qcow2(), recipe), {.unlock = with({recipe.passphrase})});
        ASSERT_TRUE(good.inner);
        EXPECT_TRUE(good.safe());
        EXPECT_EQ(good.inner->format, "qcow2");
        EXPECT_EQ(good.payload_size_bytes, qcow2().bytes.size());
        EXPECT_EQ(good.virtual_size_bytes, kMiB);
        const Report bad =
            look(encrypt(evil_qcow2(), recipe), {.unlock = with({recipe.passphrase})});
        EXPECT_FALSE(bad.safe());
        EXPECT_NE(find(*bad.inner, "qcow2-backing-file"), nullptr);
      }
    }
  }
}

TEST(InspectDevice, WithoutAKeyWhatIsEncryptedIsUnseen) {
  const Report report = look(encrypt(evil_qcow2(), {}), {});
  EXPECT_TRUE(report.safe());
  EXPECT_FALSE(report.inner);
  EXPECT_NE(find(report, "luks-unseen"), nullptr);
}

TEST(InspectDevice, ThreeLayersDeep) {
  const Recipe luks1{.version = luks::Version::kLuks1};
  const Image one = encrypt(evil_qcow2(), {});
  const Image three = encrypt(encrypt(one, luks1), {.passphrase = "another"});
  const Report report = look(three, {.unlock = with({"another", std::string(kFirstPassphrase)})});
  EXPECT_FALSE(report.safe());
  ASSERT_TRUE(report.inner && report.inner->inner && report.inner->inner->inner);
  EXPECT_EQ(report.inner->format, "luks1");
  EXPECT_EQ(report.inner->inner->inner->format, "qcow2");
  EXPECT_TRUE(look(encrypt(encrypt(encrypt(gpt(), {}), luks1), {}),
                   {.unlock = with({std::string(kFirstPassphrase)})})
                  .safe());
}

TEST(InspectDevice, DeeperIsNotSafe) {
  Image image = gpt();
  for (int layer = 0; layer < 4; ++layer) image = encrypt(image, {});
  const Report report = look(image, {.unlock = with({std::string(kFirstPassphrase)})});
  EXPECT_FALSE(report.safe());
}

TEST(InspectDevice, LayerThatTheKeyDoesNotOpenIsNotSafe) {
  const Image image = encrypt(encrypt(gpt(), {.passphrase = "another"}), {});
  const Report report = look(image, {.unlock = with({std::string(kFirstPassphrase)})});
  EXPECT_FALSE(report.safe());
  EXPECT_NE(find(*report.inner, "luks-unopened"), nullptr);
}

TEST(InspectDevice, DangerousHeaderIsNotOpened) {
  const Image image = encrypt(gpt(), {.cipher = "cipher_null-ecb"});
  bool asked = false;
  const auto unlock = [&](const luks::HeaderFile& file, unsigned layer) {
    asked = true;
    return with({std::string(kFirstPassphrase)})(file, layer);
  };
  EXPECT_FALSE(look(image, {.unlock = unlock}).safe());
  EXPECT_FALSE(asked);
  const Report report =
      look(image, {.inspector = {.expected = {}, .allow = {"luks-null-cipher"}}, .unlock = unlock});
  EXPECT_TRUE(report.safe());
  EXPECT_EQ(report.inner->format, "gpt");
}

TEST(InspectDevice, DetachedHeader) {
  luks::CreateOptions options = cheap_options(luks::Version::kLuks2);
  options.detached = true;
  const luks::NewHeader fresh = luks::make_header(options);
  auto header =
      std::make_shared<storage::MemoryDevice>(Bytes(luks::header_device_bytes(fresh.header)));
  luks::create_volume(header, fresh, as_byte_view(kFirstPassphrase), cheap_keyslot());
  auto payload = std::make_shared<storage::MemoryDevice>(Bytes(evil_qcow2().bytes.size()));
  luks::make_crypt_device(fresh.header, payload, fresh.volume_key.span(), {.writable = true})
      ->write(0, evil_qcow2().bytes);
  const Report report = inspect(payload, {.inspector = {.expected = "luks2", .allow = {}},
                                          .unlock = with({std::string(kFirstPassphrase)}),
                                          .header = header});
  EXPECT_EQ(report.format, "luks2");
  ASSERT_TRUE(report.inner);
  EXPECT_EQ(find(report, "unexpected-format"), nullptr);
  EXPECT_NE(find(*report.inner, "qcow2-backing-file"), nullptr);
  // The header alone is safe, and says that there is no more.
  const Report alone = inspect(header, {.unlock = with({std::string(kFirstPassphrase)})});
  EXPECT_TRUE(alone.safe());
  EXPECT_NE(find(alone, "luks-no-payload"), nullptr);
  EXPECT_THROW(inspect(header, {.header = payload}), Error);
}

}  // namespace
}  // namespace lukskeep::image
