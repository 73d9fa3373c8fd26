// Authenticated encryption of small records: AES-256-GCM with a random nonce in front and the tag
// at the end. Thread-safe.
#pragma once

#include <optional>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::keys {

inline constexpr std::size_t kSealKeyBytes = 32;
inline constexpr std::size_t kSealOverheadBytes = 12 + 16;

// `bound` is authenticated and not stored. At most 2^32 records may be sealed with one key.
Bytes seal_record(ByteView key, ByteView plain, ByteView bound);
// Absent if the key or `bound` is another, or the record was changed.
std::optional<SecretBytes> open_record(ByteView key, ByteView sealed, ByteView bound);

}  // namespace lukskeep::keys
