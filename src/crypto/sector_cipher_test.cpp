#include "crypto/sector_cipher.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <lukskeep/error.h>
#include <unistd.h>

#include "crypto/cipher_test_tools.h"
#include "crypto/openssl_per_sector.h"

namespace lukskeep::crypto {
namespace {

constexpr std::uint32_t kSectorSizes[] = {512, 1024, 2048, 4096};

std::unique_ptr<SectorCipher> make(const char* cipher, ByteView key,
                                   std::uint32_t sector_bytes = 512) {
  return make_sector_cipher(parse_cipher_spec(cipher), key, sector_bytes);
}

// Key sizes to test: cipher_null takes any.
std::vector<std::uint32_t> sizes_of(const CipherSpec& spec) {
  return spec.cipher == BlockCipher::kNull ? std::vector<std::uint32_t>{16} : key_sizes_bytes(spec);
}

Bytes zero_to_255_twice() {
  Bytes bytes(512);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

constexpr const char* kXts128Key =
    "27182818284590452353602874713526 31415926535897932384626433832795";
constexpr const char* kXts256Key =
    "2718281828459045235360287471352662497757247093699959574966967627"
    "3141592653589793238462643383279502884197169399375105820974944592";

// IEEE Std 1619-2018 annex B, vectors 4 and 10: units of 512 bytes.
constexpr const char* kVector4 =
    "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
    "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
    "328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
    "93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265"
    "5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8"
    "a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
    "1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c"
    "5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e"
    "94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
    "1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3"
    "e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344"
    "b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
    "74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752"
    "afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e"
    "bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
    "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568";
constexpr const char* kVector10 =
    "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
    "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
    "5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
    "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
    "2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
    "b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
    "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
    "583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
    "84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
    "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
    "9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
    "a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
    "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
    "645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
    "1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
    "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";

TEST(SectorCipher, Ieee1619WholeUnits) {
  for (const AesKernel* kernel : usable_kernels()) {
    const CipherSpec spec = parse_cipher_spec("aes-xts-plain64");
    const auto xts128 = make_sector_cipher_on(*kernel, spec, hex(kXts128Key), 512);
    Bytes data = zero_to_255_twice();
    xts128->encrypt(0, data);
    EXPECT_EQ(to_hex(data), kVector4) << kernel->name;
    xts128->decrypt(0, data);
    EXPECT_EQ(data, zero_to_255_twice());
    const auto xts256 = make_sector_cipher_on(*kernel, spec, hex(kXts256Key), 512);
    xts256->encrypt(0xff, data);
    EXPECT_EQ(to_hex(data), kVector10) << kernel->name;
    xts256->decrypt(0xff, data);
    EXPECT_EQ(data, zero_to_255_twice());
  }
}

struct UnitVector {
  std::uint64_t unit;
  const char* begins;
};

// Vectors 4 to 9: each unit is the one before, encrypted once more.
TEST(SectorCipher, Ieee1619ChainOfUnits) {
  constexpr UnitVector kBegins[] = {
      {1, "264d3ca8512194fec312c8c9891f279f"},    {2, "fa762a3680b76007928ed4a4f49a9456"},
      {0xfc, "8e41b78c390b5af9d758bb214a67e9f6"}, {0xfd, "d55f684f81f4426e9fde92a5ff02df2a"},
      {0xfe, "72efc1ebfe1ee25975a6eb3aa8589dda"}, {0xff, "3260ae8dad1f4a32c5cafe3ab0eb9554"}};
  const auto cipher = make("aes-xts-plain64", hex(kXts128Key));
  Bytes data = zero_to_255_twice();
  for (std::uint64_t unit = 0; unit <= 0xff; ++unit) {
    cipher->encrypt(unit, data);
    for (const UnitVector& vector : kBegins) {
      if (vector.unit != unit) continue;
      EXPECT_EQ(to_hex(ByteView(data).first(16)), vector.begins) << unit;
    }
  }
}

// Vectors 11 to 14: large numbers.
TEST(SectorCipher, Ieee1619LargeUnitNumbers) {
  constexpr UnitVector kBegins[] = {{0xffff, "77a31251618a15e6b92d1d66dffe7b50"},
                                    {0xffffff, "e387aaa58ba483afa7e8eb469778317e"},
                                    {0xffffffff, "bf53d2dade78e822a4d949a9bc6766b0"},
                                    {0xffffffffff, "64497e5a831e4a932c09be3e5393376d"}};
  const auto cipher = make("aes-xts-plain64", hex(kXts256Key));
  for (const UnitVector& vector : kBegins) {
    Bytes data = zero_to_255_twice();
    cipher->encrypt(vector.unit, data);
    EXPECT_EQ(to_hex(ByteView(data).first(16)), vector.begins) << vector.unit;
  }
}

// Every construction: what was encrypted in a batch at an odd address is what was encrypted sector
// by sector, decrypts to what it was, and differs from sector to sector.
TEST(SectorCipher, EveryConstructionGoesThereAndBack) {
  for (const CipherSpec& spec : all_cipher_specs()) {
    for (const std::uint32_t key_bytes : sizes_of(spec)) {
      for (const std::uint32_t sector : kSectorSizes) {
        SCOPED_TRACE(fmt::format("{} {} {}", to_string(spec), key_bytes, sector));
        const auto cipher = make_sector_cipher(spec, pattern(key_bytes, 1), sector);
        ASSERT_EQ(cipher->sector_size_bytes(), sector);
        const std::size_t count = 3 * 4096 / sector;
        const std::uint64_t first = 0xfffffff0;
        const Bytes plain = pattern(count * sector + 3, 2);
        Bytes batch = plain;
        const MutableBytes data = MutableBytes(batch).subspan(3);
        cipher->encrypt(first, data);
        Bytes single = plain;
        for (std::size_t i = 0; i < count; ++i) {
          cipher->encrypt(first + i * (sector / 512),
                          MutableBytes(single).subspan(3 + i * sector, sector));
        }
        ASSERT_EQ(batch, single);
        ASSERT_EQ(batch == plain, spec.cipher == BlockCipher::kNull);
        cipher->decrypt(first, data);
        ASSERT_EQ(batch, plain);
      }
    }
  }
}

// A call may have more sectors than are worked on at a time.
TEST(SectorCipher, LongBatches) {
  for (const char* name : {"aes-xts-plain64", "aes-cbc-essiv:sha256", "serpent-xts-plain64",
                           "twofish-cbc-plain", "cast5-ctr-plain64", "camellia-lrw-benbi"}) {
    const CipherSpec spec = parse_cipher_spec(name);
    const auto cipher = make_sector_cipher(spec, pattern(key_sizes_bytes(spec).back(), 1), 512);
    for (const std::size_t count : {0U, 1U, 63U, 64U, 65U, 200U}) {
      const Bytes plain = pattern(count * 512, count);
      Bytes batch = plain;
      cipher->encrypt(7, batch);
      Bytes single = plain;
      for (std::size_t i = 0; i < count; ++i) {
        cipher->encrypt(7 + i, MutableBytes(single).subspan(i * 512, 512));
      }
      ASSERT_EQ(batch, single) << name << " " << count;
      cipher->decrypt(7, batch);
      ASSERT_EQ(batch, plain) << name << " " << count;
    }
  }
}

TEST(SectorCipher, Plain64IsPlainUpToTwoTiB) {
  const Bytes key = pattern(32, 1);
  const auto plain = make("aes-cbc-plain", key);
  const auto plain64 = make("aes-cbc-plain64", key);
  const Bytes zeroes(1024);
  Bytes a = zeroes;
  Bytes b = zeroes;
  plain->encrypt(0xffffffff, a);
  plain64->encrypt(0xffffffff, b);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 512, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 512, a.end(), b.begin() + 512));
  // From there on, plain starts again.
  Bytes first(512);
  plain->encrypt(0, first);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), a.begin() + 512));
}

