// The two requests of a Tang client: what are your keys, and help to recover one. Everything
// bounded in time and size; redirects are not followed.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include <lukskeep/error.h>
#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "nbde/advertisement.h"
#include "nbde/pin_policy.h"
#include "nbde/seal.h"
#include "nbde/sealed_pin.h"

namespace lukskeep::nbde {

using Deadline = std::chrono::steady_clock::time_point;
Deadline deadline_of(const PinContext& context);

// The text of the advertisement that the pin comes with; empty if it comes with none. Throws Error:
// kNotFound, kPermissionDenied, kIo, kInvalidArgument (too large).
std::string load_saved_advertisement(const TangPin& pin);

struct FetchedAdvertisement {
  std::optional<Advertisement> advertisement;
  std::optional<Error> down;  // instead: the server gave none, kTimeout or kRemote
};

// The advertisement of the pin's server, or the one it comes with (its path is read); signed by all
// its signing keys, and trusted for one of the pin's reasons, or because `context` says so. Throws
// Error: kUnsafe (it is not to be trusted), kRemote (it is none), kInterrupted.
FetchedAdvertisement fetch_advertisement(const TangPin& pin, const PinContext& context,
                                         Deadline deadline);

// The points of a tang pin that was sealed: the server's key, and c, the client's (nbde/ecmr.h).
struct ExchangePoints {
  EcPoint server;
  EcPoint client;
};
ExchangePoints exchange_points(const SealedPin& pin);

struct ExchangeQuestion {
  std::string url;
  std::string kid;  // thumbprint of the server's exchange key
  // The point to send; asked for while the connection comes about.
  std::function<const EcPoint&()> blinded;
};
// What the server makes of the point, which is on the same curve. Throws Error: kTimeout, kRemote,
// kInterrupted, what `blinded` throws.
EcPoint ask_exchange(const ExchangeQuestion& question, const PinContext& context, Deadline deadline,
                     const CancelToken& cancel);

// The content key of a tang pin from an answer to the point that `secret` has blinded. Throws
// Error{kRemote} if it cannot be one.
SecretBytes content_key_of(const SealedPin& pin, const EcPoint& answer, const EcScalar& secret);

// The content key of a tang pin, with the help of its server. That it is the right one shows when
// it opens the JWE. Throws Error: kTimeout, kRemote, kInterrupted.
SecretBytes recover_content_key(const SealedPin& pin, const PinContext& context, Deadline deadline,
                                const CancelToken& cancel);

}  // namespace lukskeep::nbde
