#include "crypto/aes_kernel.h"

#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lukskeep/error.h>

#include "crypto/cipher_test_tools.h"
#include "crypto/sector_cipher.h"

namespace lukskeep::crypto {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr CpuFeatures kEverything(CpuFeature::kAesNi, CpuFeature::kAvx2, CpuFeature::kAvx512,
                                  CpuFeature::kVaes, CpuFeature::kVpclmul);

bool has_simd() { return aes_kernels().size() > 1; }

// Sets LUKSKEEP_KERNEL and puts back what was there.
class ForcedKernel {
 public:
  explicit ForcedKernel(const std::string& name) {
    const char* const before = std::getenv("LUKSKEEP_KERNEL");
    had_value_ = before != nullptr;
    if (had_value_) before_ = before;
    setenv("LUKSKEEP_KERNEL", name.c_str(), 1);
  }
  ~ForcedKernel() {
    if (had_value_) {
      setenv("LUKSKEEP_KERNEL", before_.c_str(), 1);
    } else {
      unsetenv("LUKSKEEP_KERNEL");
    }
  }
  ForcedKernel(const ForcedKernel&) = delete;
  ForcedKernel& operator=(const ForcedKernel&) = delete;

 private:
  bool had_value_ = false;
  std::string before_;
};

std::string kernel_of(const char* cipher, std::size_t key_bytes) {
  return std::string(
      make_sector_cipher(parse_cipher_spec(cipher), pattern(key_bytes, 1), 512)->kernel());
}

TEST(AesKernel, BestFirstPortableLast) {
  std::vector<std::string> names;
  for (const AesKernel& kernel : aes_kernels()) names.emplace_back(kernel.name);
  if (has_simd()) {
    EXPECT_THAT(names, ElementsAre("vaes-avx512", "vaes-avx2", "aesni", "portable"));
  } else {
    EXPECT_THAT(names, ElementsAre("portable"));
  }
  EXPECT_EQ(aes_kernels().back().needed, CpuFeatures());
}

TEST(AesKernel, TheFeaturesDecide) {
  const auto pick = [](CpuFeatures features) { return pick_aes_kernel(features).name; };
  EXPECT_EQ(pick(CpuFeatures()), "portable");
  if (!has_simd()) GTEST_SKIP() << "skipped: built without the SIMD kernels";
  EXPECT_EQ(pick(kEverything), "vaes-avx512");
  EXPECT_EQ(pick(kEverything.without(CpuFeature::kAvx512)), "vaes-avx2");
  EXPECT_EQ(pick(kEverything.without(CpuFeature::kVaes)), "aesni");
  EXPECT_EQ(pick(kEverything.without(CpuFeature::kVpclmul)), "aesni");
  EXPECT_EQ(pick(kEverything.without(CpuFeature::kAvx2)), "aesni");
  EXPECT_EQ(pick(CpuFeatures(CpuFeature::kAesNi)), "aesni");
  EXPECT_EQ(pick(CpuFeatures(CpuFeature::kAesNi, CpuFeature::kAvx2)), "aesni");
  EXPECT_EQ(pick(kEverything.without(CpuFeature::kAesNi)), "portable");
  EXPECT_EQ(pick(CpuFeatures(CpuFeature::kAvx2, CpuFeature::kVaes)), "portable");
}

TEST(AesKernel, TheEnvironmentForcesOne) {
  for (const AesKernel* kernel : usable_kernels()) {
    const ForcedKernel forced{std::string(kernel->name)};
    EXPECT_EQ(kernel_of("aes-xts-plain64", 64), kernel->name);
    EXPECT_EQ(kernel_of("aes-cbc-essiv:sha256", 32), kernel->name);
    EXPECT_EQ(kernel_of("aes-ctr-plain64", 16), kernel->name);
    EXPECT_EQ(kernel_of("serpent-xts-plain64", 64), "gcrypt");
    EXPECT_EQ(kernel_of("aria-xts-plain64", 64), "openssl");
  }
  const ForcedKernel none("");
  EXPECT_EQ(kernel_of("aes-xts-plain64", 64), pick_aes_kernel(cpu_features()).name);
}

TEST(AesKernel, AForcedKernelMustExist) {
  const ForcedKernel forced("vaes-avx1024");
  for (const char* cipher : {"aes-xts-plain64", "serpent-xts-plain64"}) {
    try {
      kernel_of(cipher, 64);
      FAIL() << cipher;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsupported);
      EXPECT_EQ(error.message(), "there is no kernel 'vaes-avx1024'");
      EXPECT_THAT(error.hint(), HasSubstr("'portable'"));
    }
  }
}