TEST(SectorCipher, NumbersWrapAtTheEnd) {
  const auto cipher = make("aes-xts-plain64", pattern(64, 1));
  Bytes data(1024);
  cipher->encrypt(UINT64_MAX, data);
  Bytes first(512);
  cipher->encrypt(0, first);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), data.begin() + 512));
}

// LUKS counts 512 bytes whatever the sector size.
TEST(SectorCipher, LargeSectorsCountInUnitsOf512) {
  const auto cipher = make("aes-xts-plain64", pattern(64, 1), 4096);
  Bytes two(8192);
  cipher->encrypt(16, two);
  Bytes second(4096);
  cipher->encrypt(24, second);
  EXPECT_TRUE(std::equal(second.begin(), second.end(), two.begin() + 4096));
}

TEST(SectorCipher, AgreesWithOpenSslPerSector) {
  for (const char* name : {"aes-xts-plain64", "aes-cbc-plain64", "aes-cbc-essiv:sha256"}) {
    const CipherSpec spec = parse_cipher_spec(name);
    for (const std::uint32_t key_bytes : key_sizes_bytes(spec)) {
      for (const std::uint32_t sector : kSectorSizes) {
        const Bytes key = pattern(key_bytes, sector);
        const auto theirs = make_openssl_per_sector(spec, key, sector);
        ASSERT_EQ(theirs == nullptr, key_bytes == 48 && spec.mode == CipherMode::kXts);
        if (!theirs) continue;
        for (const AesKernel* kernel : usable_kernels()) {
          const auto ours = make_sector_cipher_on(*kernel, spec, key, sector);
          for (std::size_t count = 1; count <= 33; ++count) {
            const std::size_t offset = count % 64;
            const Bytes plain = pattern(offset + count * sector, count);
            const std::uint64_t first = 0x123456789a + count;
            Bytes expected = plain;
            theirs->encrypt(first, MutableBytes(expected).subspan(offset));
            Bytes data = plain;
            ours->encrypt(first, MutableBytes(data).subspan(offset));
            ASSERT_EQ(data, expected) << name << " " << kernel->name << " " << count;
            theirs->decrypt(first, MutableBytes(expected).subspan(offset));
            ours->decrypt(first, MutableBytes(data).subspan(offset));
            ASSERT_EQ(data, plain) << name << " " << kernel->name << " " << count;
            ASSERT_EQ(expected, plain) << name << " " << kernel->name << " " << count;
          }
        }
      }
    }
  }
}

