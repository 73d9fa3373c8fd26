#include "crypto/ed25519.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep::crypto {
namespace {

struct Vector {
  const char* seed;
  const char* point;
  const char* message;
  const char* signature;
};

// RFC 8032 section 7.1, tests 1 to 3.
constexpr Vector kVectors[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b"
     "4"
     "6bd25bf5f0595bbe24655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11"
     "d"
     "8c387b2eaeb4302aeeb00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc"
     "6"
     "594a7c15e9716ed28dc027beceea1ec40a"},
};

TEST(Ed25519, PublishedVectors) {
  for (const Vector& vector : kVectors) {
    const Ed25519PrivateKey key{.seed = SecretBytes(*from_hex(vector.seed))};
    const Ed25519PublicKey point = public_key_of(key);
    const Bytes message = *from_hex(vector.message);
    EXPECT_EQ(to_hex(point.bytes), vector.point);
    Ed25519Signature signature = ed25519_sign(key, message);
    EXPECT_EQ(to_hex(signature), vector.signature);
    EXPECT_TRUE(ed25519_verify(point, message, signature));
    EXPECT_FALSE(ed25519_verify(point, as_byte_view("other"), signature));
    EXPECT_FALSE(ed25519_verify(point, message, ByteView(signature).first(63)));
    signature[0] ^= std::byte{1};
    EXPECT_FALSE(ed25519_verify(point, message, signature));
  }
}

// openssl genpkey -algorithm ed25519; openssl pkey -pubout
constexpr std::string_view kPrivate =
    "-----BEGIN "
    "PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";
constexpr std::string_view kPublic =
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
    "-----END PUBLIC KEY-----\n";

TEST(Ed25519, KeysInFiles) {
  const Ed25519PrivateKey key = parse_ed25519_private_key(as_byte_view(kPrivate), "test");
  EXPECT_EQ(to_hex(key.seed.span()), kVectors[0].seed);
  const Ed25519PublicKey point = parse_ed25519_public_key(kPublic, "test");
  EXPECT_EQ(point, public_key_of(key));
  EXPECT_EQ(parse_ed25519_public_key(to_string(point), "test"), point);
  EXPECT_EQ(parse_ed25519_public_key(to_string(point) + "\n", "test"), point);
}

TEST(Ed25519, WhatIsNoKeyIsRefused) {
  const std::string p256 =
      "-----BEGIN PUBLIC KEY-----\n"
      "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n"
      "6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n"
      "-----END PUBLIC KEY-----\n";
  for (const std::string& text :
       {std::string(), std::string("AAAA"), p256, std::string(kPrivate), std::string(20000, 'A')}) {
    EXPECT_THROW(parse_ed25519_public_key(text, "test"), Error);
  }
  for (const std::string_view text : {std::string_view(), kPublic, std::string_view("x")}) {
    EXPECT_THROW(parse_ed25519_private_key(as_byte_view(text), "test"), Error);
  }
}

}  // namespace
}  // namespace lukskeep::crypto
