#include "crypto/mode_cipher.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>

#include "crypto/aes_kernel.h"
#include "crypto/key_memory.h"
#include "crypto/openssl_mode_cipher.h"
#include "crypto/word_bytes.h"
#include "crypto/xor_bytes.h"

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kBlock = 16;  // of XTS and LRW
// Tweaks and key streams are made for so much data at a time: it stays in the first cache.
constexpr std::size_t kPieceBytes = 8192;
using Piece = std::array<std::byte, kPieceBytes>;

std::size_t unit_count(MutableBytes ivs, std::size_t block_bytes) {
  assert(ivs.size() % block_bytes == 0);
  return ivs.size() / block_bytes;
}

// Calls work(first unit, data of some whole units) so that each call has at most kPieceBytes.
template <typename Work>
void for_unit_groups(MutableBytes data, std::size_t units, const Work& work) {
  if (units == 0) return;
  assert(data.size() % units == 0 && data.size() / units <= kPieceBytes);
  const std::size_t unit_bytes = data.size() / units;
  const std::size_t group = kPieceBytes / unit_bytes;
  for (std::size_t first = 0; first < units; first += group) {
    const std::size_t count = std::min(group, units - first);
    work(first, data.subspan(first * unit_bytes, count * unit_bytes));
  }
}

class EcbCipher final : public ModeCipher {
 public:
  explicit EcbCipher(std::unique_ptr<BlockKey> key)
      : ModeCipher(key->block_bytes()), key_(std::move(key)) {}
  void encrypt(MutableBytes /*ivs*/, MutableBytes data) const override { key_->encrypt(data); }
  void decrypt(MutableBytes /*ivs*/, MutableBytes data) const override { key_->decrypt(data); }
  std::string_view kernel() const noexcept override { return key_->kernel(); }

 private:
  std::unique_ptr<BlockKey> key_;
};

class CbcCipher final : public ModeCipher {
 public:
  explicit CbcCipher(std::unique_ptr<BlockKey> key)
      : ModeCipher(key->block_bytes()), key_(std::move(key)) {}
  std::string_view kernel() const noexcept override { return key_->kernel(); }

  // Each unit is a chain; the chains run side by side. `ivs` holds the last block of each.
  void encrypt(MutableBytes ivs, MutableBytes data) const override {
    const std::size_t block = block_bytes();
    const std::size_t units = unit_count(ivs, block);
    const std::size_t unit_bytes = units == 0 ? 0 : data.size() / units;
    for (std::size_t at = 0; at < unit_bytes; at += block) {
      for (std::size_t unit = 0; unit < units; ++unit) {
        xor_bytes(ivs.data() + unit * block, data.data() + unit * unit_bytes + at, block);
      }
      key_->encrypt(ivs);
      for (std::size_t unit = 0; unit < units; ++unit) {
        std::memcpy(data.data() + unit * unit_bytes + at, ivs.data() + unit * block, block);
      }
    }
  }

  void decrypt(MutableBytes ivs, MutableBytes data) const override {
    const std::size_t block = block_bytes();
    const std::size_t units = unit_count(ivs, block);
    Piece previous;
    for_unit_groups(data, units, [&](std::size_t first, MutableBytes group) {
      const std::size_t unit_bytes = data.size() / units;
      std::memcpy(previous.data() + block, group.data(), group.size() - block);
      for (std::size_t at = 0; at < group.size(); at += unit_bytes) {
        std::memcpy(previous.data() + at, ivs.data() + (first + at / unit_bytes) * block, block);
      }
      key_->decrypt(group);
      xor_bytes(group.data(), previous.data(), group.size());
    });
  }

 private:
  std::unique_ptr<BlockKey> key_;
};

// The kernel's ctr(): the IV is the first counter, big endian, as wide as a block.
class CtrCipher final : public ModeCipher {
 public:
  explicit CtrCipher(std::unique_ptr<BlockKey> key)
      : ModeCipher(key->block_bytes()), key_(std::move(key)) {}
  std::string_view kernel() const noexcept override { return key_->kernel(); }