// Old volumes may have such a key, and so may a hostile header: it has to open all the same.
TEST(SectorCipher, XtsKeysWithEqualHalves) {
  Bytes key = pattern(32, 1);
  key.insert(key.end(), key.begin(), key.begin() + 32);
  Bytes expected;
  for (const AesKernel* kernel : usable_kernels()) {
    const auto cipher =
        make_sector_cipher_on(*kernel, parse_cipher_spec("aes-xts-plain64"), key, 512);
    const Bytes plain = pattern(1024, 3);
    Bytes data = plain;
    cipher->encrypt(5, data);
    if (expected.empty()) expected = data;
    EXPECT_EQ(data, expected) << kernel->name;
    cipher->decrypt(5, data);
    EXPECT_EQ(data, plain) << kernel->name;
  }
}

TEST(SectorCipher, RefusesSizes) {
  for (const std::uint32_t sector : {0U, 1U, 256U, 513U, 1536U, 3072U, 8192U, 1U << 31U}) {
    for (const char* name : {"aes-xts-plain64", "cipher_null"}) {
      try {
        make(name, pattern(64, 1), sector);
        FAIL() << sector;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::kInvalidArgument);
      }
    }
  }
  for (const std::size_t size : {0U, 1U, 16U, 33U, 63U, 65U, 128U}) {
    EXPECT_THROW(make("aes-xts-plain64", pattern(size, 1)), Error) << size;
  }
}

TEST(SectorCipher, OneObjectServesManyThreads) {
  for (const char* name : {"aes-xts-plain64", "serpent-cbc-essiv:sha256", "aria-xts-plain64",
                           "twofish-lrw-benbi", "cast5-ctr-plain"}) {
    const CipherSpec spec = parse_cipher_spec(name);
    const auto cipher = make_sector_cipher(spec, pattern(key_sizes_bytes(spec).back(), 1), 512);
    const Bytes plain = pattern(std::size_t{16} * 512, 1);
    std::vector<unsigned char> good(8, 0);
    std::vector<std::thread> threads;
    threads.reserve(good.size());
    for (std::size_t number = 0; number < good.size(); ++number) {
      threads.emplace_back([&, number] {
        Bytes expected = plain;
        for (std::size_t i = 0; i < 16; ++i) {
          cipher->encrypt(number * 100 + i, MutableBytes(expected).subspan(i * 512, 512));
        }
        bool same = true;
        for (unsigned turn = 0; turn < 10; ++turn) {
          Bytes data = plain;
          cipher->encrypt(number * 100, data);
          same = same && data == expected;
          cipher->decrypt(number * 100, data);
          same = same && data == plain;
        }
        good[number] = same ? 1 : 0;
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(std::ranges::all_of(good, [](unsigned char g) { return g == 1; })) << name;
  }
}

// SecretBytes reads as zeroes in a child: nothing may be encrypted with such a key.
TEST(SectorCipher, AForkedChildHasNoKey) {
  const Bytes plain = pattern(512, 1);
  for (const char* name : {"aes-xts-plain64", "twofish-cbc-plain64"}) {
    const CipherSpec spec = parse_cipher_spec(name);
    const Bytes key = pattern(key_sizes_bytes(spec)[1], 1);
    const auto cipher = make_sector_cipher(spec, key, 512);
    Bytes expected = plain;
    cipher->encrypt(0, expected);
    const auto in_child = [&] {
      Bytes data = plain;
      try {
        cipher->encrypt(0, data);
      } catch (const Error& error) {
        _exit(error.code() == Code::kInternal ? 10 : 1);
      }
      _exit(data == expected ? 11 : 2);
    };
    // 11: the portable kernel's contexts are OpenSSL's, which survive a fork.
    EXPECT_EXIT(
        in_child(),
        [](int status) {
          const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
          return code == 10 || code == 11;
        },
        "")
        << name;
  }
}

}  // namespace
}  // namespace lukskeep::crypto
