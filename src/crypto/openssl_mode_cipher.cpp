#include "crypto/openssl_mode_cipher.h"

#include <utility>

#include <fmt/format.h>
#include <lukskeep/secret_bytes.h>

#include "crypto/openssl_handles.h"

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kBlock = 16;
// Measured on x86-64: below this, setting the IV of a unit costs more than OpenSSL's XTS saves.
constexpr std::size_t kXtsUnitBytesMin = 1024;
// From so many chains side by side, batches of blocks are faster than one CBC chain after another.
constexpr std::size_t kCbcChainsMin = 4;

class OpensslModeCipher final : public ModeCipher {
 public:
  OpensslModeCipher(CipherMode mode, EvpCipher cipher, ByteView key,
                    std::unique_ptr<ModeCipher> batch)
      : ModeCipher(kBlock),
        mode_(mode),
        contexts_(std::move(cipher), key),
        batch_(std::move(batch)) {}

  void encrypt(MutableBytes ivs, MutableBytes data) const override {
    const std::size_t units = ivs.size() / kBlock;
    const bool by_unit =
        mode_ == CipherMode::kXts ? is_long(data.size(), units) : units < kCbcChainsMin;
    if (!by_unit) return batch_->encrypt(ivs, data);
    apply(*contexts_.lease()->encrypt, ivs, data);
  }

  void decrypt(MutableBytes ivs, MutableBytes data) const override {
    const bool by_unit = mode_ == CipherMode::kXts && is_long(data.size(), ivs.size() / kBlock);
    if (!by_unit) return batch_->decrypt(ivs, data);
    apply(*contexts_.lease()->decrypt, ivs, data);
  }

  std::string_view kernel() const noexcept override { return batch_->kernel(); }

 private:
  static bool is_long(std::size_t data_bytes, std::size_t units) {
    return data_bytes >= units * kXtsUnitBytesMin;
  }

  static void apply(EVP_CIPHER_CTX& context, MutableBytes ivs, MutableBytes data) {
    const std::size_t units = ivs.size() / kBlock;
    for (std::size_t unit = 0; unit < units; ++unit) {
      set_evp_iv(context, ivs.data() + unit * kBlock);
      const std::size_t unit_bytes = data.size() / units;
      apply_evp(context, data.subspan(unit * unit_bytes, unit_bytes));
    }
  }

  CipherMode mode_;
  EvpContexts contexts_;
  std::unique_ptr<ModeCipher> batch_;
};

}  // namespace

std::unique_ptr<ModeCipher> add_openssl_modes(CipherMode mode, ByteView key,
                                              std::unique_ptr<ModeCipher> batch) {
  const bool is_xts = mode == CipherMode::kXts;
  if (!is_xts && mode != CipherMode::kCbc) return batch;
  const std::size_t half = key.size() / 2;
  if (is_xts && equal_constant_time(key.first(half), key.subspan(half))) return batch;
  EvpCipher cipher = fetch_evp_cipher(
      fmt::format("AES-{}-{}", (is_xts ? half : key.size()) * 8, is_xts ? "XTS" : "CBC"),
      key.size());
  if (!cipher) return batch;
  return std::make_unique<OpensslModeCipher>(mode, std::move(cipher), key, std::move(batch));
}

}  // namespace lukskeep::crypto
