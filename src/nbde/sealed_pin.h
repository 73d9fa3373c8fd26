// What a JWE of Clevis says about who opens it, read from its headers alone: no network, no TPM.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/error.h>

#include "base/json.h"
#include "nbde/jwe.h"
#include "nbde/pin_policy.h"

namespace lukskeep::nbde {

enum class ShareState {
  kConfirmed,  // sealed to what its server advertised, or a TPM took it
  kSaved,      // sealed to a saved advertisement: the server itself was not asked
  kPending,    // not sealed: top_up() adds it when the server is there
};
std::string_view share_state_name(ShareState state) noexcept;  // "confirmed", "saved", "pending"

// One node of the tree. Members that a pin does not have are empty.
struct SealedPin {
  std::string pin;  // "tang", "tpm2", "sss", "null", or one that this program does not know
  ShareState state = ShareState::kConfirmed;
  Jwe jwe;  // of this node; nothing in it if pending
  // Why this share of an sss can never open; the others may do without it.
  std::optional<Error> problem;

  // tang. Of one that is pending only url and thumbprint.
  std::string url;
  std::string kid;         // thumbprint of the exchange key, as the server is asked for it
  Json advertisement;      // {"keys":[…]}
  Json epk;                // the client's public point
  std::string thumbprint;  // of the signing key that the policy trusts

  // tpm2
  Tpm2Pin tpm2;  // without pcr_digest

  // sss
  unsigned threshold = 0;
  std::size_t prime_bytes = 0;
  std::vector<SealedPin> shares;  // pending ones last
};

// Throws Error{kDamaged, kUnsupported} if the root is not sound, or there are more than
// limits::kPinsMax pins. A share that is not sound has a `problem`; a pin that is not known is
// described by its name only.
SealedPin describe(const Jwe& jwe, std::string_view what);

// Whether this program can open and seal that pin.
bool is_known_pin(std::string_view pin) noexcept;

// The names of the pins in the tree that are not known: another program's, which opens them.
std::set<std::string> unknown_pins(const SealedPin& pin);

// For `--json`: pin, state, url, kid, thumbprints of the advertised keys ("signing_keys",
// "exchange_keys"), curve, threshold, shares and so on.
OrderedJson to_json(const SealedPin& pin);

// The policy that it was sealed by: every pin, nested ones too, in order. A tang pin trusts what
// the signing keys of the advertisement that it was sealed with have signed; its thumbprint is that
// of the first of them. Throws Error if a pin is not known (kUnsupported), or is not sound.
PinPolicy policy_of(const SealedPin& pin);

}  // namespace lukskeep::nbde
