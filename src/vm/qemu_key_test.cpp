#include "vm/qemu_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <openssl/evp.h>

#include "keys/secret_text.h"

namespace lukskeep::vm {
namespace {

using ::testing::HasSubstr;

luks::Header luks1(const std::string& encryption, const std::string& hash = "sha256") {
  luks::Header header;
  header.version = luks::Version::kLuks1;
  header.segments[0].encryption = encryption;
  header.digests[0].hash = hash;
  return header;
}

TEST(QemuKey, WhatQemuOpens) {
  for (const char* encryption : {"aes-xts-plain64", "aes-cbc-essiv:sha256", "serpent-xts-plain64",
                                 "twofish-cbc-plain", "cast5-cbc-plain64", "aes-ctr-plain64"}) {
    EXPECT_EQ(why_not_in_qemu(luks1(encryption), as_byte_view("k")), "") << encryption;
  }
  for (const char* encryption :
       {"aes-ecb", "camellia-xts-plain64", "aes-lrw-benbi", "aes-cbc-eboiv", "aes-xts-plain64be",
        "cipher_null-ecb", "nonsense", "aes-cbc-essiv:whirlpool"}) {
    EXPECT_THAT(why_not_in_qemu(luks1(encryption), as_byte_view("k")), HasSubstr("it has no"))
        << encryption;
  }
  EXPECT_THAT(why_not_in_qemu(luks1("aes-xts-plain64", "whirlpool"), as_byte_view("k")),
              HasSubstr("it has no whirlpool"));
  luks::Header luks2 = luks1("aes-xts-plain64");
  luks2.version = luks::Version::kLuks2;
  EXPECT_EQ(why_not_in_qemu(luks2, as_byte_view("k")), "it knows LUKS1 only");
}

TEST(QemuKey, PassphrasesThatQemuTakes) {
  const luks::Header header = luks1("aes-xts-plain64");
  EXPECT_EQ(why_not_in_qemu(header, as_byte_view("\xc3\xa9\n")), "");
  EXPECT_THAT(why_not_in_qemu(header, as_byte_view("\xff")), HasSubstr("UTF-8"));
  EXPECT_THAT(why_not_in_qemu(header, as_byte_view(std::string_view("a\0b", 3))),
              HasSubstr("UTF-8"));
  EXPECT_THAT(why_not_in_qemu(header, {}), HasSubstr("volume key"));
}

TEST(QemuKey, SealedPassphrasesOpenWithTheirKey) {
  for (const std::size_t size : {1U, 15U, 16U, 17U, 1000U}) {
    const std::string passphrase(size, 'p');
    const SealedPassphrase sealed = seal_passphrase(as_byte_view(passphrase));
    const auto iv = keys::from_secret_base64(sealed.iv);
    const auto data = keys::from_secret_base64(sealed.data);
    ASSERT_TRUE(iv && data && iv->size() == 16 && sealed.master_key.size() == 32);
    EVP_CIPHER_CTX* const context = EVP_CIPHER_CTX_new();
    std::string plain(data->size() + 16, '\0');
    int first = 0;
    int last = 0;
    const auto bytes = [](const SecretBytes& secret) {
      return reinterpret_cast<const unsigned char*>(secret.data());
    };
    auto* const out = reinterpret_cast<unsigned char*>(plain.data());
    ASSERT_EQ(EVP_DecryptInit_ex2(context, EVP_aes_256_cbc(), bytes(sealed.master_key), bytes(*iv),
                                  nullptr),
              1);
    ASSERT_EQ(EVP_DecryptUpdate(context, out, &first, bytes(*data), static_cast<int>(data->size())),
              1);
    ASSERT_EQ(EVP_DecryptFinal_ex(context, out + first, &last), 1);
    EVP_CIPHER_CTX_free(context);
    EXPECT_EQ(plain.substr(0, static_cast<std::size_t>(first + last)), passphrase);
  }
}

}  // namespace
}  // namespace lukskeep::vm
