// key add, change, convert: keyslots with new material.
#include <optional>
#include <string>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/header_view.h"
#include "cli/kdf_args.h"
#include "cli/volume_access.h"
#include "luks/keyslots.h"
#include "luks/layout.h"

namespace lukskeep::cli {
namespace {

crypto::KdfType kdf_type(const luks::Kdf& kdf) {
  switch (kdf.type) {
    case luks::Kdf::Type::kPbkdf2:
      return crypto::KdfType::kPbkdf2;
    case luks::Kdf::Type::kArgon2i:
      return crypto::KdfType::kArgon2i;
    case luks::Kdf::Type::kArgon2id:
    case luks::Kdf::Type::kUnknown:
      break;
  }
  return crypto::KdfType::kArgon2id;
}

OrderedJson result_json(const VolumeArgs& volume, int slot, const crypto::KdfCost& cost) {
  return {{"volume", volume.volume},
          {"keyslot", slot},
          {"kdf",
           {{"type", crypto::kdf_name(cost.type)},
            {"iterations", cost.iterations},
            {"memory_kib", cost.memory_kib},
            {"parallel", cost.parallel}}}};
}

class KeyAdd final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    key_.declare(options);
    options.add({.name = "--new-key",
                 .value = "SOURCE",
                 .help = "the passphrase to add: file:PATH, fd:N or prompt: (default)"},
                new_key_);
    options.add(
        {.name = "--slot", .value = "N", .help = "into this keyslot (default: lowest free)"},
        keyslot_.keyslot);
    options.add({.name = "--priority",
                 .value = "WHEN",
                 .help = "when the keyslot is tried",
                 .choices = {"normal", "prefer", "ignore"}},
                priority_);
    kdf_.declare(options);
    options.add({.name = "--keyslot-cipher",
                 .value = "NAME",
                 .help = "LUKS2: encrypts the keyslot (default: as the other keyslots)"},
                keyslot_.area_encryption);
    options.add({.name = "--keyslot-key-size", .value = "BITS", .help = "LUKS2: of that cipher"},
                area_key_bits_);
  }

  void run(const Session& session) override {
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    check_slot(file.header());
    const OpenedVolume opened = unlock_volume(session, file, key_, key_.unlock_options(session));
    const SecretBytes passphrase = read_new_passphrase(session, new_key_, volume_.volume);
    luks::NewKeyslot keyslot = keyslot_;
    keyslot.cost = choose_cost(session, kdf_, kdf_defaults(file.header()));
    keyslot.area_key_size_bytes = area_key_bits_.value_or(0) / 8;
    keyslot.priority = priority_of(priority_);
    if (kdf_.hash) keyslot.af_hash = *kdf_.hash;
    const int slot =
        luks::add_keyslot(file, opened.unlocked, passphrase.span(), keyslot, session.cancel);
    report(session, result_json(volume_, slot, keyslot.cost),
           fmt::format("{} keyslot {} to '{}': {}", session.dry_run ? "would add" : "added", slot,
                       printable(volume_.volume, 256), describe(keyslot.cost)));
  }

 private:
  // Before anybody types a passphrase for nothing.
  void check_slot(const luks::Header& header) const {
    if (keyslot_.keyslot && header.keyslots.contains(*keyslot_.keyslot)) {
      throw Error(Code::kExists,
                  fmt::format("keyslot {} of '{}' is taken", *keyslot_.keyslot,
                              printable(volume_.volume, 256)),
                  "leave out --slot, or remove that keyslot first");
    }
    if (!luks::find_free_keyslot(header)) {
      throw Error(Code::kNoFreeKeyslot,
                  fmt::format("all keyslots of '{}' are taken", printable(volume_.volume, 256)),
                  "remove one first");
    }
  }

  VolumeArgs volume_;
  KeyArgs key_;
  KdfArgs kdf_;
  luks::NewKeyslot keyslot_;
  std::string new_key_ = "prompt:";
  std::string priority_ = "normal";
  std::optional<std::uint32_t> area_key_bits_;
};

// `key change` gives the keyslot a new passphrase, `key convert` a new KDF.
class KeyReplace final : public Command {
 public:
  enum class What : std::uint8_t { kPassphrase, kKdf };
  explicit KeyReplace(What what) : what_(what) {}

  void declare(Options& options) override {
    volume_.declare(options);
    key_.declare(options);
    if (what_ == What::kPassphrase) {
      options.add({.name = "--new-key",
                   .value = "SOURCE",
                   .help = "the new passphrase: file:PATH, fd:N or prompt: (default)"},
                  new_key_);
    }
    options.add({.name = "--slot", .value = "N", .help = "only this keyslot"}, slot_);
    kdf_.declare(options);
  }

  void run(const Session& session) override {
    luks::HeaderFile file = open_header_for_change(session, volume_, true);
    luks::UnlockOptions options = key_.unlock_options(session);
    options.keyslot = slot_;
    options.allow_unbound = true;
    OpenedVolume opened = unlock_volume(session, file, key_, options);
    if (opened.unlocked.keyslot < 0) {
      throw Error(Code::kUsage, "a volume key does not say which keyslot is meant",
                  "give the passphrase of the keyslot with --key");
    }
    if (what_ == What::kPassphrase) {
      opened.passphrase = read_new_passphrase(session, new_key_, volume_.volume);
    }
    const luks::NewKeyslot keyslot = new_keyslot(session, file.header(), opened.unlocked.keyslot);
    const int slot = luks::change_keyslot(file, opened.unlocked, opened.passphrase.span(), keyslot,
                                          session.cancel);
    report(session, result_json(volume_, slot, keyslot.cost), sentence(session, slot, keyslot));
  }

 private:
  luks::NewKeyslot new_keyslot(const Session& session, const luks::Header& header,
                               int number) const {
    const luks::Keyslot& present = header.keyslots.at(number);
    KdfDefaults defaults = kdf_defaults(header);
    defaults.output_bytes = present.area.key_size_bytes;
    // A new passphrase leaves the kind of KDF as it is.
    if (what_ == What::kPassphrase) {
      defaults.type = kdf_type(present.kdf);
      if (!present.kdf.hash.empty()) defaults.hash = present.kdf.hash;
    }
    luks::NewKeyslot keyslot;
    keyslot.cost = choose_cost(session, kdf_, defaults);
    keyslot.area_encryption = present.area.encryption;
    keyslot.area_key_size_bytes = present.area.key_size_bytes;
    keyslot.af_hash = kdf_.hash.value_or(present.af.hash);
    keyslot.priority = present.priority;
    return keyslot;
  }

  std::string sentence(const Session& session, int slot, const luks::NewKeyslot& keyslot) const {
    const bool passphrase = what_ == What::kPassphrase;
    return fmt::format("{} {}keyslot {} of '{}': {}",
                       session.dry_run ? (passphrase ? "would change" : "would convert")
                                       : (passphrase ? "changed" : "converted"),
                       passphrase ? "the passphrase of " : "", slot, printable(volume_.volume, 256),
                       describe(keyslot.cost));
  }

  What what_;
  VolumeArgs volume_;
  KeyArgs key_;
  KdfArgs kdf_;
  std::string new_key_ = "prompt:";
  std::optional<int> slot_;
};

}  // namespace

std::unique_ptr<Command> make_key_add() { return std::make_unique<KeyAdd>(); }
std::unique_ptr<Command> make_key_change() {
  return std::make_unique<KeyReplace>(KeyReplace::What::kPassphrase);
}
std::unique_ptr<Command> make_key_convert() {
  return std::make_unique<KeyReplace>(KeyReplace::What::kKdf);
}

}  // namespace lukskeep::cli
