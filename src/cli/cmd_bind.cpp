// bind, edit: new bindings, and other policies for old ones.
#include <optional>
#include <string>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/binding_access.h"
#include "cli/binding_view.h"
#include "cli/command.h"
#include "luks/luks1_gap.h"
#include "nbde/binding_change.h"

namespace lukskeep::cli {
namespace {

// Where --policy says whom to seal to, the policy of headers has another name.
constexpr std::string_view kHeaderPolicy = "--header-policy";

nbde::Sealer sealer(const nbde::PinPolicy& policy, const nbde::PinContext& context) {
  return [&](ByteView passphrase) { return nbde::seal(policy, passphrase, context); };
}

nbde::SealedPin sealed_pin(const luks::HeaderFile& file, int keyslot) {
  return nbde::describe(nbde::sealed_of(nbde::find_binding(file, keyslot)), "the new binding");
}

OrderedJson result(const VolumeArgs& volume, const luks::HeaderFile& file, int keyslot) {
  const nbde::Binding binding = nbde::find_binding(file, keyslot);
  return {{"volume", volume.volume},
          {"keyslot", keyslot},
          {"token", binding.token ? OrderedJson(*binding.token) : OrderedJson(nullptr)},
          {"pin", nbde::to_json(sealed_pin(file, keyslot))}};
}

class Bind final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options, kHeaderPolicy);
    pins_.declare(options);
    key_.declare(options);
    options.add(
        {.name = "--slot", .value = "N", .help = "into this keyslot (default: lowest free)"},
        bind_.keyslot);
    options.add(
        {.name = "--token", .value = "N", .help = "LUKS2: as this token (default: lowest free)"},
        bind_.token);
    options.flag({.name = "--reset-luksmeta",
                  .help = "LUKS1: start a new table of records where the present one is damaged"},
                 reset_);
  }

  void run(const Session& session) override {
    const nbde::PinPolicy policy = pins_.read();
    const nbde::PinContext context = pins_.context.context(session);
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    const OpenedVolume opened = unlock_volume(session, file, key_, key_.unlock_options(session));
    if (reset_) reset_luksmeta(file);
    bind_.cancel = session.cancel;
    const int keyslot = nbde::add_binding(file, opened.unlocked, sealer(policy, context), bind_);
    report(session, result(volume_, file, keyslot),
           fmt::format("{} keyslot {} of '{}' to {}", session.dry_run ? "would bind" : "bound",
                       keyslot, printable(volume_.volume, 256),
                       pin_summary(sealed_pin(file, keyslot))));
  }

 private:
  static void reset_luksmeta(const luks::HeaderFile& file) {
    auto gap = luks::Luks1Gap::open_anew(file);
    if (!gap) return;
    try {
      static_cast<void>(luks::Luks1Gap::open(file));
    } catch (const Error& error) {
      if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
      gap->wipe(0);
    }
  }

  VolumeArgs volume_;
  BindPolicyArgs pins_;
  KeyArgs key_;
  nbde::BindOptions bind_;
  bool reset_ = false;
};

class Edit final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options, kHeaderPolicy);
    pins_.declare(options);
    options.add({.name = "--slot", .value = "N", .help = "the keyslot whose binding is changed"},
                slot_);
    options.add({.name = "--key",
                 .value = "SOURCE",
                 .help = "a passphrase (default: the volume's own bindings)"},
                source_);
    key_.declare_limits(options);
  }

  void run(const Session& session) override {
    const nbde::PinPolicy policy = pins_.read();
    const nbde::PinContext context = pins_.context.context(session);
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    const std::vector<int> slots = binding_keyslots(file, slot_);
    if (slots.size() != 1) {
      throw Error(Code::kUsage,
                  fmt::format("'{}' has {} bindings", printable(volume_.volume, 256), slots.size()),
                  "--slot N says which of them ('lukskeep bindings' lists them)");
    }
    const std::string unknown = slot_ ? "" : unknown_pins_of(file, slots.front());
    if (!unknown.empty()) {
      throw Error(Code::kUsage,
                  fmt::format("the binding of keyslot {} has pins that are not known here: {}",
                              slots.front(), unknown),
                  fmt::format("--slot {} says that it may go all the same", slots.front()));
    }
    const OpenedVolume opened = unlock_for_binding(session, file, source_, key_, context);
    const auto rebind = [&] {
      return nbde::rebind(file, opened.unlocked, slots.front(), sealer(policy, context),
                          [&](const nbde::Jwe& jwe) { return nbde::unseal(jwe, context); },
                          {.cancel = session.cancel, .unlock = key_.unlock_options(session)});
    };
    // One that was cut is completed first, with the policy of then.
    if (rebind()) rebind();
    report(session, result(volume_, file, slots.front()),
           fmt::format("{} keyslot {} of '{}' to {}", session.dry_run ? "would bind" : "bound",
                       slots.front(), printable(volume_.volume, 256),
                       pin_summary(sealed_pin(file, slots.front()))));
  }

 private:
  VolumeArgs volume_;
  BindPolicyArgs pins_;
  KeyArgs key_;
  std::optional<int> slot_;
  std::optional<std::string> source_;
};

}  // namespace

std::unique_ptr<Command> make_bind() { return std::make_unique<Bind>(); }
std::unique_ptr<Command> make_edit() { return std::make_unique<Edit>(); }

}  // namespace lukskeep::cli
