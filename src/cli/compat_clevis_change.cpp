// clevis-luks-unbind, -regen, -edit.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/compat_clevis.h"
#include "cli/compat_io.h"
#include "cli/program.h"
#include "nbde/binding_change.h"

namespace lukskeep::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kUnbindUsage = 2;
constexpr int kUsage = 1;

// ---- unbind -------------------------------------------------------------------------------------

// Whether another keyslot than `slot` opens with what is asked for: as cryptsetup wants it before
// it kills one.
bool knows_another(const CompatCall& call, const luks::HeaderFile& file, int slot) {
  const auto line = read_secret_line("Enter any remaining passphrase: ", *call.session.cancel);
  if (!line) return false;
  for (const auto& [number, keyslot] : file.header().keyslots) {
    if (number == slot) continue;
    luks::UnlockOptions options = KeyArgs().unlock_options(call.session);
    options.keyslot = number;
    try {
      if (luks::unlock(file, line->text.span(), options)) return true;
    } catch (const Error& error) {
      if (error.code() != Code::kUnsupported && error.code() != Code::kUnsafe &&
          error.code() != Code::kKdfLimit) {
        throw;
      }
    }
  }
  return false;
}

int unbind(const CompatCall& call, const ShortOptions& options, const Session& session) {
  const std::string device = options.value('d');
  auto file = try_open(&session, device, "{} is not a LUKS device!");
  if (!file) return kCompatFailure;
  const bool luks1 = file->header().version == luks::Version::kLuks1;
  const std::string shown = printable(device, 256);
  if (!has_records(*file)) {
    say(fmt::format("The {} device does not contain a LUKSMeta header!", shown));
    return kCompatFailure;
  }
  const auto slot = parse_slot(options.value('s'), slots_of(*file));
  const auto bindings = nbde::list_bindings(*file);
  const bool bound = slot && std::ranges::any_of(bindings, [&](const nbde::Binding& one) {
                       return one.keyslot == *slot && (luks1 || !one.orphan);
                     });
  if (!bound) {
    say(luks1 ? fmt::format("The LUKSMeta slot {} on device {} is already empty.",
                            printable(options.value('s')), shown)
              : fmt::format("No clevis slot detected on device {}:{}!", shown,
                            printable(options.value('s'))));
    return kCompatFailure;
  }
  if (!options.has('f')) {
    say("The unbind operation will wipe a slot. This operation is unrecoverable.");
    const std::string question =
        fmt::format("Do you wish to erase LUKS slot {} on {}? [ynYN] ", *slot, shown);
    if (!terminal_yes(question, "-f asks nothing", *call.session.cancel)) return 0;
    if (file->header().keyslots.contains(*slot) && !knows_another(call, *file, *slot)) {
      say(fmt::format("LUKS slot {} for device {} couldn't be deleted", *slot, shown));
      throw Error(Code::kWrongPassphrase, "that opens no other keyslot, so this one stays");
    }
  }
  nbde::remove_binding(*file, *slot, options.has('f'));
  return 0;
}

// ---- regen --------------------------------------------------------------------------------------

void regenerate(const CompatCall& call, luks::HeaderFile& file, int slot) {
  const OpenedVolume opened = open_somehow(call, file, {});
  const nbde::PinContext context = compat_context(call.session, Trust::kAsk);
  const luks::UnlockOptions unlock = KeyArgs().unlock_options(call.session);
  const auto once = [&] {
    const nbde::PinPolicy policy = policy_of_binding(file, slot, context, unlock);
    return nbde::rebind(
        file, opened.unlocked, slot,
        [&](ByteView passphrase) { return nbde::seal(policy, passphrase, context); },
        [&](const nbde::Jwe& jwe) { return nbde::unseal(jwe, context); },
        {.cancel = call.session.cancel, .unlock = unlock});
  };
  // One that was cut is completed first, with the policy of then.
  if (once()) once();
}

// What is bound there, as `clevis luks list` shows it; absent if nothing is.
std::optional<PinConfig> listed(const luks::HeaderFile& file, const std::string& slot_text,
                                int& slot) {
  slot = parse_slot(slot_text, slots_of(file)).value_or(-1);
  if (slot < 0 || !has_records(file)) return std::nullopt;
  std::optional<nbde::Binding> binding = binding_of_slot(file, slot);
  if (!binding) {
    // One that was cut when the old keyslot had gone: what is to take its place has its policy.
    for (nbde::Binding& one : nbde::list_bindings(file)) {
      if (one.replaces == slot && !one.orphan) binding = std::move(one);
    }
  }
  if (!binding || !binding->jwe) return std::nullopt;
  return clevis_config(nbde::describe(*binding->jwe, "the binding"));
}

