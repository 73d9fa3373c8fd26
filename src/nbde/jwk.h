// JSON Web Keys (RFC 7517, RFC 7518 §6) of the two kinds that Tang and Clevis use: EC keys on
// P-256, P-384 and P-521, and octet keys. Texts in, values out; no I/O.
//
// Beyond the RFCs this refuses what two readers would understand differently: repeated members,
// base64url that is not canonical, coordinates that are not as long as the curve says.
//
// A private part never is in memory other than SecretBytes, provided that the text it is read from
// is in one.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "base/json.h"
#include "nbde/ec_point.h"

namespace lukskeep::nbde {

// "alg", "use" and "key_ops" of any key.
struct KeyUse {
  std::string algorithm;  // "ES512", "ECMR" …; empty: not said
  std::string use;        // "sig", "enc"; empty: not said
  std::optional<std::vector<std::string>> operations;

  // Whether the key may be used for `operation`, as jose understands it: what key_ops lists, and
  // what goes with "use". A key that says neither may be used for all if not `must_say`.
  bool allows(std::string_view operation, bool must_say) const;

  bool operator==(const KeyUse&) const = default;
};

struct EcKey {
  EcPoint point;
  std::optional<EcScalar> secret;  // the private part, if it is known
  KeyUse use;
  Json others = Json::object();  // members that mean nothing here, such as "kid"; none is private

  EcKey clone() const;
};

struct OctKey {
  SecretBytes bytes;
  KeyUse use;
};

// `coordinates` of requests may be shorter than the curve says, or have zeroes in front, as jose
// takes them; such a key has another thumbprint there.
enum class Coordinates : std::uint8_t { kExact, kAnyLength };

// A key without its private part: a member "d" is an error. Throws Error: kDamaged (naming `what`)
// for anything that is no such key; kUnsupported for another "kty" or curve.
EcKey parse_public_key(const Json& jwk, std::string_view what,
                       Coordinates coordinates = Coordinates::kExact);
// A key with or without private part, of at most limits::kJwkBytesMax. A private part that does not
// belong to the point is refused. Throws likewise.
EcKey parse_ec_key(ByteView text, std::string_view what);
OctKey parse_oct_key(ByteView text, std::string_view what);

// The key without private part, and without the operations that need one.
Json public_jwk(const EcKey& key);
// With the private part, if there is one; sorted members, no white space.
SecretBytes private_jwk_text(const EcKey& key);
SecretBytes oct_jwk_text(const OctKey& key);

// RFC 7638, with the hash as Tang names it.
enum class ThumbprintHash : std::uint8_t { kS1, kS224, kS256, kS384, kS512 };
inline constexpr std::array kThumbprintHashes = {ThumbprintHash::kS256, ThumbprintHash::kS1,
                                                 ThumbprintHash::kS224, ThumbprintHash::kS384,
                                                 ThumbprintHash::kS512};
std::string thumbprint(const EcPoint& point, ThumbprintHash hash = ThumbprintHash::kS256);
// Of any of these hashes. The length of `text` says which.
bool has_thumbprint(const EcPoint& point, std::string_view text);

// New keys as tangd-keygen makes them.
EcKey generate_signing_key(Curve curve = Curve::kP521);   // ES512, to sign and verify
EcKey generate_exchange_key(Curve curve = Curve::kP521);  // ECMR, to derive keys

}  // namespace lukskeep::nbde
