// What a Tang server says of its keys: a signed JWK set (Tang's README, "Advertisement").
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nbde/jwk.h"
#include "nbde/jws.h"

namespace lukskeep::nbde {

struct Advertisement {
  Json key_set;             // {"keys":[…]} as the server wrote it
  std::vector<EcKey> keys;  // the same, in that order; public
  Jws jws;

  // Those that verify, and those that keys can be derived with, as Clevis chooses them. Point into
  // `keys`.
  std::vector<const EcKey*> signing_keys() const;
  std::vector<const EcKey*> exchange_keys() const;
};

// Accepts what all of its own signing keys have signed, and nothing else: at least one of them, and
// one exchange key, at most limits::kJwkSetKeysMax in all. That says nothing of whose keys they
// are: the caller compares a thumbprint, or asks is_signed_by() with a key that is trusted.
// Throws Error: kDamaged (naming `what`), kUnsupported.
Advertisement parse_advertisement(std::string_view text, std::string_view what);

// A key set that was accepted before, e.g. as a binding holds it: {"keys":[…]}. Throws likewise.
std::vector<EcKey> parse_key_set(const Json& key_set, std::string_view what);

// Whether `key`, advertised or not, signed it too.
bool is_signed_by(const Advertisement& advertisement, const EcKey& key);

// The key of that thumbprint (by any hash of kThumbprintHashes) among `keys`; null if there is
// none.
const EcKey* find_key(std::span<const EcKey> keys, std::string_view thumbprint);

// `advertised` are the keys to tell of; those among them that can sign do, and `more_signers` too.
// Throws Error{kInvalidArgument} if none can.
std::string make_advertisement(std::span<const EcKey* const> advertised,
                               std::span<const EcKey* const> more_signers = {});

}  // namespace lukskeep::nbde
