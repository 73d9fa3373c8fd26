// Sealed bytes in the form of JOSE (RFC 7516), the part of it that Clevis writes: the key is given
// ("dir") or agreed on ("ECDH-ES"), the content is encrypted with A256GCM. Everything else that a
// JWE could ask for (compression, passwords, wrapped keys) is refused by name.
//
// The codec is pure: text in, values out. All functions may be called from any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "base/json.h"

namespace lukskeep::nbde {

inline constexpr std::size_t kContentKeyBytes = 32;

// The parts of a JWE, each as its base64url text; encrypted_key is always empty here. The header
// is kept as it is spelt: it is what the tag authenticates.
struct Jwe {
  std::string protected_header;
  std::string iv;
  std::string ciphertext;
  std::string tag;

  bool operator==(const Jwe&) const = default;
};

// "a.b.c.d.e", as LUKS1 and `clevis encrypt` have it; white space around it is passed over.
// Throws Error{kDamaged} naming `what`.
Jwe parse_compact_jwe(std::string_view text, std::string_view what);
std::string to_compact(const Jwe& jwe);

// The object {"ciphertext","encrypted_key","iv","protected","tag"} of a LUKS2 token. Members that
// are not known are refused where they would change the meaning ("header", "unprotected",
// "recipients", "aad"). Throws Error{kDamaged, kUnsupported} naming `what`.
Jwe parse_flattened_jwe(const Json& json, std::string_view what);
Json to_flattened(const Jwe& jwe);

// The protected header, checked: an object with alg "dir" or "ECDH-ES", enc "A256GCM", no zip, no
// crit. Throws Error{kDamaged, kUnsupported} naming `what`.
Json jwe_header(const Jwe& jwe, std::string_view what);

// `header` becomes the protected header: sorted, without white space, as jose writes it. `key` has
// kContentKeyBytes. The IV is fresh.
Jwe encrypt_jwe(const Json& header, ByteView key, ByteView plain);
// Absent if `key` is not the one it was sealed with, or a part was changed.
std::optional<SecretBytes> decrypt_jwe(const Jwe& jwe, ByteView key);

// The content key of ECDH-ES (RFC 7518 §4.6.2: Concat KDF, SHA-256, no apu and apv) from the x
// coordinate of the shared point, in the full width of its curve's field.
SecretBytes derive_content_key(ByteView shared_x);

}  // namespace lukskeep::nbde
