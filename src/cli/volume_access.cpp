#include "cli/volume_access.h"

#include <utility>

#include <fmt/format.h>

#include "archive/keeper.h"
#include "base/bytes.h"
#include "cli/named_device.h"
#include "cli/signals.h"
#include "cli/units.h"
#include "keys/key_source.h"
#include "luks/header_backup.h"
#include "storage/location.h"
#include "storage/memory_device.h"
#include "storage/request.h"

namespace lukskeep::cli {
namespace {

constexpr int kPromptAttempts = 3;

// Device names are fit for messages as they are.
std::string wrong_key(const std::string& volume, const keys::KeySource& source,
                      const luks::UnlockOptions& options) {
  if (source.kind == keys::KeySource::Kind::kVolumeKey) {
    return fmt::format("this is not a volume key of '{}'", volume);
  }
  if (options.keyslot) {
    return fmt::format("keyslot {} of '{}' does not open with this passphrase", *options.keyslot,
                       volume);
  }
  return fmt::format("no keyslot of '{}' opens with this passphrase", volume);
}

std::optional<luks::Unlocked> try_key(const luks::HeaderFile& file, const keys::KeySource& source,
                                      const SecretBytes& key, const luks::UnlockOptions& options) {
  if (source.kind == keys::KeySource::Kind::kVolumeKey) {
    return luks::unlock_with_volume_key(file, key.clone(), options);
  }
  return luks::unlock(file, key.span(), options);
}

storage::OpenOptions open_options(storage::Access access, bool lock, bool direct) {
  return {.access = access,
          .lock = lock,
          .direct = direct,
          .allow_backing = allowed_named_files().backing,
          .allow_data_file = allowed_named_files().data_file,
          .cancel = &cancel_token()};
}

}  // namespace

void VolumeArgs::declare(Options& options) {
  options.positional({.name = "VOLUME", .help = "the volume: a file, a block device or a URI"},
                     volume);
  options.add({.name = "--header",
               .value = "FILE",
               .help = "the header is in FILE, apart from the payload"},
              header);
  policy.declare(options);
}

void KeyArgs::declare(Options& options) {
  options.add({.name = "--key",
               .value = "SOURCE",
               .help = "the passphrase: file:PATH[,offset=N][,size=N], fd:N, prompt: (default), or "
                       "volume-key:PATH"},
              key);
  declare_limits(options);
}

void KeyArgs::declare_limits(Options& options) {
  options.add({.name = "--kdf-limit",
               .value = "LIMIT",
               .help = "refuse keyslots that cost more than this to open (default 300s,4GiB)"},
              [this](const std::string& value) { kdf_limit = parse_kdf_limit(value); });
  declare_allow_insecure(options, allow_insecure);
}

luks::UnlockOptions KeyArgs::unlock_options(const Session& session) const {
  luks::UnlockOptions options;
  options.allow_insecure = allow_insecure;
  options.kdf_limit = kdf_limit;
  options.cancel = session.cancel;
  return options;
}

void declare_allow_insecure(Options& options, bool& allow_insecure) {
  options.flag({.name = "--allow-insecure",
                .help = "accept volumes and keyslots that are not encrypted (cipher_null)"},
               allow_insecure);
}

void warn_if_insecure(bool allow_insecure) {
  if (!allow_insecure) return;
  warn(
      "--allow-insecure: what is 'encrypted' with cipher_null anybody can read and replace, "
      "without any passphrase");
}

NamedFiles& allowed_named_files() noexcept {
  static NamedFiles allowed;
  return allowed;
}

std::shared_ptr<Device> open_device(const std::string& path, storage::Access access, bool direct) {
  return storage::open_location(path, open_options(access, true, direct));
}

std::shared_ptr<Device> open_to_look(const std::string& path) {
  return storage::open_location(path, open_options(storage::Access::kRead, false, false));
}

luks::HeaderFile open_header_unjudged(const VolumeArgs& args) {
  return luks::HeaderFile::open(open_device(args.header_path(), storage::Access::kRead));
}

luks::HeaderFile open_header(const VolumeArgs& args) {
  luks::HeaderFile file = open_header_unjudged(args);
  args.policy.enforce(file);
  return file;
}

luks::HeaderFile open_header_for_change(const Session& session, const VolumeArgs& args) {
  if (!session.dry_run) {
    luks::HeaderFile changing =
        luks::HeaderFile::open(open_device(args.header_path(), storage::Access::kReadWrite));
    args.policy.enforce(changing);
    if (session.keeper != nullptr) session.keeper->before(changing, args.header_path());
    return changing;
  }
  const luks::HeaderFile file = open_header_unjudged(args);
  auto copy = std::make_shared<storage::MemoryDevice>(luks::backup_header(file, true));
  luks::HeaderFile changing =
      luks::HeaderFile::open(with_name(std::move(copy), file.device()->name()));
  args.policy.enforce(changing);
  return changing;
}

std::optional<std::string> keep_header(const Session& session, const std::string& path) {
  if (session.keeper == nullptr) return std::nullopt;
  std::optional<luks::HeaderFile> present;
  try {
    present.emplace(luks::HeaderFile::open(open_to_look(path)));
  } catch (const Error& error) {
    // Nothing there, or nothing that is a header.
    if (storage::ends_everything(error)) throw;
  }
  if (present) return session.keeper->before(*present, path);
  session.keeper->will_write(path);
  return std::nullopt;
}

OpenedVolume unlock_volume(const Session& session, const luks::HeaderFile& file,
                           const KeyArgs& args, const luks::UnlockOptions& options) {
  warn_if_insecure(args.allow_insecure);
  const keys::KeySource source = keys::parse_key_source(args.key);
  const bool prompt = source.kind == keys::KeySource::Kind::kPrompt;
  const std::string volume = file.device()->name();
  const keys::PromptRequest request{.text = fmt::format("passphrase for '{}'", volume)};
  for (int attempt = 1;; ++attempt) {
    SecretBytes key = keys::read_key(source, request, terminal_prompter(session), session.cancel);
    std::optional<luks::Unlocked> unlocked = try_key(file, source, key, options);
    if (unlocked) {
      if (source.kind == keys::KeySource::Kind::kVolumeKey) key = {};
      return {.unlocked = std::move(*unlocked), .passphrase = std::move(key)};
    }
    if (!prompt || attempt == kPromptAttempts) {
      throw Error(Code::kWrongPassphrase, wrong_key(volume, source, options));
    }
    warn(wrong_key(volume, source, options));
  }
}

SecretBytes read_new_passphrase(const Session& session, const std::string& source,
                                const std::string& volume) {
  const keys::KeySource parsed = keys::parse_key_source(source);
  if (parsed.kind == keys::KeySource::Kind::kVolumeKey) {
    throw Error(Code::kUsage, fmt::format("'{}' is a volume key, not a passphrase for a keyslot",
                                          printable(source)));
  }
  const keys::PromptRequest request{
      .text = fmt::format("new passphrase for '{}'", printable(volume, 256)), .confirm = true};
  return keys::read_key(parsed, request, terminal_prompter(session), session.cancel);
}

}  // namespace lukskeep::cli
