#include "crypto/mode_cipher.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "crypto/cipher_test_tools.h"

namespace lukskeep::crypto {
namespace {

struct ModeVector {
  const char* source;
  CipherMode mode;  // of AES
  const char* key;
  const char* iv;
  const char* plain;
  const char* encrypted;
};

constexpr const char* kKey128 = "2b7e151628aed2a6abf7158809cf4f3c";
constexpr const char* kKey192 = "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b";
constexpr const char* kKey256 = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
constexpr const char* kIv = "000102030405060708090a0b0c0d0e0f";
constexpr const char* kCounter = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
constexpr const char* kPlain =
    "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710";
constexpr const char* kAscii = "30313233343536373839414243444546";

// NIST SP 800-38A appendix F; IEEE Std 1619-2018 annex B (units of 32 bytes); IEEE P1619 draft of
// 2004 for LRW.
constexpr ModeVector kVectors[] = {
    {"F.1.1 ECB-AES128", CipherMode::kEcb, kKey128, kIv, kPlain,
     "3ad77bb40d7a3660a89ecaf32466ef97 f5d3d58503b9699de785895a96fdbaaf"
     "43b1cd7f598ece23881b00e3ed030688 7b0c785e27e8ad3f8223207104725dd4"},
    {"F.1.3 ECB-AES192", CipherMode::kEcb, kKey192, kIv, kPlain,
     "bd334f1d6e45f25ff712a214571fa5cc 974104846d0ad3ad7734ecb3ecee4eef"
     "ef7afd2270e2e60adce0ba2face6444e 9a4b41ba738d6c72fb16691603c18e0e"},
    {"F.1.5 ECB-AES256", CipherMode::kEcb, kKey256, kIv, kPlain,
     "f3eed1bdb5d2a03c064b5a7e3db181f8 591ccb10d410ed26dc5ba74a31362870"
     "b6ed21b99ca6f4f9f153e7b1beafed1d 23304b7a39f9f3ff067d8d8f9e24ecc7"},
    {"F.2.1 CBC-AES128", CipherMode::kCbc, kKey128, kIv, kPlain,
     "7649abac8119b246cee98e9b12e9197d 5086cb9b507219ee95db113a917678b2"
     "73bed6b8e3c1743b7116e69e22229516 3ff1caa1681fac09120eca307586e1a7"},
    {"F.2.3 CBC-AES192", CipherMode::kCbc, kKey192, kIv, kPlain,
     "4f021db243bc633d7178183a9fa071e8 b4d9ada9ad7dedf4e5e738763f69145a"
     "571b242012fb7ae07fa9baac3df102e0 08b0e27988598881d920a9e64f5615cd"},
    {"F.2.5 CBC-AES256", CipherMode::kCbc, kKey256, kIv, kPlain,
     "f58c4c04d6e5f1ba779eabfb5f7bfbd6 9cfc4e967edb808d679f777bc6702c7d"
     "39f23369a9d9bacfa530e26304231461 b2eb05e2c39be9fcda6c19078c6a9d1b"},
    {"F.5.1 CTR-AES128", CipherMode::kCtr, kKey128, kCounter, kPlain,
     "874d6191b620e3261bef6864990db6ce 9806f66b7970fdff8617187bb9fffdff"
     "5ae4df3edbd5d35e5b4f09020db03eab 1e031dda2fbe03d1792170a0f3009cee"},
    {"F.5.3 CTR-AES192", CipherMode::kCtr, kKey192, kCounter, kPlain,
     "1abc932417521ca24f2b0459fe7e6e0b 090339ec0aa6faefd5ccc2c6f4ce8e94"
     "1e36b26bd1ebc670d1bd1d665620abf7 4f78a7f6d29809585a97daec58c6b050"},
    {"F.5.5 CTR-AES256", CipherMode::kCtr, kKey256, kCounter, kPlain,
     "601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5"
     "2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6"},
    {"XTS-AES-128 vector 1", CipherMode::kXts,
     "00000000000000000000000000000000 00000000000000000000000000000000",
     "00000000000000000000000000000000",
     "0000000000000000000000000000000000000000000000000000000000000000",
     "917cf69ebd68b2ec9b9fe9a3eadda692 cd43d2f59598ed858c02c2652fbf922e"},
    {"XTS-AES-128 vector 2", CipherMode::kXts,
     "11111111111111111111111111111111 22222222222222222222222222222222",
     "33333333330000000000000000000000",
     "4444444444444444444444444444444444444444444444444444444444444444",
     "c454185e6a16936e39334038acef838b fb186fff7480adc4289382ecd6d394f0"},
    {"XTS-AES-128 vector 3", CipherMode::kXts,
     "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0 22222222222222222222222222222222",
     "33333333330000000000000000000000",
     "4444444444444444444444444444444444444444444444444444444444444444",
     "af85336b597afc1a900b2eb21ec949d2 92df4c047e0b21532186a5971a227a89"},
    {"LRW-32-AES 1", CipherMode::kLrw,
     "4562ac25f828176d4c268414b5680185 258e2a05e73e9d03ee5a830ccc094c87",
     "00000000000000000000000000000001", kAscii, "f1b273cd65a3df5fe95d489254634eb8"},
    {"LRW-32-AES 2", CipherMode::kLrw,
     "59704714f557478cd779e80f54887944 0d48f0b7b15a53ea1caa6b29c2cafbaf",
     "00000000000000000000000000000002", kAscii, "00c82bae95bbcde5274f0769b260e136"},
    {"LRW-32-AES 3", CipherMode::kLrw,
     "d82a9134b26a565030fe69e2377f9847 cdf90b160c648fb6b00d0d1bae85871f",
     "00000000000000000000000200000000", kAscii, "76322183ed8ff182f9596203690e5e01"},
    {"LRW-32-AES 4", CipherMode::kLrw,
     "0f6aeff8d3d2bb152583f73c1f012874cac6bc354d4a6554 90ae61cf7baebdccade494c54a29ae70",
     "00000000000000000000000000000001", kAscii, "9c0f152f55a2d8f0d67b8f9e2822bc41"},
    {"LRW-32-AES 5", CipherMode::kLrw,
     "8ad4ee102fbd81fff886ceac93c5adc6a01907c09df7bbdd 5213b2b7f0ff11d8d608d0cd2eb1176f",
     "00000000000000000000000200000000", kAscii, "d4276a7f14913d65c8604802 87e33406"},
    {"LRW-32-AES 6", CipherMode::kLrw,
     "f8d476ffd646ee6c2384cb1c77d6195dfef1a9f37bbc8d21a79c21f8cb900289"
     "a845348ec8c5b5f126f50e76fefd1b1e",
     "00000000000000000000000000000001", kAscii, "bd06b8e1db98899ec498e491cf1c702b"},
};

std::unique_ptr<ModeCipher> make_aes(CipherMode mode, ByteView key, const AesKernel& kernel) {
  return make_mode_cipher({.cipher = BlockCipher::kAes, .mode = mode}, key, kernel);
}

Bytes repeated(const Bytes& bytes, std::size_t times) {
  Bytes all;
  for (std::size_t i = 0; i < times; ++i) all.insert(all.end(), bytes.begin(), bytes.end());
  return all;
}

// Each vector in 1 to 33 units side by side, at odd addresses.
TEST(ModeCipher, PublishedVectors) {
  for (const ModeVector& vector : kVectors) {
    for (const AesKernel* kernel : usable_kernels()) {
      SCOPED_TRACE(fmt::format("{}, {}", vector.source, kernel->name));
      const auto cipher = make_aes(vector.mode, hex(vector.key), *kernel);
      for (std::size_t units = 1; units <= 33; ++units) {
        const std::size_t offset = units % 17;
        Bytes data = repeated(hex(vector.plain), units);
        data.insert(data.begin(), offset, std::byte{0x5a});
        Bytes ivs = repeated(hex(vector.iv), units);
        cipher->encrypt(ivs, MutableBytes(data).subspan(offset));
        Bytes expected = repeated(hex(vector.encrypted), units);
        expected.insert(expected.begin(), offset, std::byte{0x5a});
        ASSERT_EQ(to_hex(data), to_hex(expected)) << units;
        ivs = repeated(hex(vector.iv), units);
        cipher->decrypt(ivs, MutableBytes(data).subspan(offset));
        ASSERT_EQ(Bytes(data.begin() + static_cast<std::ptrdiff_t>(offset), data.end()),
                  repeated(hex(vector.plain), units))
            << units;
      }
    }
  }
}

// The parts of a unit that do not fill the vectors of a kernel.
TEST(ModeCipher, UnitsOfEverySizeAgreeWithPortable) {
  for (const CipherMode mode :
       {CipherMode::kXts, CipherMode::kCbc, CipherMode::kCtr, CipherMode::kEcb, CipherMode::kLrw}) {
    const Bytes key =
        pattern(key_sizes_bytes({.cipher = BlockCipher::kAes, .mode = mode}).back(), 3);
    const auto portable = make_aes(mode, key, portable_kernel());
    for (const AesKernel* kernel : usable_kernels()) {
      const auto cipher = make_aes(mode, key, *kernel);
      for (std::size_t blocks = 1; blocks <= 40; ++blocks) {
        for (const std::size_t units : {1U, 3U, 8U, 9U, 33U, 64U}) {
          const Bytes plain = pattern(units * blocks * 16, blocks);
          const Bytes ivs = pattern(units * 16, units);
          Bytes scratch = ivs;
          Bytes expected = plain;
          portable->encrypt(scratch, expected);
          Bytes data = plain;
          scratch = ivs;
          cipher->encrypt(scratch, data);
          ASSERT_EQ(data, expected) << kernel->name << " " << blocks << " " << units;
          scratch = ivs;
          cipher->decrypt(scratch, data);
          ASSERT_EQ(data, plain) << kernel->name << " " << blocks << " " << units;
        }
      }
    }
  }
}

// Counters carry over all their bytes; 64-bit blocks have 64-bit counters.
TEST(ModeCipher, CtrCountersCarry) {
  const Bytes key = pattern(16, 5);
  for (const BlockCipher cipher : {BlockCipher::kAes, BlockCipher::kCast5}) {
    const auto ctr =
        make_mode_cipher({.cipher = cipher, .mode = CipherMode::kCtr}, key, portable_kernel());
    const auto block_key = make_block_key(cipher, key, portable_kernel());
    const std::size_t block = block_key->block_bytes();
    for (const std::size_t low_bytes : {1U, 4U, 8U}) {
      Bytes iv(block, std::byte{0x11});
      std::fill(iv.end() - static_cast<std::ptrdiff_t>(low_bytes), iv.end(), std::byte{0xff});
      Bytes next = iv;
      std::fill(next.end() - static_cast<std::ptrdiff_t>(low_bytes), next.end(), std::byte{0});
      if (low_bytes < block) next[block - low_bytes - 1] = std::byte{0x12};
      Bytes expected = iv;
      expected.insert(expected.end(), next.begin(), next.end());
      block_key->encrypt(expected);
      Bytes stream(2 * block);
      ctr->encrypt(iv, stream);
      EXPECT_EQ(stream, expected) << block << " " << low_bytes;
    }
  }
}

// The tweak of block i is the product of the index and the second key: also where the index
// carries from bit to bit, up to all of its 128.
TEST(ModeCipher, LrwUnitsJoin) {
  const Bytes key = pattern(32, 9);
  const auto lrw = make_aes(CipherMode::kLrw, key, portable_kernel());
  for (const char* start : {"00000000000000000000000000000001", "000000000000000000000000fffffff8",
                            "0000000000000000fffffffffffffff8", "0000000000fffffffffffffffffffff8",
                            "fffffffffffffffffffffffffffffff8"}) {
    const Bytes plain = pattern(std::size_t{16} * 16, 2);
    Bytes whole = plain;
    Bytes iv = hex(start);
    lrw->encrypt(iv, whole);
    Bytes block_by_block = plain;
    Bytes index = hex(start);
    for (std::size_t i = 0; i < 16; ++i) {
      Bytes one = index;
      lrw->encrypt(one, MutableBytes(block_by_block).subspan(i * 16, 16));
      for (std::size_t byte = 16; byte-- > 0;) {
        index[byte] = static_cast<std::byte>(std::to_integer<unsigned>(index[byte]) + 1);
        if (index[byte] != std::byte{0}) break;
      }
    }
    EXPECT_EQ(whole, block_by_block) << start;
  }
}

}  // namespace
}  // namespace lukskeep::crypto
