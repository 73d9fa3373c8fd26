// JSON Web Signatures (RFC 7515) with EC keys, in the general and the flattened JSON form.
//
// ES256, ES384 and ES512. "crit" and detached payloads are refused: nothing here understands them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"
#include "nbde/jwk.h"

namespace lukskeep::nbde {

// One signature and the header it covers.
struct JwsSignature {
  std::string protected_text;  // base64url: what was signed
  Json header;                 // the same decoded
  Bytes bytes;
};

struct Jws {
  std::string payload_text;  // base64url: what was signed
  Bytes payload;
  std::vector<JwsSignature> signatures;
};

// At most limits::kJwsBytesMax and limits::kJwsSignaturesMax. Throws Error: kDamaged (naming
// `what`), kUnsupported.
Jws parse_jws(std::string_view text, std::string_view what);

// Whether one of the signatures is by `key`, with the algorithm of its curve. False if the key may
// not be used to verify.
bool verify_jws(const Jws& jws, const EcKey& key);
// By every one of `keys`, and there is one.
bool verify_jws_by_all(const Jws& jws, std::span<const EcKey* const> keys);

// Signed by all of `keys`, which are private: one gives the flattened form, more the general one.
// `content_type` goes into the protected headers as "cty" unless empty. Sorted members, no white
// space. Throws Error{kInvalidArgument} if there is no key, or one that cannot sign.
std::string sign_jws(ByteView payload, std::span<const EcKey* const> keys,
                     std::string_view content_type);

// The algorithm that goes with a curve: "ES512" with P-521.
std::string_view signature_algorithm(Curve curve) noexcept;

}  // namespace lukskeep::nbde
