// What commands about bindings share: how servers are asked, and volumes opened by their bindings.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/pin_args.h"
#include "cli/session.h"
#include "cli/volume_access.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "nbde/binding.h"
#include "nbde/pin_policy.h"
#include "nbde/seal.h"

namespace lukskeep::cli {

// POLICY or --policy, and what else says whom to seal to.
struct BindPolicyArgs {
  PinPolicyArgs pins;
  PinContextArgs context;
  std::optional<std::string> policy_option;

  void declare(Options& options);
  // Throws Error{kUsage} if none is given, or two ways are mixed.
  nbde::PinPolicy read() const;
};

// Asks the servers of all bindings of `file` (of options.keyslot only, if that is set) at once; the
// first binding that opens wins. Throws Error{kNotFound} if there is none, else what the first one
// that failed threw, saying why each did.
OpenedVolume unlock_by_binding(const luks::HeaderFile& file, const nbde::PinContext& context,
                               const luks::UnlockOptions& options);

// By --key if it was given, else by the volume's own bindings.
OpenedVolume unlock_for_binding(const Session& session, const luks::HeaderFile& file,
                                const std::optional<std::string>& key, KeyArgs args,
                                const nbde::PinContext& context);

// The keyslots of bindings that are there to stay, or to be completed: `wanted` alone, if given.
// Throws Error{kNotFound} if there is none.
std::vector<int> binding_keyslots(const luks::HeaderFile& file, std::optional<int> wanted);

// The names of the pins of the binding of `keyslot` that are not known here, with commas between;
// empty if there are none, or nothing can be said.
std::string unknown_pins_of(const luks::HeaderFile& file, int keyslot);

// The policy that the binding of `keyslot` was sealed by: of one that opens the keyslot, since who
// can write to a header can put any policy there. Asks its servers. Throws Error{kUnsafe} if none
// does, kUnsupported if it has pins that are not known here.
nbde::PinPolicy policy_of_binding(const luks::HeaderFile& file, int keyslot,
                                  const nbde::PinContext& context, luks::UnlockOptions options);

struct RebindRules {
  // Sees what is sealed before anything is written, and may throw.
  std::function<void(const nbde::Jwe&)> check;
  // What to seal to; empty: policy_of_binding.
  std::function<nbde::PinPolicy()> policy;
};

// Gives the binding of `keyslot` a new passphrase and new keys by its own policy; a rebind that was
// cut is completed first. `key` opens the volume. Throws what `rules`, policy_of_binding and
// nbde::rebind throw.
void rebind_keyslot(luks::HeaderFile& file, const luks::Unlocked& key, int keyslot,
                    const nbde::PinContext& context, const luks::UnlockOptions& options,
                    const RebindRules& rules = {});

}  // namespace lukskeep::cli
