// The options of commands that seal to pins, or open what is sealed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/session.h"
#include "nbde/pin_policy.h"
#include "nbde/seal.h"

namespace lukskeep::cli {

// POLICY or --policy (the command declares it), --pin, --tang, --tpm2, --threshold.
struct PinPolicyArgs {
  std::string policy;  // JSON, or the path of a file; empty: the options say it
  std::string pin;
  std::vector<std::string> tang;
  std::vector<std::string> tpm2;
  std::optional<std::uint32_t> threshold;

  void declare(Options& options);
  bool given() const { return !policy.empty() || !tang.empty() || !tpm2.empty(); }
  // Throws Error{kUsage, kInvalidArgument}.
  nbde::PinPolicy read() const;
};

// --timeout, --try-timeout, --tries, --tpm, --tang-ca; for sealing also --trust-on-first-use,
// --allow-pending.
struct PinContextArgs {
  std::optional<std::uint32_t> timeout_s;
  std::optional<std::uint32_t> try_timeout_s;
  std::optional<std::uint32_t> tries;
  std::string tpm;
  std::string tang_ca;
  bool trust_on_first_use = false;
  bool allow_pending = false;

  void declare(Options& options);
  void declare_trust(Options& options);
  nbde::PinContext context(const Session& session) const;
};

// One line for each leaf: what it is and what became of it.
std::string share_text(const nbde::ShareReport& share);
OrderedJson share_json(const nbde::ShareReport& share);
// The tree, two blanks for each level.
std::string pin_tree_text(const nbde::SealedPin& pin, std::size_t depth = 0);

}  // namespace lukskeep::cli
