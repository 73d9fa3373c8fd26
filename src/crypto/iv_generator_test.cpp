#include "crypto/iv_generator.h"

#include <string>

#include <gtest/gtest.h>
#include <lukskeep/error.h>

#include "crypto/cipher_test_tools.h"

namespace lukskeep::crypto {
namespace {

struct IvVector {
  const char* cipher;
  std::uint32_t sector_bytes;
  std::uint64_t iv_sector;
  const char* iv;
};

// Numbers by hand from the rules of drivers/md/dm-crypt.c; ESSIV and EBOIV are below.
constexpr IvVector kVectors[] = {
    {"aes-cbc-null", 512, 0x0102030405060708, "00000000000000000000000000000000"},
    {"aes-cbc-plain", 512, 0x0102030405060708, "08070605000000000000000000000000"},
    {"aes-cbc-plain", 512, 0xffffffff, "ffffffff000000000000000000000000"},
    {"aes-cbc-plain", 512, 0x100000000, "00000000000000000000000000000000"},
    {"aes-xts-plain64", 512, 0x0102030405060708, "08070605040302010000000000000000"},
    {"aes-xts-plain64", 4096, 8, "08000000000000000000000000000000"},
    {"aes-xts-plain64be", 512, 0x0102030405060708, "00000000000000000102030405060708"},
    {"aes-lrw-benbi", 512, 0, "00000000000000000000000000000001"},
    {"aes-lrw-benbi", 512, 1, "00000000000000000000000000000021"},
    {"aes-lrw-benbi", 4096, 0x0800000000000000, "00000000000000000000000000000001"},
    {"cast5-cbc-plain64", 512, 0x0102030405060708, "0807060504030201"},
    {"cast5-cbc-plain64be", 512, 0x0102030405060708, "0102030405060708"},
    // A block of cast5 has 8 bytes; ctr counts single bytes.
    {"cast5-cbc-benbi", 512, 1, "0000000000000041"},
    {"aes-ctr-benbi", 512, 1, "00000000000000000000000000000201"},
};

Bytes key_for(const CipherSpec& spec) { return pattern(key_sizes_bytes(spec).back(), 1); }

Bytes one_iv(const char* cipher, std::uint32_t sector_bytes, std::uint64_t iv_sector,
             ByteView key) {
  const CipherSpec spec = parse_cipher_spec(cipher);
  const auto mode = make_mode_cipher(spec, key, portable_kernel());
  const IvSource source(spec, key, sector_bytes, *mode, portable_kernel());
  Bytes iv(mode->block_bytes(), std::byte{0xee});
  source.fill(iv_sector, iv);
  return iv;
}

TEST(IvGenerator, Numbers) {
  for (const IvVector& vector : kVectors) {
    const Bytes key = key_for(parse_cipher_spec(vector.cipher));
    EXPECT_EQ(to_hex(one_iv(vector.cipher, vector.sector_bytes, vector.iv_sector, key)), vector.iv)
        << vector.cipher << " " << vector.iv_sector;
  }
}

// AES-256 under the SHA-256 of the key, by another program; also in tests/vectors/dm_crypt.txt.
TEST(IvGenerator, Essiv) {
  const Bytes key = hex("000102030405060708090a0b0c0d0e0f");
  EXPECT_EQ(to_hex(one_iv("aes-cbc-essiv:sha256", 512, 1, key)),
            "c10509c8cf7d6eee55d7205db7845a6f");
}

// With CBC, EBOIV is the offset through the cipher once.
TEST(IvGenerator, EboivIsTheEncryptedOffset) {
  const Bytes key = pattern(32, 4);
  Bytes expected(16);
  store_le<std::uint64_t>(expected.data(), std::uint64_t{3} * 512);
  make_block_key(BlockCipher::kAes, key, portable_kernel())->encrypt(expected);
  EXPECT_EQ(one_iv("aes-cbc-eboiv", 512, 3, key), expected);
}

TEST(IvGenerator, BatchesAreLikeSingleOnes) {
  for (const CipherSpec& spec : all_cipher_specs()) {
    if (spec.cipher == BlockCipher::kNull) continue;
    const Bytes key = key_for(spec);
    const auto mode = make_mode_cipher(spec, key, aes_kernel_in_force());
    for (const std::uint32_t sector_bytes : {512U, 4096U}) {
      const IvSource source(spec, key, sector_bytes, *mode, aes_kernel_in_force());
      const std::uint64_t first = 0xffffffffU - 12;
      Bytes batch(ModeCipher::kUnitsMax * mode->block_bytes());
      source.fill(first, batch);
      for (std::size_t i = 0; i < ModeCipher::kUnitsMax; ++i) {
        Bytes single(mode->block_bytes());
        source.fill(first + i * (sector_bytes / 512), single);
        ASSERT_EQ(to_hex(single), to_hex(ByteView(batch).subspan(i * single.size(), single.size())))
            << to_string(spec) << " " << i;
      }
    }
  }
}

TEST(IvGenerator, EssivNeedsADigestThatIsAKey) {
  struct Refused {
    const char* cipher;
    const char* message;
  };
  static constexpr Refused kRefused[] = {
      {"aes-cbc-essiv:sha1", "the 160-bit digest of 'sha1' is no key for 'aes'"},
      {"aes-xts-essiv:sha512", "the 512-bit digest of 'sha512' is no key for 'aes'"},
      {"serpent-cbc-essiv:sha512", "the 512-bit digest of 'sha512' is no key for 'serpent'"},
      {"sm4-cbc-essiv:sha256", "the 256-bit digest of 'sha256' is no key for 'sm4'"},
      {"cast5-cbc-essiv:sha1", "the 160-bit digest of 'sha1' is no key for 'cast5'"},
  };
  for (const Refused& refused : kRefused) {
    const CipherSpec spec = parse_cipher_spec(refused.cipher);
    const Bytes key = key_for(spec);
    const auto mode = make_mode_cipher(spec, key, portable_kernel());
    try {
      const IvSource source(spec, key, 512, *mode, portable_kernel());
      FAIL() << refused.cipher;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsupported);
      EXPECT_EQ(error.message(), std::string("cipher '") + refused.cipher +
                                     "' is not supported: " + refused.message);
    }
  }
}

}  // namespace
}  // namespace lukskeep::crypto
