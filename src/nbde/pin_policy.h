// What a secret is to be sealed to: a tree of pins. A leaf is a Tang server or a TPM; a node (sss,
// Shamir's secret sharing) opens when `threshold` of the pins below it do.
//
// Its JSON is Clevis' configuration of the pin. Parsers are pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"

namespace lukskeep::nbde {

struct PinPolicy;

struct TangPin {
  std::string url;
  // Of a signing key that is trusted (RFC 7638, base64url; SHA-1 to SHA-512). Empty: none.
  std::string thumbprint;
  // A saved advertisement, a JWS in JSON: trusted, and the server is not asked. At most one of the
  // two; seal() reads the file.
  std::string advertisement;
  std::string advertisement_path;
  // {"keys":[…]} of an advertisement that was trusted once: one that any of its signing keys has
  // signed is trusted too. No part of the configuration's JSON.
  Json trusted_keys;

  bool operator==(const TangPin&) const = default;
};

struct Tpm2Pin {
  std::string hash = "sha256";  // of the names of TPM objects
  std::string key = "ecc";      // of the primary key: ecc or rsa
  std::string pcr_bank;         // empty: sha256
  std::vector<unsigned> pcrs;   // sorted; empty: bound to the TPM only, whatever it measured
  // The values expected, concatenated, base64url. Empty: those of now.
  std::string pcr_digest;

  bool operator==(const Tpm2Pin&) const = default;
};

struct SssPin {
  unsigned threshold = 1;
  std::vector<PinPolicy> pins;

  bool operator==(const SssPin&) const;
};

// Protects nothing: for tests, as Clevis' pin of that name. `fail`: what is sealed never opens.
struct NullPin {
  bool fail = false;

  bool operator==(const NullPin&) const = default;
};

struct PinPolicy {
  std::variant<TangPin, Tpm2Pin, SssPin, NullPin> pin;

  bool operator==(const PinPolicy&) const = default;
};

// Here, since it compares what is complete only now.
// NOLINTNEXTLINE(readability-redundant-inline-specifier)
inline bool SssPin::operator==(const SssPin&) const = default;

// "tang", "tpm2", "sss" or "null".
std::string_view pin_name(const PinPolicy& policy) noexcept;

// Clevis' configuration `json` of the pin `pin`. Where `pin` is empty, a configuration with "pins"
// is an sss, one with "url" a tang. Throws Error{kInvalidArgument}, naming the member: wrong types,
// unknown members and pins, thresholds above the number of pins, more than
// limits::kPinsMax or limits::kPinDepthMax.
PinPolicy parse_pin_policy(std::string_view json, std::string_view pin = {});

// The configuration, which parse_pin_policy reads back with pin_name(policy). "pins" of an sss are
// grouped by the names of the pins, sorted, and in each group as they stand.
Json to_json(const PinPolicy& policy);

// A policy file (TOML, lukskeep-seal(1)): regions of servers, the closest of them, how many of
// each. `name` is for messages. Throws Error{kInvalidArgument} naming the line.
PinPolicy parse_pin_policy_toml(std::string_view text, std::string_view name);

// "URL[,thp=THUMBPRINT][,adv=FILE]" and "[pcrs=7+8][,bank=sha256][,hash=…][,key=…]", as options of
// commands have them. Throw Error{kUsage}.
PinPolicy parse_tang_option(std::string_view text);
PinPolicy parse_tpm2_option(std::string_view text);
// One pin alone, or an sss of several, which want a threshold. Throws Error{kUsage}.
PinPolicy join_pins(std::vector<PinPolicy> pins, std::optional<unsigned> threshold);

// Throws Error{kInvalidArgument} if a part is out of its bounds, as parsers do.
void check_pin_policy(const PinPolicy& policy);

// `text` is JSON if it starts with '{' or '[', else the path of a file with either of the two.
// Throws Error: as above, or kNotFound, kIo.
PinPolicy load_pin_policy(const std::string& text, std::string_view pin = {});

}  // namespace lukskeep::nbde
