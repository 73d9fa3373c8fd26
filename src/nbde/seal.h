// Seals bytes to a policy of pins, and opens what is sealed: as `clevis encrypt` and `clevis
// decrypt`, whose format this is. Shares are asked in parallel; the first that suffice win, and no
// server, whatever it does or does not do, holds an unlock up for longer than the limits.
//
// All functions may be called from any thread; they start threads of their own, which are gone when
// they return.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/error.h>
#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "nbde/jwe.h"
#include "nbde/pin_policy.h"
#include "nbde/sealed_pin.h"
#include "net/http_client.h"

namespace lukskeep::nbde {

// Asked about a server whose keys nothing vouches for: true takes them. Called from any thread,
// once at a time, for the servers of one policy in its order.
using TrustQuestion =
    std::function<bool(std::string_view url, const std::vector<std::string>& signing_thumbprints)>;

// Sends one request within the limits. Called from many threads at once.
using SendRequest = std::function<net::HttpResponse(
    const net::HttpRequest& request, const net::HttpLimits& limits, const CancelToken* cancel)>;

struct PinContext {
  std::uint32_t try_ms = 5'000;     // one request, from name look-up to the last byte
  std::uint32_t total_ms = 30'000;  // everything together
  unsigned tries = 4;               // of one server, while it is down, busy or slow
  const CancelToken* cancel = nullptr;
  SendRequest send;     // empty: over the network
  std::string ca_file;  // PEM: who vouches for https: servers; empty: whom the system trusts
  std::string tcti;     // how the TPM is reached, as TPM2TOOLS_TCTI; empty: /dev/tpmrm0

  // seal and top_up only.
  bool trust_on_first_use = false;  // take any advertisement that is signed by its own keys
  TrustQuestion ask_trust;          // instead of refusing one; empty: refuse
  bool allow_pending = false;       // leave shares out whose server is down, if the rest suffice

  // unseal only: gives the content key of a tang pin, whose server then is not asked. Called from
  // many threads at once. Throws Error as the asking does.
  std::function<SecretBytes(const SealedPin&)> tang_key = nullptr;

  // unseal only: wait for every share, also when enough have opened (the report has them all).
  bool all_shares = false;
};

// What became of one leaf of the tree.
struct ShareReport {
  enum class Outcome { kOpened, kFailed, kNotNeeded };
  std::vector<std::size_t> path;  // indices into `shares` from the root down
  std::string pin;
  std::string url;  // of a tang
  Outcome outcome = Outcome::kNotNeeded;
  std::optional<Error> error;  // of one that failed
  std::uint32_t elapsed_ms = 0;
};

// `plain` has at most limits::kSealedBytesMax. Each tang pin needs a thumbprint or a saved
// advertisement, or the context's trust_on_first_use; an advertisement counts only if all its
// signing keys signed it. Throws Error: kUnsafe (nothing says that the server is to be trusted, or
// it is not the one that is), kRemote, kTimeout (a server is down and may not be left pending),
// kUnsupported (no TPM), kInvalidArgument.
Jwe seal(const PinPolicy& policy, ByteView plain, const PinContext& context);

// Throws Error: kDamaged, kUnsupported (what it is), kTimeout, kRemote (servers), kWrongPassphrase
// (the TPM or a server does not open it any more). `report`, if given, gets one row for each leaf,
// in the order of the tree, whether it opens or not.
SecretBytes unseal(const Jwe& jwe, const PinContext& context,
                   std::vector<ShareReport>* report = nullptr);

struct ToppedUp {
  Jwe jwe;                    // seals the same bytes
  std::size_t added = 0;      // shares that were pending and are sealed now
  std::size_t saved = 0;      // saved shares that are confirmed now
  std::size_t pending = 0;    // still
  std::vector<Error> errors;  // of those
};

// Opens `jwe`, seals the shares that were pending to their servers, and asks the servers of saved
// shares whether they open them. Throws as unseal() does, if not enough shares open.
ToppedUp top_up(const Jwe& jwe, const PinContext& context);

}  // namespace lukskeep::nbde
