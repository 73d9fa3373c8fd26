// Opening volumes as Clevis' scripts do.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/compat_clevis.h"
#include "cli/compat_io.h"
#include "luks/luks1_gap.h"

namespace lukskeep::cli {

int slots_of(const luks::HeaderFile& file) {
  return file.header().version == luks::Version::kLuks1 ? kLuks1Slots : kLuks2Slots;
}

VolumeArgs device_args(const std::string& device) {
  VolumeArgs args;
  args.volume = device;
  return args;
}

std::optional<luks::HeaderFile> try_open(const Session* changing, const std::string& device,
                                         std::string_view complaint) {
  try {
    const VolumeArgs args = device_args(device);
    return changing != nullptr ? open_header_for_change(*changing, args, true) : open_header(args);
  } catch (const Error& error) {
    if (error.code() == Code::kInterrupted || error.code() == Code::kOutOfMemory) throw;
    say(fmt::format(fmt::runtime(complaint), printable(device, 256)));
    print_error(error, false);
    return std::nullopt;
  }
}

bool has_records(const luks::HeaderFile& file) {
  if (file.header().version != luks::Version::kLuks1) return true;
  try {
    const auto gap = luks::Luks1Gap::open(file);
    return gap && gap->initialised();
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
    return false;
  }
}

std::optional<nbde::Binding> binding_of_slot(const luks::HeaderFile& file, int slot) {
  for (nbde::Binding& binding : nbde::list_bindings(file)) {
    if (binding.keyslot == slot && !binding.orphan) return std::move(binding);
  }
  return std::nullopt;
}

OpenedVolume open_somehow(const CompatCall& call, const luks::HeaderFile& file,
                          const std::optional<SecretBytes>& key) {
  const luks::UnlockOptions options = KeyArgs().unlock_options(call.session);
  const auto with = [&](const SecretBytes& passphrase) -> std::optional<OpenedVolume> {
    auto unlocked = luks::unlock(file, passphrase.span(), options);
    if (!unlocked) return std::nullopt;
    return OpenedVolume{.unlocked = std::move(*unlocked), .passphrase = passphrase.clone()};
  };
  if (key) {
    if (auto opened = with(*key)) return std::move(*opened);
  }
  std::string why;
  try {
    return unlock_by_binding(file, compat_context(call.session, Trust::kAsk), options);
  } catch (const Error& error) {
    if (error.code() == Code::kInterrupted || error.code() == Code::kOutOfMemory) throw;
    why = error.message();
  }
  const auto line = read_secret_line("Enter existing LUKS password: ", *call.session.cancel);
  say("");
  if (line) {
    if (auto opened = with(line->text)) return std::move(*opened);
  }
  throw Error(Code::kWrongPassphrase, fmt::format("no passphrase that opens '{}' was given, and {}",
                                                  file.device()->name(), why));
}

}  // namespace lukskeep::cli