int regen(const CompatCall& call, const ShortOptions& options, const Session& session) {
  const std::string device = printable(options.value('d'), 256);
  auto file = try_open(&session, options.value('d'), "{} is not a supported LUKS device!");
  if (!file) return kCompatFailure;
  int slot = -1;
  const auto found = listed(*file, options.value('s'), slot);
  if (!found) {
    say(fmt::format("nothing is bound to slot {} of {}", printable(options.value('s')), device));
    return kCompatFailure;
  }
  print(fmt::format("Regenerating binding (device {}, slot {}):\nPin: {}, Config: '{}'\n", device,
                    slot, printable(found->pin), found->config));
  if (!options.has('q') && !read_yes("Do you want to proceed? [ynYN] ", *call.session.cancel)) {
    return 0;
  }
  try {
    regenerate(call, *file, slot);
  } catch (const Error& error) {
    if (error.code() != Code::kInterrupted) {
      say(fmt::format("Unable to regenerate binding in {}:{}", device, slot));
    }
    throw;
  }
  say("Binding regenerated successfully");
  return 0;
}

// ---- edit ---------------------------------------------------------------------------------------

// A file that goes with this object.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string_view text) {
    const char* folder = std::getenv("TMPDIR");
    path_ = fmt::format("{}/lukskeep-edit-XXXXXX", folder != nullptr ? folder : "/tmp");
    const int fd = mkostemp(path_.data(), O_CLOEXEC);
    if (fd < 0) {
      throw Error(Code::kIo, fmt::format("cannot make '{}': {}", printable(path_, 256),
                                         std::generic_category().message(errno)));
    }
    close(fd);
    std::ofstream(path_) << text;
  }
  ~TemporaryFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  std::string text() const {
    std::error_code error;
    if (fs::file_size(path_, error) > limits::kJwsBytesMax || error) return {};
    std::stringstream whole;
    whole << std::ifstream(path_).rdbuf();
    return whole.str();
  }

 private:
  std::string path_;
};

void run_editor(const std::string& path) {
  const char* chosen = std::getenv("EDITOR");
  std::string editor = chosen != nullptr && *chosen != '\0' ? chosen : "vi";
  std::string file = path;
  std::vector<char*> words = {editor.data(), file.data(), nullptr};
  pid_t process = -1;
  const int failed =
      posix_spawnp(&process, editor.c_str(), nullptr, nullptr, words.data(), environ);
  if (failed != 0) {
    throw Error(Code::kNotFound, fmt::format("Editor '{}' not found.", printable(editor, 256)),
                "EDITOR names one");
  }
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
}

bool is_object(std::string_view text) {
  return Json::accept(text) && Json::parse(text).is_object();
}

// Absent if the user gives up.
std::optional<Json> edit_by_hand(const CompatCall& call, const Json& config) {
  const TemporaryFile file(config.dump(2) + "\n");
  while (true) {
    run_editor(file.path());
    if (is_object(file.text())) return parse_json(file.text(), "the configuration");
    if (!read_yes("Malformed configuration. Would you like to edit again? [ynYN] ",
                  *call.session.cancel)) {
      return std::nullopt;
    }
  }
}

// A server whose keys the old binding trusts is trusted for them; nobody else is.
void inherit_trust(nbde::PinPolicy& policy, const nbde::PinPolicy& old) {
  if (auto* sss = std::get_if<nbde::SssPin>(&policy.pin)) {
    for (nbde::PinPolicy& one : sss->pins) inherit_trust(one, old);
  }
  auto* tang = std::get_if<nbde::TangPin>(&policy.pin);
  if (tang == nullptr || !tang->thumbprint.empty() || !tang->advertisement.empty() ||
      !tang->advertisement_path.empty()) {
    return;
  }
  if (const auto* known = std::get_if<nbde::TangPin>(&old.pin); known && known->url == tang->url) {
    *tang = *known;
  }
  if (const auto* sss = std::get_if<nbde::SssPin>(&old.pin)) {
    for (const nbde::PinPolicy& one : sss->pins) inherit_trust(policy, one);
  }
}

