// Which key manager, as one URI:
//
//   file:PATH                         a keystore
//   barbican:                         the Barbican of the Keystone catalogue
//   barbican:http[s]://HOST[:PORT][?project=ID]   this one; with a project: without Keystone
//   (noauth) vault:http[s]://HOST[:PORT]/MOUNT[?kv=1|2][&layout=castellan|vaultlocker]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "keys/barbican.h"
#include "keys/file_key_manager.h"
#include "keys/vault.h"

namespace lukskeep::keys {

struct KeyManagerUri {
  enum class Kind : std::uint8_t { kFile, kBarbican, kVault };
  Kind kind = Kind::kFile;
  std::string path;  // of a keystore
  BarbicanSettings barbican;
  VaultSettings vault;
};

// Throws Error{kUsage}.
KeyManagerUri parse_key_manager(std::string_view uri);

struct OpenOptions {
  ServiceOptions service;
  ReadWrappingKey read_wrapping_key;
  // Called only where a service needs them.
  std::function<Credentials()> credentials;
};

// OS_CACERT and VAULT_CACERT name the authority where `options` name none. Throws what the kinds
// throw.
std::unique_ptr<KeyManager> open_key_manager(const KeyManagerUri& uri, const OpenOptions& options);

}  // namespace lukskeep::keys
