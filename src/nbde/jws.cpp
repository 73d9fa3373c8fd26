#include "nbde/jws.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/limits.h"
#include "nbde/ecdsa.h"

namespace lukskeep::nbde {
namespace {

[[noreturn]] void fail(std::string_view what, std::string_view problem) {
  throw Error(Code::kDamaged, fmt::format("{}: {}", what, problem));
}

const std::string& text_of(const Json& object, const char* name, std::string_view what) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string()) {
    fail(what, fmt::format("the signed message has no text \"{}\"", name));
  }
  return found->get_ref<const std::string&>();
}

Bytes bytes_of(const Json& object, const char* name, std::string_view what) {
  auto bytes = from_base64url(text_of(object, name, what));
  if (!bytes) fail(what, fmt::format("\"{}\" is not base64url", name));
  return std::move(*bytes);
}

JwsSignature parse_signature(const Json& object, std::string_view what) {
  if (!object.is_object()) fail(what, "a signature is a JSON object");
  JwsSignature signature{.protected_text = text_of(object, "protected", what),
                         .header = {},
                         .bytes = bytes_of(object, "signature", what)};
  signature.header = parse_json(as_string_view(bytes_of(object, "protected", what)),
                                fmt::format("{}: protected header", what));
  if (!signature.header.is_object()) fail(what, "a protected header is a JSON object");
  if (signature.header.contains("crit")) {
    throw Error(Code::kUnsupported, fmt::format("{}: it has critical extensions", what));
  }
  return signature;
}

std::string signing_input(std::string_view protected_text, std::string_view payload_text) {
  return fmt::format("{}.{}", protected_text, payload_text);
}

bool fits(const JwsSignature& signature, const EcKey& key) {
  const auto algorithm = signature.header.find("alg");
  return algorithm != signature.header.end() && algorithm->is_string() &&
         algorithm->get_ref<const std::string&>() == signature_algorithm(key.point.curve());
}

bool may_verify(const EcKey& key) {
  return key.use.allows("verify", false) &&
         (key.use.algorithm.empty() || key.use.algorithm == signature_algorithm(key.point.curve()));
}

Json sign(std::string_view payload_text, const EcKey& key, std::string_view content_type) {
  const std::string_view algorithm = signature_algorithm(key.point.curve());
  if (!key.secret || !key.use.allows("sign", false) ||
      (!key.use.algorithm.empty() && key.use.algorithm != algorithm)) {
    throw Error(Code::kInvalidArgument,
                fmt::format("the key {} cannot sign", thumbprint(key.point)));
  }
  Json header = {{"alg", algorithm}};
  if (!content_type.empty()) header["cty"] = content_type;
  const std::string text = to_base64url(as_byte_view(header.dump()));
  const std::string input = signing_input(text, payload_text);
  return {{"protected", text},
          {"signature", to_base64url(ecdsa_sign(*key.secret, key.point, as_byte_view(input)))}};
}

}  // namespace

std::string_view signature_algorithm(Curve curve) noexcept {
  constexpr std::array<std::string_view, 3> kNames = {"ES256", "ES384", "ES512"};
  return kNames[static_cast<std::size_t>(curve)];
}

Jws parse_jws(std::string_view text, std::string_view what) {
  if (text.size() > limits::kJwsBytesMax) {
    fail(what, fmt::format("it is larger than {} bytes", limits::kJwsBytesMax));
  }
  const Json message = parse_json(text, what);
  if (!message.is_object()) fail(what, "a signed message is a JSON object");
  Jws jws{.payload_text = text_of(message, "payload", what),
          .payload = bytes_of(message, "payload", what),
          .signatures = {}};
  const auto list = message.find("signatures");
  if (list == message.end()) {
    jws.signatures.push_back(parse_signature(message, what));
    return jws;
  }
  // RFC 7515 §7.2.1: one form or the other.
  if (!list->is_array() || message.contains("signature") || message.contains("protected")) {
    fail(what, "its signatures are in no known form");
  }
  if (list->empty() || list->size() > limits::kJwsSignaturesMax) {
    fail(what, fmt::format("it has {} signatures, 1 to {} are allowed", list->size(),
                           limits::kJwsSignaturesMax));
  }
  for (const Json& signature : *list) jws.signatures.push_back(parse_signature(signature, what));
  return jws;
}

bool verify_jws(const Jws& jws, const EcKey& key) {
  if (!may_verify(key)) return false;
  return std::ranges::any_of(jws.signatures, [&](const JwsSignature& signature) {
    return fits(signature, key) &&
           ecdsa_verify(key.point,
                        as_byte_view(signing_input(signature.protected_text, jws.payload_text)),
                        signature.bytes);
  });
}

bool verify_jws_by_all(const Jws& jws, std::span<const EcKey* const> keys) {
  // More signers than signatures: no need to compute anything.
  if (keys.empty() || keys.size() > jws.signatures.size()) return false;
  return std::ranges::all_of(keys, [&](const EcKey* key) { return verify_jws(jws, *key); });
}

std::string sign_jws(ByteView payload, std::span<const EcKey* const> keys,
                     std::string_view content_type) {
  if (keys.empty()) throw Error(Code::kInvalidArgument, "there is no key to sign with");
  const std::string payload_text = to_base64url(payload);
  Json message;
  if (keys.size() == 1) {
    message = sign(payload_text, *keys[0], content_type);
  } else {
    message["signatures"] = Json::array();
    for (const EcKey* key : keys) {
      message["signatures"].push_back(sign(payload_text, *key, content_type));
    }
  }
  message["payload"] = payload_text;
  return message.dump();
}

}  // namespace lukskeep::nbde
