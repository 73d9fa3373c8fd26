#include "nbde/jwk.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/limits.h"
#include "crypto/hash.h"
#include "nbde/jwk_text.h"

namespace lukskeep::nbde {
namespace {

// Members that are read here.
constexpr std::array kKnown = {"alg", "crv", "d", "key_ops", "kty", "use", "x", "y"};
// What is private in keys of other kinds: it has no place in an EC key, and is not passed on.
constexpr std::array kForeignSecrets = {"k", "p", "q", "dp", "dq", "qi", "oth"};
// Operations that need the private part and have a public counterpart.
constexpr std::array kPrivateOperations = {"sign", "decrypt", "unwrapKey"};

struct HashRow {
  ThumbprintHash hash;
  std::string_view name;
  std::size_t chars;
};
constexpr std::array kHashes = {
    HashRow{ThumbprintHash::kS1, "sha1", 27}, HashRow{ThumbprintHash::kS224, "sha224", 38},
    HashRow{ThumbprintHash::kS256, "sha256", 43}, HashRow{ThumbprintHash::kS384, "sha384", 64},
    HashRow{ThumbprintHash::kS512, "sha512", 86}};

template <typename Names>
bool is_one_of(const Names& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

[[noreturn]] void fail(std::string_view what, std::string_view problem) {
  throw Error(Code::kDamaged, fmt::format("{}: {}", what, problem));
}

const Json* find(const Json& jwk, const char* name) {
  const auto found = jwk.find(name);
  return found == jwk.end() ? nullptr : &*found;
}

std::string text_of(const Json& jwk, const char* name, std::string_view what) {
  const Json* found = find(jwk, name);
  if (found == nullptr || !found->is_string()) {
    fail(what, fmt::format("the key has no text \"{}\"", name));
  }
  return found->get<std::string>();
}

std::string text_if_any(const Json& jwk, const char* name, std::string_view what) {
  return find(jwk, name) == nullptr ? std::string() : text_of(jwk, name, what);
}

KeyUse parse_use(const Json& jwk, std::string_view what) {
  KeyUse use{.algorithm = text_if_any(jwk, "alg", what), .use = text_if_any(jwk, "use", what)};
  const Json* operations = find(jwk, "key_ops");
  if (operations == nullptr) return use;
  if (!operations->is_array() || operations->size() > limits::kJwkOperationsMax) {
    fail(what, "\"key_ops\" is not a list of operations");
  }
  use.operations.emplace();
  for (const Json& operation : *operations) {
    if (!operation.is_string()) fail(what, "\"key_ops\" is not a list of operations");
    use.operations->push_back(operation.get<std::string>());
  }
  return use;
}

void require_kind(const Json& jwk, std::string_view kind, std::string_view what) {
  if (!jwk.is_object()) fail(what, "a key is a JSON object");
  const std::string found = text_of(jwk, "kty", what);
  if (found == kind) return;
  throw Error(Code::kUnsupported, fmt::format("{}: a key of type '{}', where '{}' is wanted", what,
                                              printable(found), kind));
}

Bytes coordinate(const Json& jwk, const char* name, Curve curve, Coordinates coordinates,
                 std::string_view what) {
  auto bytes = from_base64url(text_of(jwk, name, what));
  const std::size_t size = coordinate_bytes(curve);
  if (!bytes) fail(what, fmt::format("\"{}\" is not base64url", name));
  if (coordinates == Coordinates::kAnyLength) {
    const auto extra = bytes->size() > size ? bytes->size() - size : 0;
    if (!bytes->empty() && all_zero(ByteView(*bytes).first(extra))) {
      bytes->erase(bytes->begin(), bytes->begin() + static_cast<std::ptrdiff_t>(extra));
      bytes->insert(bytes->begin(), size - bytes->size(), std::byte{0});
    }
  }
  if (bytes->size() != size) {
    fail(what, fmt::format("\"{}\" is not {} bytes long", name, size));
  }
  return std::move(*bytes);
}

EcKey parse_without_secret(const Json& jwk, Coordinates coordinates, std::string_view what) {
  require_kind(jwk, "EC", what);
  const std::string name = text_of(jwk, "crv", what);
  const auto curve = find_curve(name);
  if (!curve) {
    throw Error(Code::kUnsupported,
                fmt::format("{}: the curve '{}' is not known", what, printable(name)));
  }
  const Bytes x = coordinate(jwk, "x", *curve, coordinates, what);
  const Bytes y = coordinate(jwk, "y", *curve, coordinates, what);
  KeyUse use = parse_use(jwk, what);
  try {
    EcKey key{
        .point = EcPoint::from_coordinates(*curve, x, y), .secret = {}, .use = std::move(use)};
    for (const auto& [member, value] : jwk.items()) {
      if (!is_one_of(kKnown, member) && !is_one_of(kForeignSecrets, member)) {
        key.others[member] = value;
      }
    }
    return key;
  } catch (const Error& error) {
    if (error.code() != Code::kInvalidArgument) throw;
    fail(what, error.message());
  }
}

// The text without its secret, which must be a plain string if it is there.
std::pair<Json, ByteView> parse_split(ByteView text, const char* name, std::string_view what) {
  if (text.size() > limits::kJwkBytesMax) {
    fail(what, fmt::format("a key is no larger than {} bytes", limits::kJwkBytesMax));
  }
  const SplitJson split = split_secret(text, name);
  Json jwk = parse_json(split.rest, what);
  if (!jwk.is_object()) fail(what, "a key is a JSON object");
  const Json* left = find(jwk, name);
  // Spelt with escapes, or no string.
  if (left != nullptr && (!left->is_string() || !left->get_ref<const std::string&>().empty())) {
    fail(what, fmt::format("\"{}\" is not base64url", name));
  }
  if (left != nullptr && split.secret.empty()) fail(what, fmt::format("\"{}\" is empty", name));
  return {std::move(jwk), split.secret};
}

SecretBytes decode_secret(ByteView text, const char* name, std::string_view what) {
  auto secret = secret_from_base64url(as_string_view(text));
  if (!secret) fail(what, fmt::format("\"{}\" is not base64url", name));
  return std::move(*secret);
}

void add_use(const KeyUse& use, Json& jwk) {
  if (!use.algorithm.empty()) jwk["alg"] = use.algorithm;
  if (!use.use.empty()) jwk["use"] = use.use;
  if (use.operations) jwk["key_ops"] = *use.operations;
}

Json jwk_of(const EcKey& key) {
  Json jwk = key.others;
  jwk["kty"] = "EC";
  jwk["crv"] = curve_name(key.point.curve());
  jwk["x"] = to_base64url(key.point.x());
  jwk["y"] = to_base64url(key.point.y());
  add_use(key.use, jwk);
  return jwk;
}

EcKey generate(Curve curve, KeyUse use) {
  EcScalar secret = EcScalar::random(curve);
  const EcPoint point = EcPoint::of(secret);
  return {.point = point, .secret = std::move(secret), .use = std::move(use)};
}

}  // namespace

bool KeyUse::allows(std::string_view operation, bool must_say) const {
  if (use.empty() && !operations) return !must_say;
  if (use == "sig" && (operation == "sign" || operation == "verify")) return true;
  if (use == "enc" && (operation == "encrypt" || operation == "decrypt" || operation == "wrapKey" ||
                       operation == "unwrapKey")) {
    return true;
  }
  return operations && is_one_of(*operations, operation);
}

EcKey EcKey::clone() const {
  EcKey copy{.point = point, .secret = {}, .use = use, .others = others};
  if (secret) copy.secret = secret->clone();
  return copy;
}

EcKey parse_public_key(const Json& jwk, std::string_view what, Coordinates coordinates) {
  EcKey key = parse_without_secret(jwk, coordinates, what);
  if (find(jwk, "d") != nullptr) fail(what, "a private key, where a public one is wanted");
  return key;
}

EcKey parse_ec_key(ByteView text, std::string_view what) {
  const auto [jwk, secret] = parse_split(text, "d", what);
  EcKey key = parse_without_secret(jwk, Coordinates::kExact, what);
  if (secret.empty()) return key;
  try {
    key.secret = EcScalar::from_bytes(key.point.curve(), decode_secret(secret, "d", what));
  } catch (const Error& error) {
    if (error.code() != Code::kInvalidArgument) throw;
    fail(what, error.message());
  }
  if (EcPoint::of(*key.secret) != key.point) fail(what, "private and public part differ");
  return key;
}

OctKey parse_oct_key(ByteView text, std::string_view what) {
  const auto [jwk, secret] = parse_split(text, "k", what);
  require_kind(jwk, "oct", what);
  if (secret.empty()) fail(what, "the key has no text \"k\"");
  return {.bytes = decode_secret(secret, "k", what), .use = parse_use(jwk, what)};
}

Json public_jwk(const EcKey& key) {
  Json jwk = jwk_of(key);
  if (!key.use.operations) return jwk;
  std::vector<std::string> operations;
  for (const std::string& operation : *key.use.operations) {
    if (!is_one_of(kPrivateOperations, operation)) operations.push_back(operation);
  }
  jwk["key_ops"] = operations;
  return jwk;
}

SecretBytes private_jwk_text(const EcKey& key) {
  Json jwk = jwk_of(key);
  if (!key.secret) return SecretBytes(as_byte_view(jwk.dump()));
  jwk["d"] = "";
  return join_secret(jwk.dump(), "d", secret_to_base64url(key.secret->bytes().span()).span());
}

SecretBytes oct_jwk_text(const OctKey& key) {
  Json jwk = {{"kty", "oct"}, {"k", ""}};
  add_use(key.use, jwk);
  return join_secret(jwk.dump(), "k", secret_to_base64url(key.bytes.span()).span());
}

std::string thumbprint(const EcPoint& point, ThumbprintHash hash) {
  const std::string canonical =
      fmt::format(R"({{"crv":"{}","kty":"EC","x":"{}","y":"{}"}})", curve_name(point.curve()),
                  to_base64url(point.x()), to_base64url(point.y()));
  return to_base64url(
      crypto::hash(kHashes[static_cast<std::size_t>(hash)].name, as_byte_view(canonical)));
}

bool has_thumbprint(const EcPoint& point, std::string_view text) {
  const auto* const found =
      std::ranges::find_if(kHashes, [&](const HashRow& row) { return row.chars == text.size(); });
  return found != kHashes.end() && thumbprint(point, found->hash) == text;
}

EcKey generate_signing_key(Curve curve) {
  constexpr std::array kAlgorithms = {"ES256", "ES384", "ES512"};
  return generate(curve, {.algorithm = kAlgorithms[static_cast<std::size_t>(curve)],
                          .use = {},
                          .operations = {{"sign", "verify"}}});
}

EcKey generate_exchange_key(Curve curve) {
  return generate(curve, {.algorithm = "ECMR", .use = {}, .operations = {{"deriveKey"}}});
}

}  // namespace lukskeep::nbde
