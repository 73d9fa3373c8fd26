// clevis-luks-bind, -list, -pass.
#include <set>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/compat_clevis.h"
#include "cli/compat_io.h"
#include "cli/program.h"
#include "luks/luks1_gap.h"
#include "nbde/binding_change.h"

namespace lukskeep::cli {
namespace {

constexpr int kUsage = 2;
// Of luksmeta, which Clevis asks for that (EX_NOPERM).
constexpr int kRecordsRefused = 77;
constexpr int kListUsage = 1;  // of list and pass

// ---- bind ---------------------------------------------------------------------------------------

constexpr std::string_view kBindUsage =
    "clevis luks bind [-y] [-f] [-s SLT] [-k KEY] [-t TOKEN_ID] [-e EXISTING_TOKEN_ID] -d DEV PIN "
    "CFG";

struct BindCall {
  std::string device;
  std::string pin;
  std::string config;
  bool luks1 = false;
  ShortOptions options;
};

bool records_missing(const luks::HeaderFile& file) {
  if (file.header().version != luks::Version::kLuks1) return false;
  const auto gap = luks::Luks1Gap::open(file);
  return gap && !gap->initialised();
}

bool may_start_records(const CompatCall& call, const BindCall& bind) {
  if (bind.options.has('f') || bind.options.has('y')) return true;
  say("You are about to initialize a LUKS device for metadata storage.\n"
      "Attempting to initialize it may result in data loss if data was\n"
      "already written into the LUKS header gap in a different format.\n"
      "A backup is advised before initialization is performed.\n");
  return read_yes(fmt::format("Do you wish to initialize {}? [yn] ", printable(bind.device, 256)),
                  *call.session.cancel);
}

// A token's way to a passphrase: -e.
OpenedVolume open_by_token(const CompatCall& call, const luks::HeaderFile& file,
                           const std::string& number) {
  const int id = parse_slot(number, kLuks2Slots).value_or(-1);
  const auto& tokens = file.header().tokens;
  const auto token = tokens.find(id);
  if (token == tokens.end()) {
    throw Error(Code::kNotFound, fmt::format("there is no token {}", printable(number)));
  }
  const luks::UnlockOptions options = KeyArgs().unlock_options(call.session);
  for (const nbde::Binding& binding : nbde::list_bindings(file)) {
    if (binding.token != id || binding.orphan) continue;
    luks::UnlockOptions slot = options;
    slot.keyslot = binding.keyslot;
    return unlock_by_binding(file, compat_context(call.session, Trust::kAsk), slot);
  }
  const Json json = parse_json(token->second.json, fmt::format("token {}", id));
  if (json.value("type", "") != "luks2-keyring") {
    throw Error(Code::kUnsupported,
                fmt::format("token {} is neither a binding nor of the kernel's keyring", id));
  }
  KeyArgs key;
  key.key = "keyring:" + json.value("key_description", "");
  return unlock_volume(call.session, file, key, options);
}

// The passphrase as the options say; what is wrong with them is said. Absent: none.
struct ReadKey {
  std::optional<SecretBytes> key;
  std::optional<int> status;
};

ReadKey read_bind_key(const CompatCall& call, const BindCall& bind, bool starts_records) {
  const std::string source = bind.options.value('k');
  if (source.empty()) {
    if (bind.options.has('e')) return {};
    auto line = read_secret_line("Enter existing LUKS password: ", *call.session.cancel);
    say("");
    if (!line || line->ended) return {.key = std::nullopt, .status = kCompatFailure};
    return {.key = std::move(line->text), .status = {}};
  }
  if (source == "-") {
    auto line = read_secret_line("", *call.session.cancel);
    if (starts_records && !bind.options.has('f') && !bind.options.has('y')) {
      say("Cannot use '-k-' without '-f' or '-y' unless already initialized!");
      return {.key = std::nullopt, .status = compat_usage(kBindUsage, kUsage)};
    }
    if (!line) return {};
    return {.key = std::move(line->text), .status = {}};
  }
  if (access(source.c_str(), R_OK) != 0) {
    say(fmt::format("Cannot read key file '{}'", printable(source, 256)));
    return {.key = std::nullopt, .status = kCompatFailure};
  }
  if (bind.options.has('e')) {
    say("Cannot specify kernel keyring description together with key file");
    return {.key = std::nullopt, .status = kCompatFailure};
  }
  const keys::KeySource file{.kind = keys::KeySource::Kind::kFile, .path = source};
  return {.key = keys::read_key(file, {}, {}, call.session.cancel), .status = {}};
}

// Absent where all is well.
std::optional<int> check_bind(BindCall& bind) {
  const ShortOptions& options = bind.options;
  bind.pin = options.rest.empty() ? "" : options.rest[0];
  bind.config = options.rest.size() < 2 ? "" : options.rest[1];
  if (bind.pin.empty()) return compat_missing("a pin", kBindUsage, kUsage);
  if (find_compat_entry("clevis-encrypt-" + bind.pin) == nullptr) {
    say(fmt::format("'{}' is not a valid pin!", printable(bind.pin)));
    return compat_usage(kBindUsage, kUsage);
  }
  if (bind.config.empty()) return compat_missing("a pin config", kBindUsage, kUsage);
  if (!Json::accept(bind.config) || !parse_json(bind.config, "the configuration").is_object()) {
    say("Configuration is malformed; it should be valid JSON");
    return kCompatFailure;
  }
  if (bind.luks1 && options.has('t')) {
    say(fmt::format("{} is a LUKS1 device; -t is only supported in LUKS2",
                    printable(bind.device, 256)));
    return kCompatFailure;
  }
  return std::nullopt;
}

nbde::BindOptions bind_options(const CompatCall& call, const ShortOptions& options) {
  nbde::BindOptions chosen{.cancel = call.session.cancel};
  const auto number = [&](char letter, std::optional<int>& target) {
    if (options.value(letter).empty()) return;
    target = parse_slot(options.value(letter), kLuks2Slots);
    if (target) return;
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' is no number for -{}", printable(options.value(letter)), letter));
  };
  number('s', chosen.keyslot);
  number('t', chosen.token);
  return chosen;
}

int bind_volume(const CompatCall& call, BindCall& bind, const Session& session) {
  auto file = try_open(&session, bind.device, "{} is not a supported LUKS device");
  if (!file) return kCompatFailure;
  bind.luks1 = file->header().version == luks::Version::kLuks1;
  if (const auto wrong = check_bind(bind)) return *wrong;
  const nbde::PinPolicy policy = parse_clevis_config(bind.pin, bind.config);
  const nbde::BindOptions options = bind_options(call, bind.options);
  const bool starts_records = records_missing(*file);
  const ReadKey read = read_bind_key(call, bind, starts_records);
  if (read.status) return *read.status;
  if (starts_records && !may_start_records(call, bind)) return kRecordsRefused;
  const OpenedVolume opened = bind.options.has('e')
                                  ? open_by_token(call, *file, bind.options.value('e'))
                                  : open_somehow(call, *file, read.key);
  const nbde::PinContext context =
      compat_context(call.session, bind.options.has('y') ? Trust::kTake : Trust::kAsk);
  nbde::add_binding(
      *file, opened.unlocked,
      [&](ByteView passphrase) { return nbde::seal(policy, passphrase, context); }, options);
  return 0;
}

void collect_pins(const nbde::SealedPin& sealed, std::set<std::string>& pins) {
  pins.insert(sealed.pin);
  for (const nbde::SealedPin& share : sealed.shares) collect_pins(share, pins);
}

}  // namespace

int compat_luks_bind(const CompatCall& call) {
  BindCall bind{.options = parse_short_options(call.arguments, "hfyd:s:k:t:e:")};
  if (bind.options.wrong || bind.options.has('h')) return compat_usage(kBindUsage, kUsage);
  bind.device = bind.options.value('d');
  if (bind.device.empty()) return compat_missing("a device", kBindUsage, kUsage);
  int status = kCompatFailure;
  run_archiving("clevis luks bind", call.session, [&](const Session& session) {
    try {
      status = bind_volume(call, bind, session);
    } catch (const Error&) {
      say(fmt::format("Error adding new binding to {}", printable(bind.device, 256)));
      throw;
    }
  });
  return status;
}

int compat_luks_list(const CompatCall& call) {
  constexpr std::string_view text = "clevis luks list -d DEV [-s SLT] [-p]";
  const ShortOptions options = parse_short_options(call.arguments, "d:s:p");
  if (options.wrong) return compat_usage(text, kListUsage);
  if (options.value('d').empty()) return compat_missing("a device", text, kListUsage);
  const auto file = try_open(nullptr, options.value('d'), "{} is not a supported LUKS device!");
  if (!file) return kCompatFailure;
  if (!has_records(*file)) {
    say(fmt::format("The {} device is not valid!", printable(options.value('d'), 256)));
    return kCompatFailure;
  }
  const std::string only = options.value('s');
  int status = only.empty() ? 0 : kCompatFailure;
  std::set<std::string> pins;
  for (int slot = 0; slot < slots_of(*file); ++slot) {
    if (!only.empty() && parse_slot(only, kLuks2Slots) != slot) continue;
    const auto binding = binding_of_slot(*file, slot);
    if (!binding || !binding->jwe) continue;
    try {
      const nbde::SealedPin sealed = nbde::describe(*binding->jwe, "the binding");
      status = 0;
      if (options.has('p')) {
        collect_pins(sealed, pins);
        continue;
      }
      const PinConfig shown = clevis_config(sealed);
      const bool known = find_compat_entry("clevis-encrypt-" + shown.pin) != nullptr;
      print(known ? fmt::format("{}: {} '{}'\n", slot, shown.pin, shown.config)
                  : fmt::format("{}: unknown pin '{}'\n", slot, printable(shown.pin)));
    } catch (const Error& error) {
      if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
    }
  }
  for (const std::string& pin : pins) print(fmt::format("{}\n", printable(pin)));
  return status;
}

int compat_luks_pass(const CompatCall& call) {
  constexpr std::string_view text = "clevis luks pass -d DEV -s SLT";
  const ShortOptions options = parse_short_options(call.arguments, "d:s:");
  if (options.wrong) return compat_usage(text, kListUsage);
  if (options.value('d').empty()) return compat_missing("a device", text, kListUsage);
  if (options.value('s').empty()) return compat_missing("a slot", text, kListUsage);
  try {
    const luks::HeaderFile file = open_header(device_args(options.value('d')));
    luks::UnlockOptions unlock = KeyArgs().unlock_options(call.session);
    unlock.keyslot = parse_slot(options.value('s'), slots_of(file));
    if (!unlock.keyslot) throw Error(Code::kInvalidArgument, "that is no keyslot");
    const auto opened = unlock_by_binding(file, compat_context(call.session, Trust::kAsk), unlock);
    print(as_string_view(opened.passphrase.span()));
    return 0;
  } catch (const Error& error) {
    if (error.code() == Code::kInterrupted) throw;
    say(fmt::format("It was not possible to decrypt the passphrase associated to slot {} in {}!",
                    printable(options.value('s')), printable(options.value('d'), 256)));
    throw;
  }
}

}  // namespace lukskeep::cli
