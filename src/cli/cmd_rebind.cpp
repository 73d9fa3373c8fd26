// unbind, rebind, top-up: bindings that go, and that get new keys or the shares they lack.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/binding_access.h"
#include "cli/command.h"
#include "nbde/binding_change.h"

namespace lukskeep::cli {
namespace {

void declare_one_of_all(Options& options, std::optional<int>& slot) {
  options.add({.name = "--slot",
               .value = "N",
               .help = "only the binding of this keyslot (default: all bindings)"},
              slot);
}

class Unbind final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.add({.name = "--slot", .value = "N", .help = "the keyslot of the binding"}, slot_);
    options.flag({.name = "--orphans", .help = "remove what is left of bindings without keyslot"},
                 orphans_);
  }

  void run(const Session& session) override {
    if (slot_.has_value() == orphans_) {
      throw Error(Code::kUsage, "one of --slot N and --orphans says what to remove",
                  "'lukskeep bindings' lists the bindings");
    }
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    const std::string_view verb = session.dry_run ? "would remove" : "removed";
    if (orphans_) {
      const int count = nbde::remove_orphan_bindings(file);
      return report(session, {{"volume", volume_.volume}, {"orphans", count}},
                    fmt::format("{} {} leftovers of bindings from '{}'", verb, count,
                                printable(volume_.volume, 256)));
    }
    const int slot = slot_.value_or(-1);
    remove_even_last(session, volume_.volume, slot,
                     [&](bool allow_last) { nbde::remove_binding(file, slot, allow_last); });
    report(session, {{"volume", volume_.volume}, {"removed", slot}},
           fmt::format("{} keyslot {} of '{}' with its binding", verb, slot,
                       printable(volume_.volume, 256)));
  }

 private:
  VolumeArgs volume_;
  std::optional<int> slot_;
  bool orphans_ = false;
};

class Rebind final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    declare_one_of_all(options, slot_);
    options.add({.name = "--key",
                 .value = "SOURCE",
                 .help = "a passphrase (default: the volume's own bindings)"},
                source_);
    key_.declare_limits(options);
    servers_.declare(options);
    options.flag({.name = "--allow-pending",
                  .help = "leave out servers that are down, if the others suffice: see top-up"},
                 allow_pending_);
  }

  void run(const Session& session) override {
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    std::vector<int> slots = binding_keyslots(file, slot_);
    const std::vector<int> left = slot_ ? std::vector<int>{} : take_unknown(file, slots);
    const OpenedVolume opened =
        unlock_for_binding(session, file, source_, key_, servers_.context(session));
    nbde::PinContext context = servers_.context(session);
    context.allow_pending = allow_pending_;
    for (const int slot : slots) {
      rebind_keyslot(file, opened.unlocked, slot, context, key_.unlock_options(session));
    }
    if (!left.empty()) session.outcome->exit_status = 1;
    report(session, {{"volume", volume_.volume}, {"keyslots", slots}, {"left", left}},
           fmt::format("{} keyslot{} {} of '{}' with a new passphrase and the same policy",
                       session.dry_run ? "would bind" : "bound", slots.size() == 1 ? "" : "s",
                       fmt::join(slots, ", "), printable(volume_.volume, 256)));
  }

 private:
  // Out of `slots` those that only another program can bind anew, unless there are no others.
  std::vector<int> take_unknown(const luks::HeaderFile& file, std::vector<int>& slots) const {
    const auto known = std::ranges::stable_partition(
        slots, [&](int slot) { return unknown_pins_of(file, slot).empty(); });
    if (known.begin() == slots.begin()) return {};
    const std::vector<int> left(known.begin(), known.end());
    slots.erase(known.begin(), known.end());
    for (const int slot : left) {
      warn(
          fmt::format("the binding of keyslot {} of '{}' has pins that are not known here, and "
                      "stays as it is: {}",
                      slot, printable(volume_.volume, 256), unknown_pins_of(file, slot)));
    }
    return left;
  }

  VolumeArgs volume_;
  KeyArgs key_;
  PinContextArgs servers_;
  std::optional<int> slot_;
  std::optional<std::string> source_;
  bool allow_pending_ = false;
};

class TopUp final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    declare_one_of_all(options, slot_);
    servers_.declare(options);
    options.flag({.name = "--trust-on-first-use",
                  .help = "take whatever key a server shows whose thumbprint is not known"},
                 trust_);
  }

  void run(const Session& session) override {
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    nbde::PinContext context = servers_.context(session);
    context.trust_on_first_use = trust_;
    std::size_t added = 0;
    std::size_t confirmed = 0;
    std::size_t pending = 0;
    for (const int slot : binding_keyslots(file, slot_)) {
      const nbde::Binding binding = nbde::find_binding(file, slot);
      const nbde::ToppedUp result = nbde::top_up(nbde::sealed_of(binding), context);
      if (result.jwe != nbde::sealed_of(binding)) nbde::replace_sealed(file, binding, result.jwe);
      added += result.added;
      confirmed += result.saved;
      pending += result.pending;
      for (const Error& error : result.errors) warn(error.message());
    }
    if (pending > 0) session.outcome->exit_status = 1;
    report(
        session,
        {{"volume", volume_.volume},
         {"added", added},
         {"confirmed", confirmed},
         {"pending", pending}},
        fmt::format("{} {} shares to '{}' and {} {} more; {} still pending",
                    session.dry_run ? "would add" : "added", added, printable(volume_.volume, 256),
                    session.dry_run ? "confirm" : "confirmed", confirmed, pending));
  }

 private:
  VolumeArgs volume_;
  PinContextArgs servers_;
  std::optional<int> slot_;
  bool trust_ = false;
};

}  // namespace

std::unique_ptr<Command> make_unbind() { return std::make_unique<Unbind>(); }
std::unique_ptr<Command> make_rebind() { return std::make_unique<Rebind>(); }
std::unique_ptr<Command> make_top_up() { return std::make_unique<TopUp>(); }

}  // namespace lukskeep::cli
