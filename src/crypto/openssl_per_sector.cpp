#include "crypto/openssl_per_sector.h"

#include <array>
#include <cassert>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>

#include "crypto/hash.h"
#include "crypto/openssl_handles.h"

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kBlock = 16;
using Block = std::array<std::byte, kBlock>;

EvpContext make_context(const std::string& name, ByteView key, bool encrypting) {
  const EvpCipher cipher = fetch_evp_cipher(name, key.size());
  if (!cipher) throw Error(Code::kUnsupported, fmt::format("this OpenSSL has no '{}'", name));
  return make_evp_context(*cipher, key, encrypting);
}

EvpContext make_essiv(const CipherSpec& spec, ByteView key) {
  if (spec.iv != IvGenerator::kEssiv) return nullptr;
  SecretBytes salt(require_hash(spec.iv_hash).digest_bytes);
  Hash hash(spec.iv_hash);
  hash.update(key);
  hash.finish(salt.span());
  return make_context(fmt::format("AES-{}-ECB", salt.size() * 8), salt.span(), true);
}

class OpensslPerSector final : public SectorCipher {
 public:
  OpensslPerSector(const CipherSpec& spec, const std::string& name, ByteView key,
                   std::uint32_t sector_size_bytes)
      : SectorCipher(sector_size_bytes),
        encrypt_(make_context(name, key, true)),
        decrypt_(make_context(name, key, false)),
        essiv_(make_essiv(spec, key)) {}

  void encrypt(std::uint64_t first_iv_sector, MutableBytes data) const override {
    apply(*encrypt_, first_iv_sector, data);
  }
  void decrypt(std::uint64_t first_iv_sector, MutableBytes data) const override {
    apply(*decrypt_, first_iv_sector, data);
  }
  std::string_view kernel() const noexcept override { return "openssl-per-sector"; }

 private:
  void apply(EVP_CIPHER_CTX& context, std::uint64_t iv_sector, MutableBytes data) const {
    const std::size_t sector = sector_size_bytes();
    assert(data.size() % sector == 0);
    for (std::size_t at = 0; at < data.size(); at += sector, iv_sector += sector / 512) {
      Block iv{};
      store_le(iv.data(), iv_sector);
      if (essiv_) apply_evp(*essiv_, iv);
      set_evp_iv(context, iv.data());
      apply_evp(context, data.subspan(at, sector));
    }
  }

  EvpContext encrypt_;
  EvpContext decrypt_;
  EvpContext essiv_;
};

}  // namespace

std::unique_ptr<SectorCipher> make_openssl_per_sector(const CipherSpec& spec, ByteView key,
                                                      std::uint32_t sector_size_bytes) {
  const bool xts = spec.mode == CipherMode::kXts;
  if (spec.cipher != BlockCipher::kAes || (!xts && spec.mode != CipherMode::kCbc)) return nullptr;
  if (spec.iv != IvGenerator::kPlain64 && spec.iv != IvGenerator::kEssiv) return nullptr;
  check_key_size(spec, static_cast<std::uint32_t>(key.size()));
  const std::size_t key_bits = xts ? key.size() * 4 : key.size() * 8;
  const std::size_t half = key.size() / 2;
  if (xts && (key_bits == 192 || equal_constant_time(key.first(half), key.subspan(half)))) {
    return nullptr;
  }
  return std::make_unique<OpensslPerSector>(
      spec, fmt::format("AES-{}-{}", key_bits, xts ? "XTS" : "CBC"), key, sector_size_bytes);
}

}  // namespace lukskeep::crypto
