// The table behind hash.h: which library computes which hash. Private to this folder.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace lukskeep::crypto {

struct HashAlgorithm {
  std::string_view name;  // canonical
  const char* evp_name;   // OpenSSL has it; null: libgcrypt only
  int gcrypt_id;          // libgcrypt knows every hash of the table
  std::size_t digest_bytes;
  std::size_t block_bytes;
};

// Sorted by name.
std::span<const HashAlgorithm> hash_algorithms() noexcept;
// Null if the name is unknown. Initialises no library.
const HashAlgorithm* find_hash_algorithm(std::string_view name) noexcept;
// Throws Error{kUnsupported} if the name is unknown or this machine's libraries lack the hash.
const HashAlgorithm& require_hash_algorithm(std::string_view name);

}  // namespace lukskeep::crypto