  void encrypt(MutableBytes ivs, MutableBytes data) const override {
    const std::size_t units = unit_count(ivs, block_bytes());
    Piece stream;
    for_unit_groups(data, units, [&](std::size_t first, MutableBytes group) {
      const std::size_t unit_bytes = data.size() / units;
      for (std::size_t at = 0; at < group.size(); at += unit_bytes) {
        write_counters(ivs.data() + (first + at / unit_bytes) * block_bytes(), stream.data() + at,
                       unit_bytes);
      }
      key_->encrypt({stream.data(), group.size()});
      xor_bytes(group.data(), stream.data(), group.size());
    });
    wipe({stream.data(), std::min(stream.size(), data.size())});
  }
  void decrypt(MutableBytes ivs, MutableBytes data) const override { encrypt(ivs, data); }

 private:
  void write_counters(const std::byte* iv, std::byte* out, std::size_t size_bytes) const {
    const std::size_t block = block_bytes();
    const bool wide = block == kBlock;
    std::uint64_t high = wide ? load_be<std::uint64_t>(iv) : 0;
    auto low = load_be<std::uint64_t>(iv + block - sizeof(std::uint64_t));
    for (std::size_t at = 0; at < size_bytes; at += block) {
      if (wide) put_be64(out + at, high);
      put_be64(out + at + block - sizeof(low), low);
      if (++low == 0) ++high;
    }
  }

  std::unique_ptr<BlockKey> key_;
};

// What XTS and LRW have in common: C = E(P ^ T) ^ T with a tweak T for every block.
class TweakedCipher : public ModeCipher {
 public:
  explicit TweakedCipher(std::unique_ptr<BlockKey> key)
      : ModeCipher(kBlock), key_(std::move(key)) {}
  std::string_view kernel() const noexcept override { return key_->kernel(); }

  void encrypt(MutableBytes ivs, MutableBytes data) const override {
    apply(ivs, data, &BlockKey::encrypt);
  }
  void decrypt(MutableBytes ivs, MutableBytes data) const override {
    apply(ivs, data, &BlockKey::decrypt);
  }

 protected:
  // Called once for all IVs, before write_tweaks.
  virtual void prepare(MutableBytes ivs) const = 0;
  // Writes the tweaks of the blocks of one unit.
  virtual void write_tweaks(const std::byte* iv, MutableBytes tweaks) const = 0;

 private:
  using Direction = void (BlockKey::*)(MutableBytes) const;

  void apply(MutableBytes ivs, MutableBytes data, Direction direction) const {
    const std::size_t units = unit_count(ivs, kBlock);
    prepare(ivs);
    Piece tweaks;
    for_unit_groups(data, units, [&](std::size_t first, MutableBytes group) {
      const std::size_t unit_bytes = data.size() / units;
      for (std::size_t at = 0; at < group.size(); at += unit_bytes) {
        write_tweaks(ivs.data() + (first + at / unit_bytes) * kBlock,
                     {tweaks.data() + at, unit_bytes});
      }
      xor_bytes(group.data(), tweaks.data(), group.size());
      ((*key_).*direction)(group);
      xor_bytes(group.data(), tweaks.data(), group.size());
    });
    wipe({tweaks.data(), std::min(tweaks.size(), data.size())});
  }

  std::unique_ptr<BlockKey> key_;
};

// IEEE Std 1619-2018 section 5.3, for any cipher with 128-bit blocks.
class XtsCipher final : public TweakedCipher {
 public:
  XtsCipher(std::unique_ptr<BlockKey> key, std::unique_ptr<BlockKey> tweak_key)
      : TweakedCipher(std::move(key)), tweak_key_(std::move(tweak_key)) {}

 protected:
  void prepare(MutableBytes ivs) const override { tweak_key_->encrypt(ivs); }

  void write_tweaks(const std::byte* iv, MutableBytes tweaks) const override {
    auto low = load_le<std::uint64_t>(iv);
    auto high = load_le<std::uint64_t>(iv + sizeof(low));
    for (std::size_t at = 0; at < tweaks.size(); at += kBlock) {
      put_le64(tweaks.data() + at, low);
      put_le64(tweaks.data() + at + sizeof(low), high);
      // Times x modulo x^128 + x^7 + x^2 + x + 1, without a branch: tweaks are secret.
      const std::uint64_t reduce = (0 - (high >> 63)) & 0x87;
      high = (high << 1) | (low >> 63);
      low = (low << 1) ^ reduce;
    }
  }

 private:
  std::unique_ptr<BlockKey> tweak_key_;
};

