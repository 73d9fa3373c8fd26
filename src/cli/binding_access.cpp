#include "cli/binding_access.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/parallel_for.h"
#include "nbde/binding_change.h"
#include "nbde/sealed_pin.h"

namespace lukskeep::cli {
namespace {

// All bindings at once: the first that opens tells the others to stop.
class Race {
 public:
  Race(const luks::HeaderFile& file, nbde::PinContext context, luks::UnlockOptions options)
      : file_(file), context_(std::move(context)), options_(options), stop_(context_.cancel) {
    context_.cancel = &stop_;
    options_.cancel = &stop_;
  }

  std::optional<OpenedVolume> run(const std::vector<nbde::Binding>& bindings) {
    parallel_for(bindings.size(), static_cast<unsigned>(bindings.size()),
                 [&](std::size_t i) { attempt(bindings[i]); });
    return std::move(won_);
  }

  [[noreturn]] void fail() const {
    std::string all;
    for (const auto& [keyslot, error] : failures_) {
      all += fmt::format("{}keyslot {}: {}", all.empty() ? "" : "; ", keyslot, error.message());
    }
    const Error& first = failures_.front().second;
    throw Error(first.code(),
                fmt::format("no binding of '{}' opens it: {}", file_.device()->name(), all),
                first.hint());
  }

 private:
  void attempt(const nbde::Binding& binding) {
    try {
      SecretBytes passphrase = nbde::unseal(nbde::sealed_of(binding), context_);
      luks::UnlockOptions options = options_;
      options.keyslot = binding.keyslot;
      auto unlocked = luks::unlock(file_, passphrase.span(), options);
      if (!unlocked) throw Error(Code::kWrongPassphrase, "what was sealed does not open it");
      const std::scoped_lock lock(mutex_);
      if (won_) return;
      won_.emplace(
          OpenedVolume{.unlocked = std::move(*unlocked), .passphrase = std::move(passphrase)});
      stop_.cancel();
    } catch (const Error& error) {
      const std::scoped_lock lock(mutex_);
      if (won_) return;
      if (error.code() == Code::kInterrupted) throw;
      failures_.emplace_back(binding.keyslot, error);
    }
  }

