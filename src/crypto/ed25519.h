// Ed25519 signatures (RFC 8032), with keys in the files that `openssl genpkey -algorithm ed25519`
// and `openssl pkey -pubout` write.
//
// All functions may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::crypto {

struct Ed25519PublicKey {
  std::array<std::byte, 32> bytes{};

  bool operator==(const Ed25519PublicKey&) const = default;
};

struct Ed25519PrivateKey {
  SecretBytes seed;  // 32 bytes
};

using Ed25519Signature = std::array<std::byte, 64>;

Ed25519PublicKey public_key_of(const Ed25519PrivateKey& key);
Ed25519Signature ed25519_sign(const Ed25519PrivateKey& key, ByteView message);
// False also for a key that is no point of the curve.
bool ed25519_verify(const Ed25519PublicKey& key, ByteView message, ByteView signature);

// Base64 of the 32 bytes.
std::string to_string(const Ed25519PublicKey& key);
// That, or a file in PEM ("PUBLIC KEY"). Throws Error{kInvalidArgument} naming `what`.
Ed25519PublicKey parse_ed25519_public_key(std::string_view text, std::string_view what);
// A file in PEM ("PRIVATE KEY", not encrypted). Throws likewise; never quotes it.
Ed25519PrivateKey parse_ed25519_private_key(ByteView pem, std::string_view what);

}  // namespace lukskeep::crypto
