#include "crypto/cipher_spec.h"

#include <algorithm>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lukskeep/error.h>

namespace lukskeep::crypto {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(CipherSpec, ParsesWhatHeadersSay) {
  const CipherSpec xts = parse_cipher_spec("aes-xts-plain64");
  EXPECT_EQ(xts.cipher, BlockCipher::kAes);
  EXPECT_EQ(xts.mode, CipherMode::kXts);
  EXPECT_EQ(xts.iv, IvGenerator::kPlain64);
  EXPECT_EQ(xts.iv_hash, "");
  const CipherSpec essiv = parse_cipher_spec("serpent-cbc-essiv:SHA256");
  EXPECT_EQ(essiv.iv, IvGenerator::kEssiv);
  EXPECT_EQ(essiv.iv_hash, "sha256");
}

struct Spelling {
  const char* text;
  const char* canonical;
};

TEST(CipherSpec, SpellingsThatMeanTheSame) {
  static constexpr Spelling kSpellings[] = {
      {"aes", "aes-cbc-plain"},
      {"twofish", "twofish-cbc-plain"},
      {"aes-plain", "aes-cbc-plain"},
      {"aes-cbc", "aes-cbc-plain"},
      {"aes-ecb", "aes-ecb"},
      {"aes-ecb-plain64", "aes-ecb"},
      {"null", "cipher_null-ecb"},
      {"cipher_null", "cipher_null-ecb"},
      {"cipher_null-ecb", "cipher_null-ecb"},
      {"aes-xts-plain64:sha256", "aes-xts-plain64"},
      {"twofish-ctr-plain64:md5", "twofish-ctr-plain64"},
      {"cast5-cbc-essiv:MD5", "cast5-cbc-essiv:md5"},
      {"aes-lrw-benbi", "aes-lrw-benbi"},
      {"aes-cbc-null", "aes-cbc-null"},
      {"aes-cbc-eboiv", "aes-cbc-eboiv"},
      {"aria-cbc-plain64be", "aria-cbc-plain64be"},
  };
  for (const Spelling& spelling : kSpellings) {
    EXPECT_EQ(to_string(parse_cipher_spec(spelling.text)), spelling.canonical) << spelling.text;
  }
}

TEST(CipherSpec, RefusesWithTheReason) {
  static constexpr Spelling kRefused[] = {
      {"", "the block cipher '' is unknown"},
      {"-", "the block cipher '' is unknown"},
      {"aes-", "the mode is missing"},
      {"rot13-xts-plain64", "the block cipher 'rot13' is unknown"},
      {"AES-xts-plain64", "the block cipher 'AES' is unknown"},
      {"aes:64-cbc-lmk", "the block cipher 'aes:64' is unknown"},
      {"aes-gcm-random", "the mode 'gcm' is unknown"},
      {"aes-xts", "the IV generator is missing"},
      {"aes-xts-", "the IV generator '' is unknown"},
      {"aes-xts-plain32", "the IV generator 'plain32' is unknown"},
      {"aes-cbc-essiv", "essiv needs the name of a hash"},
      {"aes-cbc-essiv:", "essiv needs the name of a hash"},
      {"aes-cbc-essiv:sha257", "the hash 'sha257' is unknown"},
      {"cast5-xts-plain64", "xts needs a block cipher with 128-bit blocks"},
      {"cast5-lrw-benbi", "lrw needs a block cipher with 128-bit blocks"},
      {"aes-ctr-eboiv", "eboiv does not go with ctr"},
      {"cipher_null-cbc-plain", "cipher_null knows only ecb"},
      {"capi:xts(aes)-plain64", "it names an implementation"},
      {"aes-xts-pl\x01in", "the IV generator 'pl\\x01in' is unknown"},
  };
  for (const Spelling& refused : kRefused) {
    try {
      parse_cipher_spec(refused.text);
      FAIL() << refused.text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsupported) << refused.text;
      EXPECT_THAT(error.message(), HasSubstr(refused.canonical));
    }
  }
}

TEST(CipherSpec, EveryConstructionHasOneName) {
  const std::vector<CipherSpec> all = all_cipher_specs();
  std::set<std::string> names;
  for (const CipherSpec& spec : all) {
    EXPECT_TRUE(names.insert(to_string(spec)).second) << to_string(spec);
    EXPECT_EQ(parse_cipher_spec(to_string(spec)), spec) << to_string(spec);
  }
  // Six wide ciphers: ecb, and xts, cbc and lrw with seven generators, ctr with six; cast5: ecb,
  // cbc with seven, ctr with six; cipher_null.
  EXPECT_EQ(all.size(), 6U * (1 + 3 * 7 + 6) + (1 + 7 + 6) + 1);
}

TEST(CipherSpec, KeySizes) {
  const auto sizes = [](const char* text) { return key_sizes_bytes(parse_cipher_spec(text)); };
  EXPECT_THAT(sizes("aes-xts-plain64"), ElementsAre(32, 48, 64));
  EXPECT_THAT(sizes("aes-cbc-plain"), ElementsAre(16, 24, 32));
  EXPECT_THAT(sizes("serpent-lrw-benbi"), ElementsAre(32, 40, 48));
  EXPECT_THAT(sizes("sm4-xts-plain64"), ElementsAre(32));
  EXPECT_THAT(sizes("cast5-cbc-plain"), ElementsAre(16));
  EXPECT_THAT(sizes("cipher_null"), IsEmpty());
}

TEST(CipherSpec, ChecksKeySizes) {
  const CipherSpec xts = parse_cipher_spec("aes-xts-plain64");
  EXPECT_NO_THROW(check_key_size(xts, 64));
  EXPECT_NO_THROW(check_key_size(parse_cipher_spec("cipher_null"), 7));
  try {
    check_key_size(xts, 16);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnsupported);
    EXPECT_EQ(error.message(), "cipher 'aes-xts-plain64' does not take a key of 128 bits");
    EXPECT_EQ(error.hint(), "it takes 256, 384, 512 bits");
  }
}

TEST(CipherSpec, OnlyTheNullCipherIsInsecure) {
  for (const CipherSpec& spec : all_cipher_specs()) {
    EXPECT_EQ(is_insecure(spec), spec.cipher == BlockCipher::kNull) << to_string(spec);
  }
}

}  // namespace
}  // namespace lukskeep::crypto
