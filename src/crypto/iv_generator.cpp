#include "crypto/iv_generator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>

#include <fmt/format.h>
#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>

#include "crypto/hash.h"
#include "crypto/word_bytes.h"

namespace lukskeep::crypto {
namespace {

constexpr unsigned kSectorShift = 9;

// The kernel's template essiv(skcipher,hash): the digest of the whole key (both halves of an XTS
// key) is the key of the bare block cipher.
std::unique_ptr<BlockKey> make_essiv_key(const CipherSpec& spec, ByteView key,
                                         const AesKernel& kernel) {
  const HashInfo info = require_hash(spec.iv_hash);
  CipherSpec bare = spec;
  bare.mode = CipherMode::kEcb;
  const std::vector<std::uint32_t> sizes = key_sizes_bytes(bare);
  // Serpent takes keys of every length up to 32 bytes.
  const bool fits = spec.cipher == BlockCipher::kSerpent
                        ? info.digest_bytes <= sizes.back()
                        : std::ranges::find(sizes, info.digest_bytes) != sizes.end();
  if (!fits) {
    throw Error(Code::kUnsupported,
                fmt::format("cipher '{}' is not supported: the {}-bit digest of '{}' is no key for "
                            "'{}'",
                            to_string(spec), info.digest_bytes * 8, info.name,
                            block_cipher_name(spec.cipher)));
  }
  SecretBytes salt(info.digest_bytes);
  Hash hash(info.name);
  hash.update(key);
  hash.finish(salt.span());
  return make_block_key(spec.cipher, salt.span(), kernel);
}

// dm-crypt counts in what the kernel's crypto API calls the block size of the whole mode; that is
// 1 for the stream mode ctr.
unsigned benbi_shift(const CipherSpec& spec) {
  const std::uint32_t unit = spec.mode == CipherMode::kCtr ? 1 : block_bytes(spec.cipher);
  return kSectorShift - static_cast<unsigned>(std::countr_zero(unit));
}

}  // namespace

IvSource::IvSource(const CipherSpec& spec, ByteView key, std::uint32_t sector_size_bytes,
                   const ModeCipher& mode, const AesKernel& kernel)
    : generator_(spec.iv),
      iv_bytes_(mode.block_bytes()),
      sector_size_bytes_(sector_size_bytes),
      benbi_shift_(benbi_shift(spec)),
      mode_(&mode) {
  if (generator_ == IvGenerator::kEssiv) essiv_ = make_essiv_key(spec, key, kernel);
}

void IvSource::write_numbers(std::uint64_t iv_sector, MutableBytes ivs) const noexcept {
  const std::uint64_t step = sector_size_bytes_ >> kSectorShift;
  const std::size_t last8 = iv_bytes_ - sizeof(std::uint64_t);
  const auto for_each = [&](const auto& write) {
    for (std::size_t at = 0; at < ivs.size(); at += iv_bytes_, iv_sector += step) {
      write(ivs.data() + at);
    }
  };
  switch (generator_) {
    case IvGenerator::kNone:
    case IvGenerator::kNull:
      break;
    case IvGenerator::kPlain:
      for_each([&](std::byte* iv) { put_le64(iv, iv_sector & UINT32_MAX); });
      break;
    case IvGenerator::kPlain64:
    case IvGenerator::kEssiv:
      for_each([&](std::byte* iv) { put_le64(iv, iv_sector); });
      break;
    case IvGenerator::kPlain64be:
      for_each([&](std::byte* iv) { put_be64(iv + last8, iv_sector); });
      break;
    case IvGenerator::kBenbi:
      for_each([&](std::byte* iv) { put_be64(iv + last8, (iv_sector << benbi_shift_) + 1); });
      break;
    // The number, which counts 512 bytes, times the sector size: what dm-crypt computes without
    // iv_large_sectors, although for sectors above 512 bytes it is no byte offset.
    case IvGenerator::kEboiv:
      for_each([&](std::byte* iv) { put_le64(iv, iv_sector * sector_size_bytes_); });
      break;
  }
}

void IvSource::fill(std::uint64_t first_iv_sector, MutableBytes ivs) const {
  assert(ivs.size() % iv_bytes_ == 0 && ivs.size() / iv_bytes_ <= ModeCipher::kUnitsMax);
  std::ranges::fill(ivs, std::byte{0});
  write_numbers(first_iv_sector, ivs);
  if (essiv_) essiv_->encrypt(ivs);
  if (generator_ == IvGenerator::kEboiv) encrypt_eboiv(ivs);
}

// dm-crypt encrypts one block of zeroes with the volume's own key and mode, and the offset as IV.
void IvSource::encrypt_eboiv(MutableBytes ivs) const {
  std::array<std::byte, ModeCipher::kUnitsMax * ModeCipher::kBlockBytesMax> blocks{};
  const MutableBytes zeroes = MutableBytes(blocks).first(ivs.size());
  mode_->encrypt(ivs, zeroes);
  std::ranges::copy(zeroes, ivs.begin());
  wipe(zeroes);
}

}  // namespace lukskeep::crypto
