#include "crypto/aes_kernel.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <new>
#include <string>

#include <fmt/format.h>
#include <lukskeep/error.h>

#include "crypto/aes_functions.h"
#include "crypto/key_memory.h"

namespace lukskeep::crypto {
namespace {

constexpr AesKernel kKernels[] = {
#if defined(LUKSKEEP_SIMD) && defined(__x86_64__)
    {"vaes-avx512",
     CpuFeatures(CpuFeature::kAesNi, CpuFeature::kAvx2, CpuFeature::kAvx512, CpuFeature::kVaes,
                 CpuFeature::kVpclmul),
     &kVaesAvx512Functions},
    {"vaes-avx2",
     CpuFeatures(CpuFeature::kAesNi, CpuFeature::kAvx2, CpuFeature::kVaes, CpuFeature::kVpclmul),
     &kVaesAvx2Functions},
    {"aesni", CpuFeatures(CpuFeature::kAesNi), &kAesNiFunctions},
#endif
    {"portable", CpuFeatures(), nullptr},
};

// Round keys where they are wiped, and looked at only by the process that made them.
class ScheduleMemory {
 public:
  ScheduleMemory(const AesFunctions& functions, ByteView key) : memory_(sizeof(AesSchedule)) {
    functions.expand_key(key, *new (memory_.span().data()) AesSchedule);
  }
  const AesSchedule& operator*() const {
    // Pages of their own: aligned enough.
    return *std::launder(reinterpret_cast<const AesSchedule*>(memory_.bytes().data()));
  }

 private:
  KeyMemory memory_;
};

class AesBlockKey final : public BlockKey {
 public:
  AesBlockKey(const AesKernel& kernel, ByteView key)
      : BlockKey(16), kernel_(&kernel), schedule_(*kernel.functions, key) {}

  void encrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    kernel_->functions->ecb_encrypt(*schedule_, blocks.data(), blocks.size() / block_bytes());
  }
  void decrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    kernel_->functions->ecb_decrypt(*schedule_, blocks.data(), blocks.size() / block_bytes());
  }
  std::string_view kernel() const noexcept override { return kernel_->name; }

 private:
  const AesKernel* kernel_;
  ScheduleMemory schedule_;
};

AesUnits as_units(MutableBytes ivs, MutableBytes data) {
  const std::size_t count = ivs.size() / 16;
  assert(ivs.size() % 16 == 0 && count > 0 && data.size() % (count * 16) == 0);
  return {.data = data.data(), .unit_bytes = data.size() / count, .count = count};
}

class AesXtsCipher final : public ModeCipher {
 public:
  AesXtsCipher(const AesKernel& kernel, ByteView key)
      : ModeCipher(16),
        kernel_(&kernel),
        key_(*kernel.functions, key.first(key.size() / 2)),
        tweak_key_(*kernel.functions, key.subspan(key.size() / 2)) {}

  void encrypt(MutableBytes ivs, MutableBytes data) const override {
    if (ivs.empty()) return;
    const AesFunctions& functions = *kernel_->functions;
    functions.ecb_encrypt(*tweak_key_, ivs.data(), ivs.size() / 16);
    functions.xts_encrypt(*key_, ivs.data(), as_units(ivs, data));
  }
  void decrypt(MutableBytes ivs, MutableBytes data) const override {
    if (ivs.empty()) return;
    const AesFunctions& functions = *kernel_->functions;
    functions.ecb_encrypt(*tweak_key_, ivs.data(), ivs.size() / 16);
    functions.xts_decrypt(*key_, ivs.data(), as_units(ivs, data));
  }
  std::string_view kernel() const noexcept override { return kernel_->name; }

 private:
  const AesKernel* kernel_;
  ScheduleMemory key_;
  ScheduleMemory tweak_key_;
};

class AesCbcCipher final : public ModeCipher {
 public:
  AesCbcCipher(const AesKernel& kernel, ByteView key)
      : ModeCipher(16), kernel_(&kernel), key_(*kernel.functions, key) {}

  void encrypt(MutableBytes ivs, MutableBytes data) const override {
    if (!ivs.empty()) kernel_->functions->cbc_encrypt(*key_, ivs.data(), as_units(ivs, data));
  }
  void decrypt(MutableBytes ivs, MutableBytes data) const override {
    if (!ivs.empty()) kernel_->functions->cbc_decrypt(*key_, ivs.data(), as_units(ivs, data));
  }
  std::string_view kernel() const noexcept override { return kernel_->name; }

 private:
  const AesKernel* kernel_;
  ScheduleMemory key_;
};

}  // namespace

std::span<const AesKernel> aes_kernels() noexcept { return kKernels; }

const AesKernel& pick_aes_kernel(CpuFeatures features) noexcept {
  return *std::ranges::find_if(
      kKernels, [features](const AesKernel& kernel) { return features.has_all(kernel.needed); });
}

const AesKernel& require_aes_kernel(std::string_view name, CpuFeatures features) {
  const auto* found = std::ranges::find(kKernels, name, &AesKernel::name);
  if (found != std::end(kKernels) && features.has_all(found->needed)) return *found;
  std::string usable;
  for (const AesKernel& kernel : kKernels) {
    if (!features.has_all(kernel.needed)) continue;
    usable += fmt::format("{}'{}'", usable.empty() ? "" : ", ", kernel.name);
  }
  throw Error(Code::kUnsupported,
              found == std::end(kKernels)
                  ? fmt::format("there is no kernel '{}'", printable(name))
                  : fmt::format("this machine cannot run the kernel '{}'", found->name),
              "LUKSKEEP_KERNEL can be " + usable);
}

const AesKernel& aes_kernel_in_force() {
  const char* const forced = std::getenv("LUKSKEEP_KERNEL");
  if (forced != nullptr && *forced != '\0') return require_aes_kernel(forced, cpu_features());
  static const AesKernel& best = pick_aes_kernel(cpu_features());
  return best;
}

std::unique_ptr<BlockKey> make_aes_block_key(const AesKernel& kernel, ByteView key) {
  if (kernel.functions == nullptr) return make_openssl_block_key(BlockCipher::kAes, key);
  return std::make_unique<AesBlockKey>(kernel, key);
}

std::unique_ptr<ModeCipher> make_aes_mode_cipher(const AesKernel& kernel, CipherMode mode,
                                                 ByteView key) {
  if (kernel.functions == nullptr) return nullptr;
  if (mode == CipherMode::kXts) return std::make_unique<AesXtsCipher>(kernel, key);
  if (mode == CipherMode::kCbc) return std::make_unique<AesCbcCipher>(kernel, key);
  return nullptr;
}

}  // namespace lukskeep::crypto
