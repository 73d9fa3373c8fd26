// key list, test, remove: keyslots as they are.
#include <optional>
#include <string>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/header_view.h"
#include "cli/volume_access.h"
#include "luks/keyslots.h"

namespace lukskeep::cli {
namespace {

class KeyList final : public Command {
 public:
  void declare(Options& options) override { volume_.declare(options); }

  void run(const Session& session) override {
    const luks::HeaderFile file = open_header(volume_);
    show(session, {{"volume", volume_.volume}, {"keyslots", keyslots_json(file.header())}},
         keyslots_text(file.header()));
  }

 private:
  VolumeArgs volume_;
};

class KeyTest final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.add({.name = "--slot", .value = "N", .help = "try this keyslot only"}, slot_);
    options.flag({.name = "--unbound", .help = "keyslots whose key opens no segment count too"},
                 unbound_);
    key_.declare(options);
  }

  void run(const Session& session) override {
    const luks::HeaderFile file = open_header(volume_);
    luks::UnlockOptions options = key_.unlock_options(session);
    options.keyslot = slot_;
    options.allow_unbound = unbound_;
    const OpenedVolume opened = unlock_volume(session, file, key_, options);
    const int slot = opened.unlocked.keyslot;
    const OrderedJson json = {{"volume", volume_.volume},
                              {"opens", true},
                              {"keyslot", slot < 0 ? OrderedJson(nullptr) : OrderedJson(slot)}};
    if (session.json) return print_json(json);
    if (session.quiet) return;
    print(slot < 0 ? std::string("the volume key is right\n")
                   : fmt::format("keyslot {} opens\n", slot));
  }

 private:
  VolumeArgs volume_;
  KeyArgs key_;
  std::optional<int> slot_;
  bool unbound_ = false;
};

class KeyRemove final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.add(
        {.name = "--slot",
         .value = "N",
         .help = "remove this keyslot, no passphrase needed (with --key: only if that opens "
                 "it)"},
        slot_);
    options.add({.name = "--key",
                 .value = "SOURCE",
                 .help = "remove the keyslot that this passphrase opens"},
                source_);
    key_.declare_limits(options);
  }

  void run(const Session& session) override {
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    const int slot = choose_slot(session, file);
    remove_even_last(session, volume_.volume, slot,
                     [&](bool allow_last) { luks::remove_keyslot(file, slot, allow_last); });
    const std::size_t left = file.header().keyslots.size();
    report(
        session, {{"volume", volume_.volume}, {"removed", slot}, {"keyslots_left", left}},
        fmt::format("{} keyslot {} of '{}', {} left", session.dry_run ? "would remove" : "removed",
                    slot, printable(volume_.volume, 256), left));
  }

 private:
  int choose_slot(const Session& session, const luks::HeaderFile& file) {
    if (slot_ && !source_) return *slot_;
    if (source_) key_.key = *source_;
    luks::UnlockOptions options = key_.unlock_options(session);
    options.keyslot = slot_;
    options.allow_unbound = true;
    const OpenedVolume opened = unlock_volume(session, file, key_, options);
    if (opened.unlocked.keyslot >= 0) return opened.unlocked.keyslot;
    throw Error(Code::kUsage, "a volume key is in no keyslot of its own: it names none to remove",
                "name one with --slot N");
  }

  VolumeArgs volume_;
  KeyArgs key_;
  std::optional<int> slot_;
  std::optional<std::string> source_;
};

}  // namespace

std::unique_ptr<Command> make_key_list() { return std::make_unique<KeyList>(); }
std::unique_ptr<Command> make_key_test() { return std::make_unique<KeyTest>(); }
std::unique_ptr<Command> make_key_remove() { return std::make_unique<KeyRemove>(); }

}  // namespace lukskeep::cli
