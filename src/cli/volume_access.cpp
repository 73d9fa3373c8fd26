#include "cli/volume_access.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "archive/keeper.h"
#include "base/bytes.h"
#include "cli/binding_access.h"
#include "cli/key_manager_args.h"
#include "cli/named_device.h"
#include "cli/signals.h"
#include "cli/units.h"
#include "keys/key_source.h"
#include "luks/header_backup.h"
#include "luks/luks1_gap.h"
#include "storage/block_holders.h"
#include "storage/location.h"
#include "storage/memory_device.h"
#include "storage/request.h"

namespace lukskeep::cli {
namespace {

constexpr int kPromptAttempts = 3;

// Whether a block device is a volume to all that tells, so that whoever has it has it as that:
// dm-crypt, or a server of this program. What else has it (a file system that is mounted, say) may
// have made it since, and only the kernel's lock of the whole tells of that.
bool is_volume_in_use(const std::string& path) {
  const std::filesystem::path folder = storage::sysfs_folder(path);
  if (storage::is_part_of_another(folder)) return false;
  if (storage::has_holders(folder)) return true;
  constexpr std::string_view kMagic("LUKS\xba\xbe", 6);
  const auto device = open_to_look(path);
  if (device->size_bytes() < kMagic.size()) return false;
  Bytes start(kMagic.size());
  device->read(0, start);
  return as_string_view(start) == kMagic;
}

// Device names are fit for messages as they are.
std::string wrong_key(const std::string& volume, const keys::KeySource& source,
                      const luks::UnlockOptions& options) {
  if (keys::is_volume_key(source)) {
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
  if (keys::is_volume_key(source)) {
    return luks::unlock_with_volume_key(file, key.clone(), options);
  }
  return luks::unlock(file, key.span(), options);
}

// Enough to exclude everybody who locks a header; a payload starts behind it.
constexpr std::uint64_t kHeaderLockBytes = 512;

// Its writer may have meant more than one thing by the bytes: the likely is tried first.
OpenedVolume unlock_with_secret(const Session& session, const luks::HeaderFile& file,
                                const std::string& id, const luks::UnlockOptions& options) {
  const std::string volume = file.device()->name();
  std::vector<keys::Candidate> candidates = passphrase_candidates(session, id);
  std::string tried;
  for (keys::Candidate& candidate : candidates) {
    std::optional<luks::Unlocked> unlocked =
        luks::unlock(file, candidate.passphrase.span(), options);
    if (unlocked) {
      if (!tried.empty() && !session.quiet) {
        warn(fmt::format(
            "secret '{}' opened '{}' with {}; 'lukskeep keystore metadata {} {}={}' keeps that",
            printable(id, 128), volume, keys::encoding_words(candidate.encoding),
            printable(id, 128), keys::kEncodingMetadata, keys::encoding_name(candidate.encoding)));
      }
      return {.unlocked = std::move(*unlocked), .passphrase = std::move(candidate.passphrase)};
    }
    tried +=
        fmt::format("{}{}", tried.empty() ? "" : ", ", keys::encoding_name(candidate.encoding));
  }
  throw Error(Code::kWrongPassphrase,
              fmt::format("no keyslot of '{}' opens with secret '{}', tried as {}", volume,
                          printable(id, 128), tried));
}

// A copy of the header that can be changed in every way in which the header could be.
Bytes header_and_gap(const luks::HeaderFile& file) {
  Bytes bytes = luks::backup_header(file, true);
  if (const auto gap = luks::Luks1Gap::open_anew(file)) {
    const std::size_t end = gap->gap().offset_bytes + gap->gap().size_bytes;
    bytes.resize(std::max(bytes.size(), end));
  }
  return bytes;
}

}  // namespace

void declare_header(Options& options, std::string& header) {
  options.add({.name = "--header",
               .value = "FILE",
               .help = "the header is in FILE, apart from the payload"},
              header);
}

void VolumeArgs::declare(Options& options, std::string_view policy_name) {
  options.positional({.name = "VOLUME", .help = "the volume: a file, a block device or a URI"},
                     volume);
  declare_header(options, header);
  policy.declare(options, policy_name);
}

void KeyArgs::declare(Options& options) {
  options.add({.name = "--key",
               .value = "SOURCE",
               .help = "the passphrase: file:PATH[,offset=N][,size=N], fd:N, prompt: (default), "
                       "volume-key:PATH, mapping:NAME, keyring:NAME, manager:ID, binding:"},
              key);
  declare_limits(options);
}

void KeyArgs::declare_limits(Options& options) {
  declare_kdf_limit(options, kdf_limit);
  declare_allow_insecure(options, allow_insecure);
}

luks::UnlockOptions KeyArgs::unlock_options(const Session& session) const {
  luks::UnlockOptions options;
  options.allow_insecure = allow_insecure;
  options.kdf_limit = kdf_limit;
  options.cancel = session.cancel;
  return options;
}

void declare_kdf_limit(Options& options, crypto::KdfLimit& limit) {
  options.add({.name = "--kdf-limit",
               .value = "LIMIT",
               .help = "refuse keyslots that cost more than this to open (default 300s,4GiB)"},
              [&limit](const std::string& value) {
                limit = parse_kdf_limit(value);
                allowed_named_files().kdf_limit = limit;
              });
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

storage::OpenOptions open_options(storage::Access access, bool lock, bool direct) {
  return with_named_files(
      {.access = access, .lock = lock, .direct = direct, .cancel = &cancel_token()});
}

storage::OpenOptions with_named_files(storage::OpenOptions options) {
  const NamedFiles& named = allowed_named_files();
  options.allow_backing = named.backing;
  options.allow_data_file = named.data_file;
  options.open_encrypted = named.open_encrypted;
  return options;
}

std::shared_ptr<Device> open_device(const std::string& path, storage::Access access, bool direct) {
  return storage::open_location(path, open_options(access, true, direct));
}

std::shared_ptr<Device> open_to_look(const std::string& path) {
  return storage::open_location(path, open_options(storage::Access::kRead, false));
}

std::shared_ptr<Device> open_header_device(const std::string& path, storage::Access access,
                                           bool live) {
  storage::OpenOptions options = open_options(access);
  // What is locked whole the kernel keeps from whoever mounts or maps it.
  std::error_code error;
  const bool whole =
      std::filesystem::is_block_file(path, error) && (!live || !is_volume_in_use(path));
  if (!whole) options.lock_length_bytes = kHeaderLockBytes;
  return storage::open_location(path, options);
}

luks::HeaderFile open_header_unjudged(const VolumeArgs& args) {
  return luks::HeaderFile::open(open_header_device(args.header_path(), storage::Access::kRead));
}

luks::HeaderFile open_header(const VolumeArgs& args) {
  luks::HeaderFile file = open_header_unjudged(args);
  args.policy.enforce(file);
  return file;
}

luks::HeaderFile open_header_unlocked(const VolumeArgs& args) {
  luks::HeaderFile file = luks::HeaderFile::open(open_to_look(args.header_path()));
  args.policy.enforce(file);
  return file;
}

luks::HeaderFile open_header_for_change(const Session& session, const VolumeArgs& args, bool live) {
  if (!session.dry_run) {
    luks::HeaderFile changing = luks::HeaderFile::open(
        open_header_device(args.header_path(), storage::Access::kReadWrite, live));
    args.policy.enforce(changing);
    if (session.keeper != nullptr) session.keeper->before(changing, args.header_path());
    return changing;
  }
  const luks::HeaderFile file = open_header_unjudged(args);
  auto copy = std::make_shared<storage::MemoryDevice>(header_and_gap(file));
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
  if (source.kind == keys::KeySource::Kind::kBinding) {
    return unlock_by_binding(file, PinContextArgs().context(session), options);
  }
  const bool prompt = source.kind == keys::KeySource::Kind::kPrompt;
  const std::string volume = file.device()->name();
  const keys::PromptRequest request{.text = fmt::format("passphrase for '{}'", volume)};
  if (source.kind == keys::KeySource::Kind::kManager) {
    return unlock_with_secret(session, file, source.path, options);
  }
  for (int attempt = 1;; ++attempt) {
    SecretBytes key = keys::read_key(source, request, terminal_prompter(session), session.cancel);
    std::optional<luks::Unlocked> unlocked = try_key(file, source, key, options);
    if (unlocked) {
      if (keys::is_volume_key(source)) key = {};
      return {.unlocked = std::move(*unlocked), .passphrase = std::move(key)};
    }
    if (!prompt || attempt == kPromptAttempts) {
      throw Error(Code::kWrongPassphrase, wrong_key(volume, source, options));
    }
    warn(wrong_key(volume, source, options));
  }
}

void remove_even_last(const Session& session, const std::string& volume, int keyslot,
                      const std::function<void(bool allow_last)>& remove) {
  try {
    remove(session.yes);
  } catch (const Error& error) {
    if (error.code() != Code::kLastKeyslot) throw;
    confirm(session,
            fmt::format("Keyslot {} is the last one that opens '{}'. Without it the data is lost.",
                        keyslot, printable(volume, 256)),
            error);
    remove(true);
  }
}

SecretBytes read_new_passphrase(const Session& session, const std::string& source,
                                const std::string& volume) {
  const keys::KeySource parsed = keys::parse_key_source(source);
  if (keys::is_volume_key(parsed)) {
    throw Error(Code::kUsage, fmt::format("'{}' is a volume key, not a passphrase for a keyslot",
                                          printable(source)));
  }
  if (parsed.kind == keys::KeySource::Kind::kBinding) {
    throw Error(Code::kUsage, "a binding is no passphrase to give to a keyslot",
                "'lukskeep bind' makes a keyslot with a binding");
  }
  const keys::PromptRequest request{
      .text = fmt::format("new passphrase for '{}'", printable(volume, 256)), .confirm = true};
  if (parsed.kind == keys::KeySource::Kind::kManager) return certain_passphrase(session, parsed);
  return keys::read_key(parsed, request, terminal_prompter(session), session.cancel);
}

}  // namespace lukskeep::cli