TEST(AesKernel, AForcedKernelMustRunHere) {
  EXPECT_EQ(require_aes_kernel("portable", CpuFeatures()).name, "portable");
  for (const AesKernel& kernel : aes_kernels()) {
    EXPECT_EQ(require_aes_kernel(kernel.name, kEverything).name, kernel.name);
    if (kernel.name == "portable") continue;
    try {
      require_aes_kernel(kernel.name, CpuFeatures());
      FAIL() << kernel.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsupported);
      EXPECT_EQ(error.message(),
                "this machine cannot run the kernel '" + std::string(kernel.name) + "'");
      EXPECT_EQ(error.hint(), "LUKSKEEP_KERNEL can be 'portable'");
    }
  }
}

// FIPS 197 appendix A: the last round key of each size.
TEST(AesKernel, KeyExpansion) {
  struct Expansion {
    const char* key;
    std::uint32_t rounds;
    const char* last;
  };
  constexpr Expansion kExpansions[] = {
      {"2b7e151628aed2a6abf7158809cf4f3c", 10, "d014f9a8c9ee2589e13f0cc8b6630ca6"},
      {"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", 12, "e98ba06f448c773c8ecc720401002202"},
      {"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 14,
       "fe4890d1e6188d0b046df344706c631e"}};
  for (const AesKernel* kernel : usable_kernels()) {
    if (kernel->functions == nullptr) continue;
    for (const Expansion& expansion : kExpansions) {
      AesSchedule schedule{};
      kernel->functions->expand_key(hex(expansion.key), schedule);
      EXPECT_EQ(schedule.rounds, expansion.rounds);
      const ByteView encrypt(schedule.encrypt);
      EXPECT_EQ(to_hex(encrypt.subspan(std::size_t{expansion.rounds} * 16, 16)), expansion.last);
      EXPECT_EQ(to_hex(ByteView(schedule.decrypt).first(16)), expansion.last);
    }
  }
}

// All of it against portable: constructions × key sizes × sector sizes × 1 to 33 sectors, at every
// alignment.
TEST(AesKernel, EveryKernelAgreesWithPortable) {
  for (const char* name : {"aes-xts-plain64", "aes-cbc-essiv:sha256", "aes-cbc-plain"}) {
    const CipherSpec spec = parse_cipher_spec(name);
    for (const std::uint32_t key_bytes : key_sizes_bytes(spec)) {
      for (const std::uint32_t sector : {512U, 1024U, 2048U, 4096U}) {
        const Bytes key = pattern(key_bytes, sector);
        const auto portable = make_sector_cipher_on(portable_kernel(), spec, key, sector);
        for (const AesKernel* kernel : usable_kernels()) {
          if (kernel->functions == nullptr) continue;
          const auto cipher = make_sector_cipher_on(*kernel, spec, key, sector);
          for (std::size_t count = 1; count <= 33; ++count) {
            const std::size_t offset = count * 7 % 64;
            const Bytes plain = pattern(offset + count * sector, count);
            Bytes expected = plain;
            portable->encrypt(count, MutableBytes(expected).subspan(offset));
            Bytes data = plain;
            cipher->encrypt(count, MutableBytes(data).subspan(offset));
            ASSERT_EQ(data, expected) << name << " " << kernel->name << " " << count;
            cipher->decrypt(count, MutableBytes(data).subspan(offset));
            ASSERT_EQ(data, plain) << name << " " << kernel->name << " " << count;
          }
        }
      }
    }
  }
}

TEST(CpuFeatures, AreSets) {
  CpuFeatures features;
  EXPECT_FALSE(features.has(CpuFeature::kAvx2));
  features = features.with(CpuFeature::kAvx2).with(CpuFeature::kAesNi);
  EXPECT_TRUE(features.has_all(CpuFeatures(CpuFeature::kAvx2, CpuFeature::kAesNi)));
  EXPECT_FALSE(features.has_all(CpuFeatures(CpuFeature::kAvx2, CpuFeature::kVaes)));
  EXPECT_EQ(features.without(CpuFeature::kAvx2), CpuFeatures(CpuFeature::kAesNi));
}

#if defined(__x86_64__)
// The compiler's own detection knows the same of this machine.
TEST(CpuFeatures, AgreeWithTheCompilers) {
  const CpuFeatures features = cpu_features();
  EXPECT_EQ(features.has(CpuFeature::kAesNi),
            __builtin_cpu_supports("aes") != 0 && __builtin_cpu_supports("sse4.1") != 0);
  EXPECT_EQ(features.has(CpuFeature::kAvx2), __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(features.has(CpuFeature::kVaes), __builtin_cpu_supports("vaes") != 0);
  EXPECT_EQ(features.has(CpuFeature::kVpclmul), __builtin_cpu_supports("vpclmulqdq") != 0);
  EXPECT_EQ(features.has(CpuFeature::kAvx512),
            __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0);
}
#endif

}  // namespace
}  // namespace lukskeep::crypto
