#include "crypto/block_key.h"

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <lukskeep/error.h>

#include "crypto/cipher_test_tools.h"

namespace lukskeep::crypto {
namespace {

struct BlockVector {
  const char* source;
  BlockCipher cipher;
  const char* key;
  const char* plain;
  const char* encrypted;
};

constexpr BlockVector kVectors[] = {
    {"FIPS 197 C.1", BlockCipher::kAes, "000102030405060708090a0b0c0d0e0f",
     "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
    {"FIPS 197 C.2", BlockCipher::kAes, "000102030405060708090a0b0c0d0e0f1011121314151617",
     "00112233445566778899aabbccddeeff", "dda97ca4864cdfe06eaf70a0ec0d7191"},
    {"FIPS 197 C.3", BlockCipher::kAes,
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     "00112233445566778899aabbccddeeff", "8ea2b7ca516745bfeafc49904b496089"},
    // The AES submission writes the bytes of a number the other way round.
    {"Serpent, ecb_vk.txt, 128 bits, I=1", BlockCipher::kSerpent,
     "00000000000000000000000000000080", "00000000000000000000000000000000",
     "ddd26b98a5ffd82c05345a9dadbfaf49"},
    {"NESSIE Serpent-192 set 1, 0", BlockCipher::kSerpent,
     "800000000000000000000000000000000000000000000000", "00000000000000000000000000000000",
     "9e274ead9b737bb21efcfca548602689"},
    {"NESSIE Serpent-256 set 1, 0", BlockCipher::kSerpent,
     "8000000000000000000000000000000000000000000000000000000000000000",
     "00000000000000000000000000000000", "a223aa1288463c0e2be38ebd825616c0"},
    {"Twofish paper, 128 bits, I=3", BlockCipher::kTwofish, "9f589f5cf6122c32b6bfec2f2ae8c35a",
     "d491db16e7b1c39e86cb086b789f5419", "019f9809de1711858faac3a3ba20fbc3"},
    {"Twofish paper, 192 bits", BlockCipher::kTwofish,
     "0123456789abcdeffedcba98765432100011223344556677", "00000000000000000000000000000000",
     "cfd1d2e5a9be9cdf501f13b892bd2248"},
    {"Twofish paper, 256 bits", BlockCipher::kTwofish,
     "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff",
     "00000000000000000000000000000000", "37527be0052334b89f0cfccae87cfa20"},
    {"RFC 3713, 128 bits", BlockCipher::kCamellia, "0123456789abcdeffedcba9876543210",
     "0123456789abcdeffedcba9876543210", "67673138549669730857065648eabe43"},
    {"RFC 3713, 192 bits", BlockCipher::kCamellia,
     "0123456789abcdeffedcba98765432100011223344556677", "0123456789abcdeffedcba9876543210",
     "b4993401b3e996f84ee5cee7d79b09b9"},
    {"RFC 3713, 256 bits", BlockCipher::kCamellia,
     "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff",
     "0123456789abcdeffedcba9876543210", "9acc237dff16d76c20ef7c919e3a7509"},
    {"RFC 5794, 128 bits", BlockCipher::kAria, "000102030405060708090a0b0c0d0e0f",
     "00112233445566778899aabbccddeeff", "d718fbd6ab644c739da95f3be6451778"},
    {"RFC 5794, 192 bits", BlockCipher::kAria, "000102030405060708090a0b0c0d0e0f1011121314151617",
     "00112233445566778899aabbccddeeff", "26449c1805dbe7aa25a468ce263a9e79"},
    {"RFC 5794, 256 bits", BlockCipher::kAria,
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     "00112233445566778899aabbccddeeff", "f92bd7c79fb72e2f2b8f80c1972d24fc"},
    {"GB/T 32907 A.1", BlockCipher::kSm4, "0123456789abcdeffedcba9876543210",
     "0123456789abcdeffedcba9876543210", "681edf34d206965e86b3e94f536e4246"},
    {"RFC 2144 B.1", BlockCipher::kCast5, "0123456712345678234567893456789a", "0123456789abcdef",
     "238b4fe5847e44b2"},
};

TEST(BlockKey, PublishedVectors) {
  for (const BlockVector& vector : kVectors) {
    for (const AesKernel* kernel : usable_kernels()) {
      SCOPED_TRACE(std::string(vector.source) + ", " + std::string(kernel->name));
      const auto key = make_block_key(vector.cipher, hex(vector.key), *kernel);
      Bytes block = hex(vector.plain);
      key->encrypt(block);
      EXPECT_EQ(to_hex(block), vector.encrypted);
      key->decrypt(block);
      EXPECT_EQ(to_hex(block), vector.plain);
    }
  }
}

// The paths for many blocks and for few must agree, at every alignment.
TEST(BlockKey, ManyBlocksAreLikeOneByOne) {
  for (const BlockVector& vector : kVectors) {
    for (const AesKernel* kernel : usable_kernels()) {
      SCOPED_TRACE(std::string(vector.source) + ", " + std::string(kernel->name));
      const auto key = make_block_key(vector.cipher, hex(vector.key), *kernel);
      const std::size_t block = key->block_bytes();
      for (const std::size_t count :
           {0U, 1U, 2U, 3U, 7U, 8U, 9U, 15U, 31U, 33U, 64U, 67U, 300U, 1025U}) {
        const std::size_t offset = count % 16;
        const Bytes plain = pattern(offset + count * block, count);
        Bytes one_by_one = plain;
        for (std::size_t i = 0; i < count; ++i) {
          key->encrypt(MutableBytes(one_by_one).subspan(offset + i * block, block));
        }
        Bytes batch = plain;
        key->encrypt(MutableBytes(batch).subspan(offset));
        ASSERT_EQ(batch, one_by_one) << count;
        key->decrypt(MutableBytes(batch).subspan(offset));
        ASSERT_EQ(batch, plain) << count;
      }
    }
  }
}

// GB/T 32907 A.2: a block that went through the cipher a million times.
TEST(BlockKey, Sm4AMillionTimes) {
  const auto key =
      make_block_key(BlockCipher::kSm4, hex("0123456789abcdeffedcba9876543210"), portable_kernel());
  Bytes block = hex("0123456789abcdeffedcba9876543210");
  for (unsigned i = 0; i < 1'000'000; ++i) key->encrypt(block);
  EXPECT_EQ(to_hex(block), "595298c7c6fd271f0402f804c33d3f66");
}

// The cipher fills up a key that is shorter than 256 bits with a one bit and zeroes.
TEST(BlockKey, SerpentTakesKeysOfAnyLength) {
  const Bytes plain = pattern(64, 1);
  for (const std::size_t size : {5U, 16U, 20U, 28U, 31U}) {
    Bytes key = pattern(size, size);
    Bytes block = plain;
    make_block_key(BlockCipher::kSerpent, key, portable_kernel())->encrypt(block);
    key.push_back(std::byte{1});
    key.resize(32);
    Bytes whole = plain;
    make_block_key(BlockCipher::kSerpent, key, portable_kernel())->encrypt(whole);
    EXPECT_EQ(block, whole) << size;
  }
}

TEST(BlockKey, WrongKeySizesAreRefused) {
  for (const BlockCipher cipher :
       {BlockCipher::kSerpent, BlockCipher::kTwofish, BlockCipher::kCamellia, BlockCipher::kAria,
        BlockCipher::kSm4, BlockCipher::kCast5, BlockCipher::kNull}) {
    try {
      make_block_key(cipher, pattern(33, 1), portable_kernel());
      FAIL() << block_cipher_name(cipher);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsupported) << block_cipher_name(cipher);
    }
  }
}

TEST(BlockKey, ServesManyThreads) {
  for (const BlockVector& vector : kVectors) {
    const auto key = make_block_key(vector.cipher, hex(vector.key), portable_kernel());
    const Bytes plain = pattern(4096, 7);
    Bytes expected = plain;
    key->encrypt(expected);
    std::vector<unsigned char> good(6, 0);
    std::vector<std::thread> threads;
    threads.reserve(good.size());
    for (unsigned char& is_good : good) {
      threads.emplace_back([&] {
        is_good = 1;
        for (unsigned i = 0; i < 20; ++i) {
          Bytes data = plain;
          key->encrypt(data);
          if (data != expected) is_good = 0;
          key->decrypt(data);
          if (data != plain) is_good = 0;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(std::ranges::all_of(good, [](unsigned char g) { return g == 1; })) << vector.source;
  }
}

}  // namespace
}  // namespace lukskeep::crypto
