#include "nbde/advertisement.h"

#include <algorithm>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::nbde {
namespace {

constexpr std::string_view kContentType = "jwk-set+json";

[[noreturn]] void fail(std::string_view what, std::string_view problem) {
  throw Error(Code::kDamaged, fmt::format("{}: {}", what, problem));
}

std::vector<const EcKey*> usable_for(const std::vector<EcKey>& keys, std::string_view operation) {
  std::vector<const EcKey*> found;
  for (const EcKey& key : keys) {
    if (key.use.allows(operation, true)) found.push_back(&key);
  }
  return found;
}

}  // namespace

std::vector<const EcKey*> Advertisement::signing_keys() const { return usable_for(keys, "verify"); }

std::vector<const EcKey*> Advertisement::exchange_keys() const {
  return usable_for(keys, "deriveKey");
}

std::vector<EcKey> parse_key_set(const Json& key_set, std::string_view what) {
  if (!key_set.is_object()) fail(what, "a key set is a JSON object");
  const auto list = key_set.find("keys");
  if (list == key_set.end() || !list->is_array()) fail(what, "the key set has no \"keys\"");
  if (list->size() > limits::kJwkSetKeysMax) {
    fail(what, fmt::format("the key set has {} keys, {} are the most", list->size(),
                           limits::kJwkSetKeysMax));
  }
  std::vector<EcKey> keys;
  keys.reserve(list->size());
  for (const Json& jwk : *list) {
    keys.push_back(parse_public_key(jwk, fmt::format("{}: key {}", what, keys.size() + 1)));
  }
  return keys;
}

Advertisement parse_advertisement(std::string_view text, std::string_view what) {
  Advertisement advertisement;
  advertisement.jws = parse_jws(text, what);
  for (const JwsSignature& signature : advertisement.jws.signatures) {
    const auto type = signature.header.find("cty");
    if (type == signature.header.end() || *type != kContentType) {
      fail(what, "what is signed does not say that it is a key set");
    }
  }
  advertisement.key_set =
      parse_json(as_string_view(advertisement.jws.payload), fmt::format("{}: key set", what));
  advertisement.keys = parse_key_set(advertisement.key_set, what);
  const auto signers = advertisement.signing_keys();
  if (signers.empty()) fail(what, "it has no key that signs");
  if (advertisement.exchange_keys().empty()) fail(what, "it has no exchange key");
  if (!verify_jws_by_all(advertisement.jws, signers)) {
    fail(what, "it is not signed by all of its signing keys");
  }
  return advertisement;
}

bool is_signed_by(const Advertisement& advertisement, const EcKey& key) {
  return verify_jws(advertisement.jws, key);
}

const EcKey* find_key(std::span<const EcKey> keys, std::string_view thumbprint) {
  const auto found = std::ranges::find_if(
      keys, [&](const EcKey& key) { return has_thumbprint(key.point, thumbprint); });
  return found == keys.end() ? nullptr : &*found;
}

std::string make_advertisement(std::span<const EcKey* const> advertised,
                               std::span<const EcKey* const> more_signers) {
  Json keys = Json::array();
  std::vector<const EcKey*> signers;
  for (const EcKey* key : advertised) {
    keys.push_back(public_jwk(*key));
    if (key->secret && key->use.allows("sign", true)) signers.push_back(key);
  }
  signers.insert(signers.end(), more_signers.begin(), more_signers.end());
  const std::string payload = Json{{"keys", keys}}.dump();
  return sign_jws(as_byte_view(payload), signers, kContentType);
}

}  // namespace lukskeep::nbde
