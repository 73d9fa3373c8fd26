#include "crypto/cipher_spec.h"

#include <algorithm>
#include <array>
#include <span>

#include <fmt/format.h>
#include <lukskeep/error.h>

#include "crypto/hash.h"

namespace lukskeep::crypto {
namespace {

constexpr std::array<std::uint32_t, 3> kKeys128To256 = {16, 24, 32};
constexpr std::array<std::uint32_t, 1> kKeys128 = {16};
constexpr std::uint32_t kLrwTweakBytes = 16;

struct CipherRow {
  BlockCipher cipher;
  std::string_view name;
  std::uint32_t block_bytes;
  std::span<const std::uint32_t> key_sizes_bytes;
};

constexpr std::array<CipherRow, 8> kCiphers = {{
    {BlockCipher::kAes, "aes", 16, kKeys128To256},
    {BlockCipher::kSerpent, "serpent", 16, kKeys128To256},
    {BlockCipher::kTwofish, "twofish", 16, kKeys128To256},
    {BlockCipher::kCamellia, "camellia", 16, kKeys128To256},
    {BlockCipher::kAria, "aria", 16, kKeys128To256},
    {BlockCipher::kSm4, "sm4", 16, kKeys128},
    {BlockCipher::kCast5, "cast5", 8, kKeys128},
    {BlockCipher::kNull, "cipher_null", 1, {}},
}};

struct ModeRow {
  CipherMode mode;
  std::string_view name;
};

constexpr std::array<ModeRow, 5> kModes = {{
    {CipherMode::kXts, "xts"},
    {CipherMode::kCbc, "cbc"},
    {CipherMode::kCtr, "ctr"},
    {CipherMode::kEcb, "ecb"},
    {CipherMode::kLrw, "lrw"},
}};

struct IvRow {
  IvGenerator iv;
  std::string_view name;
};

constexpr std::array<IvRow, 7> kIvs = {{
    {IvGenerator::kNull, "null"},
    {IvGenerator::kPlain, "plain"},
    {IvGenerator::kPlain64, "plain64"},
    {IvGenerator::kPlain64be, "plain64be"},
    {IvGenerator::kEssiv, "essiv"},
    {IvGenerator::kBenbi, "benbi"},
    {IvGenerator::kEboiv, "eboiv"},
}};

const CipherRow& row_of(BlockCipher cipher) {
  return *std::ranges::find(kCiphers, cipher, &CipherRow::cipher);
}

std::string_view name_of(CipherMode mode) {
  return std::ranges::find(kModes, mode, &ModeRow::mode)->name;
}

[[noreturn]] void unsupported(std::string_view text, const std::string& reason,
                              std::string hint = {}) {
  throw Error(Code::kUnsupported,
              fmt::format("cipher '{}' is not supported: {}", printable(text), reason),
              std::move(hint));
}

BlockCipher parse_cipher(std::string_view text, std::string_view name) {
  const auto* row = std::ranges::find(kCiphers, name, &CipherRow::name);
  if (row == kCiphers.end()) {
    unsupported(text, fmt::format("the block cipher '{}' is unknown", printable(name)));
  }
  return row->cipher;
}

CipherMode parse_mode(std::string_view text, std::string_view name) {
  const auto* row = std::ranges::find(kModes, name, &ModeRow::name);
  if (row == kModes.end()) {
    unsupported(text, fmt::format("the mode '{}' is unknown", printable(name)));
  }
  return row->mode;
}

// What dm-crypt refuses: XTS and LRW tweak 16-byte blocks; EBOIV wants IVs of the size of the
// blocks that the mode works on, which is 1 for a stream mode.
void check_combination(std::string_view text, const CipherSpec& spec) {
  const bool wide_only = spec.mode == CipherMode::kXts || spec.mode == CipherMode::kLrw;
  if (wide_only && block_bytes(spec.cipher) != 16) {
    unsupported(text,
                fmt::format("{} needs a block cipher with 128-bit blocks", name_of(spec.mode)));
  }
  if (spec.mode == CipherMode::kCtr && spec.iv == IvGenerator::kEboiv) {
    unsupported(text, "eboiv does not go with ctr");
  }
}

void parse_iv(std::string_view text, std::string_view iv_text, CipherSpec& spec) {
  const std::size_t colon = iv_text.find(':');
  const std::string_view name = iv_text.substr(0, colon);
  const auto* row = std::ranges::find(kIvs, name, &IvRow::name);
  if (row == kIvs.end()) {
    unsupported(text, fmt::format("the IV generator '{}' is unknown", printable(name)));
  }
  spec.iv = row->iv;
  // QEMU writes a hash after any generator ("plain64:sha256"); only ESSIV has a use for it.
  if (spec.iv != IvGenerator::kEssiv) return;
  if (colon == std::string_view::npos || colon + 1 == iv_text.size()) {
    unsupported(text, "essiv needs the name of a hash", "write it as 'essiv:sha256'");
  }
  const std::string_view hash_name = iv_text.substr(colon + 1);
  const auto hash = find_hash(hash_name);
  if (!hash) unsupported(text, fmt::format("the hash '{}' is unknown", printable(hash_name)));
  spec.iv_hash = hash->name;
}

// `text` after the cipher's name: mode[-iv[:hash]].
CipherSpec parse_mode_and_iv(std::string_view text, BlockCipher cipher, std::string_view rest) {
  CipherSpec spec{.cipher = cipher, .mode = CipherMode::kCbc, .iv = IvGenerator::kPlain};
  // dm-crypt's oldest format and cryptsetup: "aes", "aes-plain" and "aes-cbc" are cbc-plain.
  if (rest.empty() || rest == "plain" || rest == "cbc") return spec;

  const std::size_t dash = rest.find('-');
  spec.mode = parse_mode(text, rest.substr(0, dash));
  if (spec.mode == CipherMode::kEcb) {
    // ECB has no use for an IV; dm-crypt ignores one that is named.
    spec.iv = IvGenerator::kNone;
    return spec;
  }
  if (dash == std::string_view::npos) {
    unsupported(text, "the IV generator is missing",
                fmt::format("write it as '{}-plain64'", printable(text)));
  }
  parse_iv(text, rest.substr(dash + 1), spec);
  check_combination(text, spec);
  return spec;
}

std::string_view essiv_hash_for(BlockCipher cipher) {
  // ESSIV uses the digest as a key of the same cipher: sm4 and cast5 take 16 bytes only.
  return row_of(cipher).key_sizes_bytes.back() == 32 ? "sha256" : "md5";
}

void append_specs(BlockCipher cipher, CipherMode mode, std::vector<CipherSpec>& out) {
  if (mode == CipherMode::kEcb) {
    out.push_back({.cipher = cipher, .mode = mode, .iv = IvGenerator::kNone});
    return;
  }
  for (const IvRow& row : kIvs) {
    if (mode == CipherMode::kCtr && row.iv == IvGenerator::kEboiv) continue;
    CipherSpec spec{.cipher = cipher, .mode = mode, .iv = row.iv};
    if (row.iv == IvGenerator::kEssiv) {
      if (!find_hash(essiv_hash_for(cipher))) continue;
      spec.iv_hash = essiv_hash_for(cipher);
    }
    out.push_back(std::move(spec));
  }
}

}  // namespace

std::string_view block_cipher_name(BlockCipher cipher) noexcept { return row_of(cipher).name; }

std::uint32_t block_bytes(BlockCipher cipher) noexcept { return row_of(cipher).block_bytes; }

CipherSpec parse_cipher_spec(std::string_view text) {
  if (text.starts_with("capi:")) {
    unsupported(text, "it names an implementation of the kernel's crypto API");
  }
  const std::size_t dash = text.find('-');
  const std::string_view name = text == "null" ? "cipher_null" : text.substr(0, dash);
  const BlockCipher cipher = parse_cipher(text, name);
  const std::string_view rest = dash == std::string_view::npos ? "" : text.substr(dash + 1);
  if (dash != std::string_view::npos && rest.empty()) unsupported(text, "the mode is missing");

  if (cipher == BlockCipher::kNull) {
    if (!rest.empty() && rest != "ecb") unsupported(text, "cipher_null knows only ecb");
    return {.cipher = cipher, .mode = CipherMode::kEcb, .iv = IvGenerator::kNone};
  }
  return parse_mode_and_iv(text, cipher, rest);
}

std::string to_string(const CipherSpec& spec) {
  std::string text = fmt::format("{}-{}", block_cipher_name(spec.cipher), name_of(spec.mode));
  if (spec.iv == IvGenerator::kNone) return text;
  text += fmt::format("-{}", std::ranges::find(kIvs, spec.iv, &IvRow::iv)->name);
  if (spec.iv == IvGenerator::kEssiv) text += ":" + spec.iv_hash;
  return text;
}

std::vector<std::uint32_t> key_sizes_bytes(const CipherSpec& spec) {
  const std::span<const std::uint32_t> own = row_of(spec.cipher).key_sizes_bytes;
  std::vector<std::uint32_t> sizes(own.begin(), own.end());
  for (std::uint32_t& size : sizes) {
    if (spec.mode == CipherMode::kXts) size *= 2;
    if (spec.mode == CipherMode::kLrw) size += kLrwTweakBytes;
  }
  return sizes;
}

void check_key_size(const CipherSpec& spec, std::uint32_t key_size_bytes) {
  if (spec.cipher == BlockCipher::kNull) return;
  const std::vector<std::uint32_t> sizes = key_sizes_bytes(spec);
  if (std::ranges::find(sizes, key_size_bytes) != sizes.end()) return;
  std::string list;
  for (const std::uint32_t size : sizes) {
    list += fmt::format("{}{}", list.empty() ? "" : ", ", std::uint64_t{size} * 8);
  }
  throw Error(Code::kUnsupported,
              fmt::format("cipher '{}' does not take a key of {} bits", to_string(spec),
                          std::uint64_t{key_size_bytes} * 8),
              fmt::format("it takes {} bits", list));
}

bool is_insecure(const CipherSpec& spec) noexcept { return spec.cipher == BlockCipher::kNull; }

std::vector<CipherSpec> all_cipher_specs() {
  std::vector<CipherSpec> specs;
  for (const CipherRow& cipher : kCiphers) {
    for (const ModeRow& mode : kModes) {
      if (cipher.cipher == BlockCipher::kNull && mode.mode != CipherMode::kEcb) continue;
      const bool wide_only = mode.mode == CipherMode::kXts || mode.mode == CipherMode::kLrw;
      if (wide_only && cipher.block_bytes != 16) continue;
      append_specs(cipher.cipher, mode.mode, specs);
    }
  }
  return specs;
}

}  // namespace lukskeep::crypto
