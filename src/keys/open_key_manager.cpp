#include "keys/open_key_manager.h"

#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::keys {
namespace {

constexpr std::string_view kHint =
    "file:PATH, barbican:, barbican:https://HOST:9311 or vault:https://HOST:8200/MOUNT";

[[noreturn]] void bad(std::string_view uri, std::string_view problem) {
  throw Error(Code::kUsage, fmt::format("key manager '{}': {}", printable(uri, 256), problem),
              std::string(kHint));
}

bool is_http(std::string_view url) {
  return url.starts_with("http://") || url.starts_with("https://");
}

// Takes "?a=b&c=d" off the end of `url`, calling `use` with each pair.
template <typename Use>
void take_query(std::string_view& url, std::string_view uri, const Use& use) {
  const std::size_t mark = url.find('?');
  if (mark == std::string_view::npos) return;
  std::string_view query = url.substr(mark + 1);
  url = url.substr(0, mark);
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const std::size_t equals = pair.find('=');
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1);
    if (!use(pair.substr(0, equals), value)) {
      bad(uri, fmt::format("'{}' is nothing that it takes", printable(pair)));
    }
  }
}

bool is_header_text(std::string_view text) {
  return !text.empty() && text.size() <= 255 &&
         text.find_first_of(std::string_view("\r\n\0 ", 4)) == std::string_view::npos;
}

BarbicanSettings parse_barbican(std::string_view rest, std::string_view uri) {
  BarbicanSettings settings;
  take_query(rest, uri, [&](std::string_view name, std::string_view value) {
    settings.noauth_project = value;
    return name == "project" && is_header_text(value);
  });
  if (!rest.empty() && !is_http(rest)) bad(uri, "an address starts with http:// or https://");
  if (rest.empty() && !settings.noauth_project.empty())
    bad(uri, "without Keystone it needs an address");
  settings.endpoint = rest;
  return settings;
}

VaultSettings parse_vault(std::string_view rest, std::string_view uri) {
  VaultSettings settings;
  take_query(rest, uri, [&](std::string_view name, std::string_view value) {
    if (name == "kv" && (value == "1" || value == "2")) {
      settings.version = value == "1" ? 1 : 2;
      return true;
    }
    if (name == "layout" && (value == "castellan" || value == "vaultlocker")) {
      settings.layout = value == "castellan" ? VaultLayout::kCastellan : VaultLayout::kVaultlocker;
      return true;
    }
    return false;
  });
  if (!is_http(rest)) bad(uri, "an address starts with http:// or https://");
  const std::size_t slash = rest.find('/', rest.find("://") + 3);
  if (slash == std::string_view::npos || slash + 1 == rest.size()) {
    bad(uri, "it names no mount");
  }
  settings.address = rest.substr(0, slash);
  settings.mount = rest.substr(slash + 1);
  return settings;
}

}  // namespace

KeyManagerUri parse_key_manager(std::string_view uri) {
  const std::size_t colon = uri.find(':');
  if (colon == std::string_view::npos) bad(uri, "it has no scheme");
  const std::string_view scheme = uri.substr(0, colon);
  const std::string_view rest = uri.substr(colon + 1);
  KeyManagerUri parsed;
  if (scheme == "file") {
    if (rest.empty() || rest.find('\0') != std::string_view::npos) bad(uri, "it names no file");
    parsed.path = rest;
  } else if (scheme == "barbican") {
    parsed.kind = KeyManagerUri::Kind::kBarbican;
    parsed.barbican = parse_barbican(rest, uri);
  } else if (scheme == "vault") {
    parsed.kind = KeyManagerUri::Kind::kVault;
    parsed.vault = parse_vault(rest, uri);
  } else {
    bad(uri, fmt::format("unknown kind '{}'", printable(scheme)));
  }
  return parsed;
}

std::unique_ptr<KeyManager> open_key_manager(const KeyManagerUri& uri, const OpenOptions& options) {
  if (uri.kind == KeyManagerUri::Kind::kFile) {
    return std::make_unique<FileKeyManager>(uri.path, options.read_wrapping_key,
                                            options.service.cancel);
  }
  const bool barbican = uri.kind == KeyManagerUri::Kind::kBarbican;
  const bool open_to_all = barbican && !uri.barbican.noauth_project.empty();
  Credentials credentials = open_to_all ? Credentials() : options.credentials();
  ServiceOptions service = options.service;
  if (service.tls.ca_file.empty()) {
    service.tls.ca_file = credentials.text(barbican ? "OS_CACERT" : "VAULT_CACERT");
  }
  if (barbican) return open_barbican(uri.barbican, std::move(credentials), service);
  return open_vault(uri.vault, std::move(credentials), service);
}

}  // namespace lukskeep::keys
