// Names of sector ciphers as dm-crypt and LUKS spell them: cipher-mode[-ivgen[:ivhash]].
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace lukskeep::crypto {

enum class BlockCipher : std::uint8_t {
  kAes,
  kSerpent,
  kTwofish,
  kCamellia,
  kAria,
  kSm4,
  kCast5,
  kNull,
};
enum class CipherMode : std::uint8_t { kXts, kCbc, kCtr, kEcb, kLrw };
enum class IvGenerator : std::uint8_t {
  kNone,     // ecb
  kNull,     // all zero
  kPlain,    // sector number modulo 2^32, little endian
  kPlain64,  // sector number, little endian
  kPlain64be,
  kEssiv,  // plain64 encrypted with the hash of the key
  kBenbi,  // narrow-block count from 1, big endian
  kEboiv,  // byte offset encrypted with the key
};

struct CipherSpec {
  BlockCipher cipher = BlockCipher::kAes;
  CipherMode mode = CipherMode::kXts;
  IvGenerator iv = IvGenerator::kPlain64;
  std::string iv_hash;  // kEssiv only, canonical name

  bool operator==(const CipherSpec&) const = default;
};

// The name as headers spell it, e.g. "aes"; the block size (1 for cipher_null).
std::string_view block_cipher_name(BlockCipher cipher) noexcept;
std::uint32_t block_bytes(BlockCipher cipher) noexcept;

// Parses e.g. "aes-xts-plain64", "aes-cbc-essiv:sha256", "serpent-lrw-benbi", "cipher_null-ecb";
// "twofish" and "aes-cbc" mean what cryptsetup makes of them (cbc-plain; "aes" alone: cbc-plain).
// A hash after a generator other than essiv (QEMU writes "plain64:sha256") and an IV after ecb are
// ignored, as dm-crypt does.
// Throws Error{kUnsupported} saying which part is unknown; for "capi:" names and for a mode that
// the cipher does not have in the field (cast5 knows only cbc, ctr and ecb). "cipher_null" parses.
CipherSpec parse_cipher_spec(std::string_view text);

// The canonical spelling; parse_cipher_spec of it gives `spec` back.
std::string to_string(const CipherSpec& spec);

// Key sizes in bytes that the whole construction takes, ascending: aes-xts 32, 48, 64; lrw has 16
// bytes more than the cipher; cipher_null takes any and returns an empty list.
std::vector<std::uint32_t> key_sizes_bytes(const CipherSpec& spec);

// Throws Error{kUnsupported} naming both unless `key_size_bytes` is one of them.
void check_key_size(const CipherSpec& spec, std::uint32_t key_size_bytes);

// Whether anybody can read what it "encrypts".
bool is_insecure(const CipherSpec& spec) noexcept;

// Every construction that works here (ESSIV with one hash for each cipher), cipher_null included.
std::vector<CipherSpec> all_cipher_specs();

}  // namespace lukskeep::crypto