  const luks::HeaderFile& file_;
  nbde::PinContext context_;
  luks::UnlockOptions options_;
  CancelToken stop_;
  std::mutex mutex_;
  std::optional<OpenedVolume> won_;
  std::vector<std::pair<int, Error>> failures_;
};

// Which keyslot a binding is for in the end, when a rebind that was cut is done.
int final_keyslot(const nbde::Binding& binding) {
  return binding.replaces.value_or(binding.keyslot);
}

}  // namespace

void BindPolicyArgs::declare(Options& options) {
  options.optional_positional(
      {.name = "POLICY", .help = "whom to seal to: JSON as Clevis', or a file with JSON or TOML"},
      pins.policy);
  options.add({.name = "--policy", .value = "POLICY", .help = "the same as an option"},
              policy_option);
  pins.declare(options);
  context.declare(options);
  context.declare_trust(options);
}

nbde::PinPolicy BindPolicyArgs::read() const {
  PinPolicyArgs chosen = pins;
  if (policy_option) {
    if (!chosen.policy.empty()) throw Error(Code::kUsage, "the policy is given twice");
    chosen.policy = *policy_option;
  }
  if (!chosen.given()) {
    throw Error(Code::kUsage, "nothing says whom to seal to",
                "e.g. --tang http://server,thp=THUMBPRINT, or a policy of Clevis");
  }
  return chosen.read();
}

OpenedVolume unlock_by_binding(const luks::HeaderFile& file, const nbde::PinContext& context,
                               const luks::UnlockOptions& options) {
  std::vector<nbde::Binding> usable;
  std::string unusable;
  for (nbde::Binding& binding : nbde::list_bindings(file)) {
    if (options.keyslot && binding.keyslot != *options.keyslot) continue;
    if (binding.orphan) continue;
    if (binding.jwe) {
      usable.push_back(std::move(binding));
    } else {
      unusable += fmt::format("; keyslot {}: {}", binding.keyslot, binding.problem);
    }
  }
  if (usable.empty()) {
    throw Error(
        unusable.empty() ? Code::kNotFound : Code::kDamaged,
        fmt::format("'{}' has no binding that could open {}{}", file.device()->name(),
                    options.keyslot ? fmt::format("keyslot {}", *options.keyslot) : "it", unusable),
        "name another key, e.g. --key file:PATH; 'lukskeep bind' makes a binding");
  }
  Race race(file, context, options);
  auto opened = race.run(usable);
  if (!opened) race.fail();
  return std::move(*opened);
}

OpenedVolume unlock_for_binding(const Session& session, const luks::HeaderFile& file,
                                const std::optional<std::string>& key, KeyArgs args,
                                const nbde::PinContext& context) {
  if (!key) return unlock_by_binding(file, context, args.unlock_options(session));
  args.key = *key;
  return unlock_volume(session, file, args, args.unlock_options(session));
}

std::vector<int> binding_keyslots(const luks::HeaderFile& file, std::optional<int> wanted) {
  std::set<int> keyslots;
  for (const nbde::Binding& binding : nbde::list_bindings(file)) {
    if (!binding.orphan && (!wanted || final_keyslot(binding) == *wanted)) {
      keyslots.insert(final_keyslot(binding));
    }
  }
  if (!keyslots.empty()) return {keyslots.begin(), keyslots.end()};
  throw Error(Code::kNotFound,
              wanted
                  ? fmt::format("keyslot {} of '{}' has no binding", *wanted, file.device()->name())
                  : fmt::format("'{}' has no bindings", file.device()->name()),
              "'lukskeep bindings' lists those that there are");
}

std::string unknown_pins_of(const luks::HeaderFile& file, int keyslot) {
  std::set<std::string> names;
  for (const nbde::Binding& one : nbde::list_bindings(file)) {
    if (one.orphan || !one.jwe || final_keyslot(one) != keyslot) continue;
    try {
      names.merge(nbde::unknown_pins(nbde::describe(*one.jwe, "the binding")));
    } catch (const Error& error) {
      if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
    }
  }
  return printable(fmt::format("{}", fmt::join(names, ", ")), 256);
}

nbde::PinPolicy policy_of_binding(const luks::HeaderFile& file, int keyslot,
                                  const nbde::PinContext& context, luks::UnlockOptions options) {
  std::vector<nbde::Binding> bindings = nbde::list_bindings(file);
  // That of a rebind that was cut is the same.
  std::ranges::stable_partition(bindings, [](const nbde::Binding& one) { return !one.replaces; });
  const std::string what =
      fmt::format("the binding of keyslot {} of '{}'", keyslot, file.device()->name());
  if (const std::string unknown = unknown_pins_of(file, keyslot); !unknown.empty()) {
    throw Error(
        Code::kUnsupported,
        fmt::format("{} has pins that are not known here, and stays as it is: {}", what, unknown),
        "bind it anew with the program that made it, or give it another policy with "
        "'lukskeep edit'");
  }
  std::string why;
  for (const nbde::Binding& one : bindings) {
    if (one.orphan || final_keyslot(one) != keyslot) continue;
    try {
      const SecretBytes passphrase = nbde::unseal(nbde::sealed_of(one), context);
      options.keyslot = one.keyslot;
      if (luks::unlock(file, passphrase.span(), options)) {
        return nbde::policy_of(nbde::describe(nbde::sealed_of(one), what));
      }
      why += "; what it sealed does not open the keyslot";
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      why += "; " + error.message();
    }
  }
  throw Error(Code::kUnsafe,
              fmt::format("{} does not open, so its policy may be anybody's{}", what, why),
              "'lukskeep edit' gives it a policy");
}

void rebind_keyslot(luks::HeaderFile& file, const luks::Unlocked& key, int keyslot,
                    const nbde::PinContext& context, const luks::UnlockOptions& options,
                    const RebindRules& rules) {
  const auto once = [&] {
    const nbde::PinPolicy policy =
        rules.policy ? rules.policy() : policy_of_binding(file, keyslot, context, options);
    const auto seal = [&](ByteView passphrase) {
      nbde::Jwe jwe = nbde::seal(policy, passphrase, context);
      if (rules.check) rules.check(jwe);
      return jwe;
    };
    const auto open = [&](const nbde::Jwe& jwe) { return nbde::unseal(jwe, context); };
    return nbde::rebind(file, key, keyslot, seal, open,
                        {.cancel = context.cancel, .unlock = options});
  };
  // What was cut is older than what is asked for now.
  if (once()) once();
}

}  // namespace lukskeep::cli