// The kernel's lrw(), after IEEE P1619 draft 00.00.00 (2004): T = I * K2 in GF(2^128), where the
// index I counts blocks, and both are big-endian polynomials.
class LrwCipher final : public TweakedCipher {
 public:
  LrwCipher(std::unique_ptr<BlockKey> key, ByteView tweak_key)
      : TweakedCipher(std::move(key)), powers_(kPowers * kBlock), steps_(kPowers * kBlock) {
    auto high = load_be<std::uint64_t>(tweak_key.data());
    auto low = load_be<std::uint64_t>(tweak_key.data() + sizeof(high));
    std::uint64_t sum_high = 0;
    std::uint64_t sum_low = 0;
    for (std::size_t i = 0; i < kPowers; ++i) {
      store(powers_, i, high, low);
      store(steps_, i, sum_high ^= high, sum_low ^= low);
      const std::uint64_t reduce = (0 - (high >> 63)) & 0x87;
      high = (high << 1) | (low >> 63);
      low = (low << 1) ^ reduce;
    }
  }

 protected:
  void prepare(MutableBytes /*ivs*/) const override {}

  // Branches and table indices depend on the index only, which is public.
  void write_tweaks(const std::byte* iv, MutableBytes tweaks) const override {
    const std::byte* const steps = steps_.bytes().data();
    auto high = load_be<std::uint64_t>(iv);
    auto low = load_be<std::uint64_t>(iv + sizeof(high));
    std::array<std::byte, kBlock> tweak{};
    multiply(high, low, tweak.data());
    for (std::size_t at = 0; at < tweaks.size(); at += kBlock) {
      std::memcpy(tweaks.data() + at, tweak.data(), kBlock);
      // I and I + 1 differ in the lowest 0 of I and the ones below it.
      const int ones =
          low == UINT64_MAX ? 64 + std::min(63, std::countr_one(high)) : std::countr_one(low);
      xor_bytes(tweak.data(), steps + static_cast<std::size_t>(ones) * kBlock, kBlock);
      if (++low == 0) ++high;
    }
    wipe(tweak);
  }

 private:
  static constexpr std::size_t kPowers = 128;

  static void store(KeyMemory& table, std::size_t i, std::uint64_t high, std::uint64_t low) {
    store_be(table.span().data() + i * kBlock, high);
    store_be(table.span().data() + i * kBlock + sizeof(high), low);
  }

  void multiply(std::uint64_t high, std::uint64_t low, std::byte* product) const {
    const std::byte* const powers = powers_.bytes().data();
    for (std::size_t i = 0; i < kPowers; ++i) {
      const std::uint64_t bit = (i < 64 ? low >> i : high >> (i - 64)) & 1;
      if (bit != 0) xor_bytes(product, powers + i * kBlock, kBlock);
    }
  }

  KeyMemory powers_;  // K2 * x^i
  KeyMemory steps_;   // K2 * (x^i + … + x + 1)
};

// By batches of blocks, which every cipher can.
std::unique_ptr<ModeCipher> make_batch_cipher(const CipherSpec& spec, ByteView key,
                                              const AesKernel& kernel) {
  const auto block_key = [&](ByteView part) { return make_block_key(spec.cipher, part, kernel); };
  switch (spec.mode) {
    case CipherMode::kXts:
      return std::make_unique<XtsCipher>(block_key(key.first(key.size() / 2)),
                                         block_key(key.subspan(key.size() / 2)));
    case CipherMode::kLrw:
      return std::make_unique<LrwCipher>(block_key(key.first(key.size() - kBlock)),
                                         key.last(kBlock));
    case CipherMode::kCbc:
      return std::make_unique<CbcCipher>(block_key(key));
    case CipherMode::kCtr:
      return std::make_unique<CtrCipher>(block_key(key));
    case CipherMode::kEcb:
      return std::make_unique<EcbCipher>(block_key(key));
  }
  throw Error(Code::kInternal, "a cipher mode is missing");
}

}  // namespace

std::unique_ptr<ModeCipher> make_mode_cipher(const CipherSpec& spec, ByteView key,
                                             const AesKernel& kernel) {
  if (spec.cipher != BlockCipher::kAes) return make_batch_cipher(spec, key, kernel);
  if (auto cipher = make_aes_mode_cipher(kernel, spec.mode, key)) return cipher;
  auto batch = make_batch_cipher(spec, key, kernel);
  return kernel.functions != nullptr ? std::move(batch)
                                     : add_openssl_modes(spec.mode, key, std::move(batch));
}

}  // namespace lukskeep::crypto
