#include "nbde/binding_report.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/parallel_for.h"
#include "nbde/sealed_pin.h"
#include "nbde/tang_client.h"

namespace lukskeep::nbde {
namespace {

void collect_tang(const SealedPin& pin, std::vector<const SealedPin*>& found) {
  if (pin.pin == "tang" && pin.state != ShareState::kPending && !pin.problem) found.push_back(&pin);
  for (const SealedPin& share : pin.shares) collect_tang(share, found);
}

// The findings about one binding.
class Reporter {
 public:
  Reporter(const Binding& binding, const PinContext& context, std::vector<BindingFinding>& findings)
      : binding_(binding), context_(context), findings_(findings) {}

  void run(bool ask) {
    if (binding_.orphan) {
      return add("orphan", "", "it opens nothing: its keyslot is gone",
                 "lukskeep unbind --orphans takes it away");
    }
    if (binding_.replaces || binding_.leftover) {
      add("unfinished", "", "a rebind was cut", "lukskeep rebind completes it");
    }
    if (!binding_.jwe) return add("damaged", "", binding_.problem, "lukskeep edit makes it anew");
    SealedPin pin;
    try {
      pin = describe(*binding_.jwe, "it");
    } catch (const Error& error) {
      return add("damaged", "", error.message(), "lukskeep edit makes it anew");
    }
    look_at(pin);
    if (!ask || !is_known_pin(pin.pin)) return;
    ask_shares(pin);
    ask_servers(pin);
  }

 private:
  void add(std::string code, std::string url, std::string problem, std::string advice) {
    findings_.push_back({.code = std::move(code),
                         .keyslot = binding_.keyslot,
                         .url = std::move(url),
                         .problem = std::move(problem),
                         .advice = std::move(advice)});
  }

  static std::string name_of(const SealedPin& pin) {
    return pin.url.empty() ? printable(pin.pin) : printable(pin.url, 128);
  }

  // What the header says.
  void look_at(const SealedPin& pin) {
    if (pin.problem) add("damaged", pin.url, pin.problem->message(), "lukskeep rebind, or edit");
    if (pin.pin == "null") {
      add("weak", "", "the pin 'null' protects nothing: whoever has the header opens the volume",
          "lukskeep edit gives it a policy");
    }
    if (!pin.problem && !is_known_pin(pin.pin)) {
      add("unknown-pin", "", fmt::format("the pin '{}' is not known here", printable(pin.pin)),
          "the program that made it knows whether it opens, and is needed to bind it anew");
    }
    if (pin.state == ShareState::kPending) {
      add("pending", pin.url, fmt::format("'{}' has no share yet", name_of(pin)),
          "lukskeep top-up adds it when the server is there");
    }
    if (pin.state == ShareState::kSaved) {
      add("saved", pin.url,
          fmt::format("'{}' was never asked whether it opens its share", name_of(pin)),
          "lukskeep top-up asks it");
    }
    if (pin.pin == "sss" && pin.shares.size() > 1) {
      const auto there =
          static_cast<std::size_t>(std::ranges::count_if(pin.shares, [](const SealedPin& share) {
            return share.state != ShareState::kPending && !share.problem;
          }));
      if (there < pin.threshold) {
        add("weak", "", fmt::format("{} shares are wanted, and {} are there", pin.threshold, there),
            "lukskeep top-up, or edit");
      }
    }
    for (const SealedPin& share : pin.shares) look_at(share);
  }

  // Whether all shares open, also those that are not needed.
  void ask_shares(const SealedPin& pin) {
    PinContext context = context_;
    context.all_shares = true;
    std::vector<ShareReport> shares;
    try {
      static_cast<void>(unseal(sealed_of(binding_), context, &shares));
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      add("fails", "", fmt::format("it does not open now: {}", error.message()), "");
    }
    std::size_t failed = 0;
    for (const ShareReport& share : shares) {
      if (share.outcome != ShareReport::Outcome::kFailed || !share.error) continue;
      ++failed;
      if (!is_known_pin(share.pin) && share.error->code() == Code::kUnsupported) continue;
      const bool down = share.error->code() == Code::kTimeout ||
                        (share.error->code() == Code::kRemote && share.pin == "tang");
      add(down ? "down" : "fails", share.url, share.error->message(), share.error->hint());
    }
    if (failed > 0 && pin.pin == "sss" && shares.size() - failed == pin.threshold) {
      add("no-spare", "", "it opens, but not any more if another share fails", "");
    }
  }

  // Whether servers still advertise what the binding was sealed to.
  void ask_servers(const SealedPin& pin) {
    std::vector<const SealedPin*> servers;
    collect_tang(pin, servers);
    std::vector<std::vector<BindingFinding>> found(servers.size());
    parallel_for(servers.size(), limits::kUnlockThreadsMax, [&](std::size_t i) {
      Reporter one(binding_, context_, found[i]);
      one.ask_server(*servers[i]);
    });
    for (auto& rows : found) std::ranges::move(rows, std::back_inserter(findings_));
  }

  void ask_server(const SealedPin& pin) {
    try {
      const PinPolicy policy = policy_of(pin);
      const FetchedAdvertisement fetched =
          fetch_advertisement(std::get<TangPin>(policy.pin), context_, deadline_of(context_));
      // That it is down the shares tell.
      if (!fetched.advertisement) return;
      const auto keys = fetched.advertisement->exchange_keys();
      const bool there = std::ranges::any_of(
          keys, [&](const EcKey* key) { return has_thumbprint(key->point, pin.kid); });
      if (!there) {
        add("rotated", pin.url,
            fmt::format("'{}' has new keys, and will throw the old ones away", name_of(pin)),
            "lukskeep rebind takes the new ones");
      }
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) throw;
      add("untrusted", pin.url, error.message(), error.hint());
    }
  }

  const Binding& binding_;
  const PinContext& context_;
  std::vector<BindingFinding>& findings_;
};

}  // namespace

std::vector<BindingFinding> report_bindings(const luks::HeaderFile& file, const PinContext& context,
                                            bool ask) {
  std::vector<BindingFinding> findings;
  for (const Binding& binding : list_bindings(file)) {
    Reporter(binding, context, findings).run(ask);
  }
  return findings;
}

}  // namespace lukskeep::nbde
