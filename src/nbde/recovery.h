// Opening a volume where no server can be reached, with the help of somebody who reaches them.
//
//   on site    prepare_recovery: for each Tang share x = c + gE. x goes into the request, E stays.
//   elsewhere  answer_recovery: the servers make y = xS of it.
//   on site    recovered_keys: K = y - sE, and all goes on as if the servers had been asked here.
//
// Who reads request and answer learns nothing: x is a random point, and K wants E as well. The
// answer is of use on site only, and once: as long as nobody has the state file *and* the header.
// All functions may be called from any thread.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>

#include "nbde/binding.h"
#include "nbde/recovery_kit.h"
#include "nbde/seal.h"

namespace lukskeep::nbde {

// What blinded one point of a request.
struct RecoveryShare {
  std::string epk;  // thumbprint of the client's point that it was added to
  EcScalar secret;  // E
};

// What stays on site between request and answer.
struct RecoveryState {
  std::string volume;  // as it was named; empty: its name is no UTF-8
  std::string header;  // likewise; empty: in the volume
  std::string uuid;
  RecoveryCode request{};
  std::vector<RecoveryShare> shares;  // as the request's points
};

// JSON. The parser throws Error{kInvalidArgument} naming `what`.
SecretBytes to_text(const RecoveryState& state);
RecoveryState parse_recovery_state(ByteView text, std::string_view what);

struct PreparedRecovery {
  RecoveryRequest request;
  RecoveryState state;  // without volume and header
};
// Of all Tang shares of `bindings`, nested ones too; bindings and shares that cannot be read are
// left out. Throws Error: kNotFound (there are none), kUnsupported (more than
// limits::kRecoveryPointsMax).
PreparedRecovery prepare_recovery(const std::string& uuid, std::span<const Binding> bindings);

struct RecoveryOutcome {
  RecoveryAnswer answer;
  std::vector<std::optional<Error>> problems;  // as the request's points: why one has no answer
};
// Asks all servers at once. Whether they are the right ones shows on site: a wrong answer opens
// nothing, and a false server sees a random point. Throws Error{kInterrupted}.
RecoveryOutcome answer_recovery(const RecoveryRequest& request, const PinContext& context);

// For PinContext::tang_key. Throws Error{kConflict} if the answer is to another request. What it
// returns throws kNotFound for a share that was not asked for, kRemote for one without an answer.
std::function<SecretBytes(const SealedPin&)> recovered_keys(RecoveryState state,
                                                            const RecoveryAnswer& answer);

}  // namespace lukskeep::nbde
