// Hashes and HMAC by the names that LUKS headers use.
//
// Names: sha1, sha224, sha256, sha384, sha512, sha3-224 … sha3-512, ripemd160 (also rmd160),
// whirlpool, blake2b-160 … blake2b-512, blake2s-128 … blake2s-256 (those that cryptsetup's backends
// name), sm3, stribog256, stribog512; md5 for QEMU's old volumes. Upper and lower case are equal
// (LUKS1 headers spell both).
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::crypto {

struct HashInfo {
  std::string name;  // canonical, e.g. "sha256"
  std::size_t digest_bytes = 0;
  std::size_t block_bytes = 0;  // as HMAC uses it
};

// Absent if the name is unknown (or this machine's libraries lack the hash).
std::optional<HashInfo> find_hash(std::string_view name);
// As find_hash; throws Error{kUnsupported} naming `name`.
HashInfo require_hash(std::string_view name);
// All that work here, canonical names, sorted.
std::vector<HashInfo> all_hashes();

// A running hash. Not thread-safe; its state is wiped on destruction.
class Hash {
 public:
  // Throws Error{kUnsupported}.
  explicit Hash(std::string_view name);
  Hash(Hash&&) noexcept;
  Hash& operator=(Hash&&) noexcept;
  ~Hash();

  std::size_t digest_bytes() const noexcept;
  void update(ByteView data);
  // Writes digest_bytes() bytes to the start of `out` (which must have room) and starts afresh.
  void finish(MutableBytes out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Bytes hash(std::string_view name, ByteView data);
// RFC 2104; `key` of any length. Throws Error{kUnsupported}.
SecretBytes hmac(std::string_view hash_name, ByteView key, ByteView data);

}  // namespace lukskeep::crypto
