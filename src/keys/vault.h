// HashiCorp's Vault (and OpenBao): the key-value engine, versions 1 and 2, in the layouts of
// castellan's driver and of vaultlocker. Written to the API's documentation
// (developer.hashicorp.com/vault/api-docs/secret/kv) and to what castellan 4.0 sends.
//
// Neither layout has consumers or metadata: they are kept in members of the record that both leave
// alone. With version 2 a record changes by check-and-set, so nobody's change is lost; version 1
// has nothing like that, and two who add consumers at the same moment may lose one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "keys/credentials.h"
#include "keys/key_manager.h"
#include "keys/service.h"

namespace lukskeep::keys {

enum class VaultLayout : std::uint8_t {
  kCastellan,    // MOUNT/ID, an ID being 32 hex digits
  kVaultlocker,  // MOUNT/HOST/UUID with the member dmcrypt_key; IDs are "HOST/UUID"
};

struct VaultSettings {
  std::string address;  // "https://host:8200"
  std::string mount;    // "secret", "charm-vaultlocker"
  unsigned version = 2;
  VaultLayout layout = VaultLayout::kCastellan;
};

// With VAULT_TOKEN, or VAULT_ROLE_ID and (if the role wants one) VAULT_SECRET_ID; VAULT_NAMESPACE.
// Throws Error{kUsage} for credentials that are not whole; asks nothing yet.
std::unique_ptr<KeyManager> open_vault(VaultSettings settings, Credentials credentials,
                                       const ServiceOptions& options);

}  // namespace lukskeep::keys
