// clevis-luks-unlock. The kernel's part is cryptsetup's, as with Clevis.
#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/child_process.h"
#include "cli/compat_clevis.h"
#include "cli/compat_io.h"
#include "storage/memory_file.h"
#include "storage/unique_fd.h"

namespace lukskeep::cli {
namespace {

constexpr int kUsage = 2;

// What the kernel lists in /proc/misc if it can map devices.
bool kernel_maps_devices() {
  std::ifstream list("/proc/misc");
  std::string number;
  std::string name;
  while (list >> number >> name) {
    if (name == "device-mapper") return true;
  }
  return false;
}

// Starts cryptsetup with `input` on its standard input.
pid_t start_cryptsetup(std::vector<std::string> arguments, const SecretBytes& input) {
  const storage::UniqueFd read_end = storage::memory_file(input.span());
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, read_end.get(), STDIN_FILENO);
  std::vector<char*> words;
  words.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  pid_t process = -1;
  const int failed = posix_spawnp(&process, words[0], &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    throw Error(Code::kUnsupported,
                fmt::format("cannot run cryptsetup, which maps devices: {}",
                            std::generic_category().message(failed)),
                "apt-get install cryptsetup-bin");
  }
  return process;
}

int map_device(const std::string& device, const std::string& name, const std::string& more,
               const SecretBytes& passphrase) {
  std::vector<std::string> arguments = {"cryptsetup", "open", "--key-file=-"};
  for (std::size_t at = 0; at < more.size();) {
    const std::size_t end = std::min(more.find(' ', at), more.size());
    if (end > at) arguments.push_back(more.substr(at, end - at));
    at = end + 1;
  }
  arguments.insert(arguments.end(), {"--", device, name});
  int status = 0;
  const pid_t process = start_cryptsetup(std::move(arguments), passphrase);
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
  if (!kernel_maps_devices()) {
    print_error(Error(Code::kUnsupported,
                      fmt::format("this kernel has no device-mapper, so '{}' cannot be mapped, "
                                  "though its binding opens it",
                                  printable(device, 256)),
                      "'modprobe dm_mod dm_crypt' as root; or without it 'lukskeep serve VOLUME "
                      "--key binding:'"),
                false);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : kCompatFailure;
}

std::string mapping_name(const luks::HeaderFile& file, const ShortOptions& options) {
  const std::string name = options.value('n');
  return name.empty() ? fmt::format("luks-{}", file.header().uuid) : name;
}

}  // namespace

int compat_luks_unlock(const CompatCall& call) {
  constexpr std::string_view text = "clevis luks unlock -d DEV [-n NAME] [-t SLT] [-o OPTIONS]";
  const ShortOptions options = parse_short_options(call.arguments, "d:n:t:o:");
  if (options.wrong) return compat_usage(text, kUsage);
  const std::string device = options.value('d');
  if (device.empty()) return compat_missing("a device", text, kUsage);
  const auto file = try_open(nullptr, device, "{} is not a LUKS device!");
  if (!file) return kCompatFailure;
  luks::UnlockOptions unlock = KeyArgs().unlock_options(call.session);
  const std::string slot = options.value('t');
  std::optional<OpenedVolume> opened;
  try {
    if (!slot.empty()) {
      unlock.keyslot = parse_slot(slot, slots_of(*file));
      if (!unlock.keyslot) throw Error(Code::kInvalidArgument, "that is no keyslot");
    }
    opened = unlock_by_binding(*file, compat_context(call.session, Trust::kAsk), unlock);
  } catch (const Error& error) {
    if (error.code() == Code::kInterrupted) throw;
    say(slot.empty() ? fmt::format("{} could not be opened.", printable(device, 256))
                     : fmt::format("Test for token slot {} on device {} failed.", printable(slot),
                                   printable(device, 256)));
    throw;
  }
  if (!slot.empty()) return 0;
  return map_device(device, mapping_name(*file, options), options.value('o'), opened->passphrase);
}

}  // namespace lukskeep::cli