void apply_edit(const CompatCall& call, luks::HeaderFile& file, int slot, nbde::PinPolicy policy) {
  const OpenedVolume opened = open_somehow(call, file, {});
  const nbde::PinContext context = compat_context(call.session, Trust::kAsk);
  const luks::UnlockOptions unlock = KeyArgs().unlock_options(call.session);
  try {
    inherit_trust(policy, policy_of_binding(file, slot, context, unlock));
  } catch (const Error& error) {
    // A binding that does not open vouches for nobody.
    if (error.code() == Code::kInterrupted) throw;
  }
  const auto once = [&] {
    return nbde::rebind(
        file, opened.unlocked, slot,
        [&](ByteView passphrase) { return nbde::seal(policy, passphrase, context); },
        [&](const nbde::Jwe& jwe) { return nbde::unseal(jwe, context); },
        {.cancel = call.session.cancel, .unlock = unlock});
  };
  if (once()) once();
}

int edit(const CompatCall& call, const ShortOptions& options, const Session& session) {
  const std::string where =
      fmt::format("{}:{}", printable(options.value('d'), 256), printable(options.value('s')));
  auto file = try_open(&session, options.value('d'), "{} is not a supported LUKS device!");
  int slot = -1;
  const auto found = file ? listed(*file, options.value('s'), slot) : std::nullopt;
  if (!found) {
    say(fmt::format("Error retrieving current configuration from {}", where));
    return kCompatFailure;
  }
  const Json old = parse_json(found->config, "the configuration");
  const std::string given = options.value('c');
  std::optional<Json> changed;
  if (given.empty()) {
    changed = edit_by_hand(call, old);
  } else if (is_object(given)) {
    changed = parse_json(given, "the configuration");
  } else {
    say("Invalid configuration given as parameter with -c");
  }
  if (!changed) return kCompatFailure;
  if (*changed == old && !options.has('f')) {
    say("No changes detected; exiting");
    return kCompatFailure;
  }
  const nbde::PinPolicy policy = parse_clevis_config(found->pin, changed->dump());
  if (given.empty()) {
    print(fmt::format("Pin: {}\nNew config:\n{}\n", found->pin, changed->dump(2)));
    if (!read_yes("Would you like to proceed with the updated configuration? [ynYN] ",
                  *call.session.cancel)) {
      return 0;
    }
  }
  print("Updating binding...\n");
  try {
    apply_edit(call, *file, slot, policy);
  } catch (const Error& error) {
    if (error.code() != Code::kInterrupted) {
      say(fmt::format("Unable to update binding in {}. Operation cancelled.", where));
    }
    throw;
  }
  say("Binding edited successfully");
  return 0;
}

using Change = int (*)(const CompatCall&, const ShortOptions&, const Session&);

// With a device and a slot given, `change` under the name of the program, with the archive.
int change_slot(const CompatCall& call, const ShortOptions& options, std::string_view text,
                int usage_status, const std::string& name, Change change) {
  if (options.wrong) return compat_usage(text, usage_status);
  if (options.value('d').empty()) return compat_missing("a device", text, usage_status);
  if (options.value('s').empty()) return compat_missing("a slot", text, usage_status);
  int status = kCompatFailure;
  run_archiving(name, call.session,
                [&](const Session& session) { status = change(call, options, session); });
  return status;
}

}  // namespace

int compat_luks_unbind(const CompatCall& call) {
  return change_slot(call, parse_short_options(call.arguments, "d:s:f"),
                     "clevis luks unbind -d DEV -s SLT [-f]", kUnbindUsage, "clevis luks unbind",
                     unbind);
}

int compat_luks_regen(const CompatCall& call) {
  constexpr std::string_view text = "clevis luks regen [-q] -d DEV -s SLOT";
  const ShortOptions options = parse_short_options(call.arguments, "hqd:s:");
  if (options.has('h') && !options.wrong) return compat_usage(text, 0);
  return change_slot(call, options, text, kUsage, "clevis luks regen", regen);
}

int compat_luks_edit(const CompatCall& call) {
  return change_slot(call, parse_short_options(call.arguments, "fd:s:c:"),
                     "clevis luks edit [-f] -d DEV -s SLOT [-c CONFIG]", kUsage, "clevis luks edit",
                     edit);
}

}  // namespace lukskeep::cli
