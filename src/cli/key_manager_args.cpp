#include "cli/key_manager_args.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/archive_args.h"
#include "keys/key_source.h"
#include "storage/file_device.h"

namespace lukskeep::cli {
namespace {

namespace fs = std::filesystem;

// For root `of_root`, else `name` in the user's own folder.
std::string own_place(const char* of_root, const char* variable, const char* fallback,
                      const char* name) {
  if (geteuid() == 0) return of_root;
  const auto folder = user_folder(variable, fallback);
  if (!folder) {
    throw Error(Code::kUsage, "this user has no home directory for a keystore",
                "name a key manager with --key-manager or LUKSKEEP_KEY_MANAGER");
  }
  return (*folder / "lukskeep" / name).string();
}

std::string default_credentials() {
  try {
    return own_place("/etc/lukskeep/credentials", "XDG_CONFIG_HOME", ".config", "credentials");
  } catch (const Error&) {
    return {};
  }
}

keys::Credentials read_credentials_file(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) == 0 && (status.st_mode & 077) != 0) {
    warn(fmt::format("others may read the credentials in '{}'", printable(path, 256)));
  }
  const auto device = storage::open_file(path, {.lock = false});
  if (device->size_bytes() > limits::kCredentialsBytesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' is no file of credentials", printable(path, 256)));
  }
  SecretBytes text(device->size_bytes());
  device->read(0, text.span());
  return keys::parse_credentials(text.span(), fmt::format("'{}'", printable(path, 256)));
}

}  // namespace

keys::Credentials read_credentials() {
  if (const char* named = std::getenv("LUKSKEEP_CREDENTIALS"); named != nullptr && *named != '\0') {
    return read_credentials_file(named);
  }
  const std::string own = default_credentials();
  std::error_code error;
  if (!own.empty() && fs::exists(own, error)) return read_credentials_file(own);
  keys::Credentials credentials;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    if (!text.starts_with("OS_") && !text.starts_with("VAULT_")) continue;
    credentials.set(std::string(text.substr(0, equals)),
                    SecretBytes(as_byte_view(text.substr(equals + 1))));
  }
  return credentials;
}

bool uses_key_manager(const CommandEntry& entry, const Options& options) {
  constexpr std::array<std::string_view, 5> kKeys = {"--key", "--new-key", "--identity",
                                                     "--recipient", "--image-service"};
  // Of the backups of a Tang server's keys no key manager is told.
  if (entry.name.starts_with("tang ")) return false;
  return entry.name.starts_with("keystore ") ||
         std::ranges::any_of(options.all(), [&](const Options::Info& info) {
           return std::ranges::find(kKeys, info.name) != kKeys.end();
         });
}

bool uses_image_service(const Options& options) {
  return std::ranges::any_of(
      options.all(), [](const Options::Info& info) { return info.name == "--image-service"; });
}

void declare_key_manager(Options& options, Session& session, std::string_view insecure_name) {
  options.add({.name = "--key-manager",
               .value = "URI",
               .help = "where manager: keys are: file:PATH, barbican:[URL], vault:URL (default: "
                       "LUKSKEEP_KEY_MANAGER, or the user's own keystore)"},
              session.key_manager);
  options.flag({.name = insecure_name, .help = "do not verify the certificate of the key manager"},
               session.insecure);
}

std::string key_manager_uri(const Session& session) {
  if (!session.key_manager.empty()) return session.key_manager;
  if (const char* value = std::getenv("LUKSKEEP_KEY_MANAGER"); value != nullptr && *value != '\0') {
    return value;
  }
  return "file:" +
         own_place("/var/lib/lukskeep/keystore", "XDG_DATA_HOME", ".local/share", "keystore");
}

std::string keystore_path(const Session& session) {
  const std::string uri = key_manager_uri(session);
  const keys::KeyManagerUri parsed = keys::parse_key_manager(uri);
  if (parsed.kind == keys::KeyManagerUri::Kind::kFile) return parsed.path;
  throw Error(Code::kUsage, fmt::format("'{}' is no keystore, but a service", printable(uri, 256)),
              "--key-manager file:PATH");
}

std::string default_wrapping_key() {
  return own_place("/etc/lukskeep/keystore-key", "XDG_CONFIG_HOME", ".config", "keystore-key");
}

SecretBytes read_wrapping_key(const Session& session, const keys::WrappingInfo& info) {
  const char* other = std::getenv("LUKSKEEP_KEYSTORE_KEY");
  const bool named = other != nullptr && *other != '\0';
  return keys::read_key(keys::parse_key_source(named ? std::string_view(other) : info.source),
                        {.text = "passphrase of the keystore"}, terminal_prompter(session),
                        session.cancel);
}

std::unique_ptr<keys::KeyManager> open_key_manager(const Session& session) {
  return open_key_manager(session, key_manager_uri(session));
}

std::unique_ptr<keys::KeyManager> open_key_manager(const Session& session, const std::string& uri) {
  const keys::KeyManagerUri parsed = keys::parse_key_manager(uri);
  if (session.insecure && parsed.kind != keys::KeyManagerUri::Kind::kFile) {
    warn(
        "the certificate of the key manager is not verified; whoever answers in its "
        "place gets the credentials and every secret");
  }
  return keys::open_key_manager(
      parsed,
      {.service = {.tls = {.verify = !session.insecure, .ca_file = {}}, .cancel = session.cancel},
       .read_wrapping_key =
           [&session](const keys::WrappingInfo& info) { return read_wrapping_key(session, info); },
       .credentials = read_credentials});
}

std::vector<keys::Candidate> passphrase_candidates(const Session& session, const std::string& id) {
  const auto manager = open_key_manager(session);
  const keys::Secret secret = manager->get(id);
  return keys::passphrase_candidates(secret, manager->metadata(id));
}

SecretBytes certain_passphrase(const Session& session, const keys::KeySource& source) {
  const auto manager = open_key_manager(session);
  const keys::Secret secret = manager->get(source.path);
  return keys::certain_passphrase(secret, manager->metadata(source.path)).passphrase;
}

SecretBytes read_bytes_of(const Session& session, const keys::KeySource& source) {
  if (source.kind == keys::KeySource::Kind::kManager) {
    return open_key_manager(session)->get(source.path).payload;
  }
  return keys::read_key(source, {}, terminal_prompter(session), session.cancel);
}

}  // namespace lukskeep::cli
