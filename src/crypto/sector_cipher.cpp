#include "crypto/sector_cipher.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>

#include <fmt/format.h>
#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>

#include "crypto/aes_kernel.h"
#include "crypto/iv_generator.h"
#include "crypto/mode_cipher.h"

namespace lukskeep::crypto {
namespace {

constexpr std::uint32_t kSectorBytesMin = 512;
constexpr std::uint32_t kSectorBytesMax = 4096;

class NullCipher final : public SectorCipher {
 public:
  explicit NullCipher(std::uint32_t sector_size_bytes) noexcept : SectorCipher(sector_size_bytes) {}
  void encrypt(std::uint64_t /*first_iv_sector*/, MutableBytes /*data*/) const override {}
  void decrypt(std::uint64_t /*first_iv_sector*/, MutableBytes /*data*/) const override {}
  std::string_view kernel() const noexcept override { return "none"; }
};

class ModeSectorCipher final : public SectorCipher {
 public:
  ModeSectorCipher(const AesKernel& kernel, const CipherSpec& spec, ByteView key,
                   std::uint32_t sector_size_bytes)
      : SectorCipher(sector_size_bytes),
        mode_(make_mode_cipher(spec, key, kernel)),
        ivs_(spec, key, sector_size_bytes, *mode_, kernel),
        kernel_(spec.cipher == BlockCipher::kAes ? kernel.name : mode_->kernel()) {}

  void encrypt(std::uint64_t first_iv_sector, MutableBytes data) const override {
    apply(first_iv_sector, data, &ModeCipher::encrypt);
  }
  void decrypt(std::uint64_t first_iv_sector, MutableBytes data) const override {
    apply(first_iv_sector, data, &ModeCipher::decrypt);
  }
  std::string_view kernel() const noexcept override { return kernel_; }

 private:
  using Direction = void (ModeCipher::*)(MutableBytes, MutableBytes) const;

  void apply(std::uint64_t iv_sector, MutableBytes data, Direction direction) const {
    const std::size_t sector = sector_size_bytes();
    assert(data.size() % sector == 0);
    std::array<std::byte, ModeCipher::kUnitsMax * ModeCipher::kBlockBytesMax> iv_space;
    const std::size_t units_max = std::min(data.size() / sector, ModeCipher::kUnitsMax);
    while (!data.empty()) {
      const std::size_t units = std::min(data.size() / sector, ModeCipher::kUnitsMax);
      const MutableBytes ivs = MutableBytes(iv_space).first(units * mode_->block_bytes());
      const MutableBytes group = data.first(units * sector);
      ivs_.fill(iv_sector, ivs);
      ((*mode_).*direction)(ivs, group);
      iv_sector += group.size() / kSectorBytesMin;
      data = data.subspan(group.size());
    }
    wipe(MutableBytes(iv_space).first(units_max * mode_->block_bytes()));
  }

  std::unique_ptr<ModeCipher> mode_;
  IvSource ivs_;
  std::string_view kernel_;
};

}  // namespace

std::unique_ptr<SectorCipher> make_sector_cipher(const CipherSpec& spec, ByteView key,
                                                 std::uint32_t sector_size_bytes) {
  return make_sector_cipher_on(aes_kernel_in_force(), spec, key, sector_size_bytes);
}

std::unique_ptr<SectorCipher> make_sector_cipher_on(const AesKernel& kernel, const CipherSpec& spec,
                                                    ByteView key, std::uint32_t sector_size_bytes) {
  if (sector_size_bytes < kSectorBytesMin || sector_size_bytes > kSectorBytesMax ||
      !std::has_single_bit(sector_size_bytes)) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a sector cannot have {} bytes", sector_size_bytes),
                "it can have 512, 1024, 2048 or 4096");
  }
  check_key_size(spec, static_cast<std::uint32_t>(std::min<std::size_t>(key.size(), UINT32_MAX)));
  if (spec.cipher == BlockCipher::kNull) return std::make_unique<NullCipher>(sector_size_bytes);
  return std::make_unique<ModeSectorCipher>(kernel, spec, key, sector_size_bytes);
}

}  // namespace lukskeep::crypto
