// OpenStack's key manager: Barbican v1, microversions 1.0 and 1.1.
//
// Written as castellan writes, and as every writer in openstack.md does: a passphrase as text where
// that keeps its bytes, everything else in base64. Public and private keys and certificates are PEM
// for castellan to read them. A secret that is used is not removed, although Barbican would:
// consumers are looked at first. Who becomes one between the look and the removal is not seen.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "keys/key_manager.h"
#include "keys/keystone.h"
#include "keys/service.h"

namespace lukskeep::keys {

struct BarbicanSettings {
  // "https://host:9311", with or without /v1; empty: from Keystone's catalogue.
  std::string endpoint;
  // For a Barbican without Keystone: the project that is worked in. Empty: Keystone.
  std::string noauth_project;
};

// Throws Error{kUsage} for credentials that are not whole; asks nothing yet. IDs are UUIDs; a whole
// reference ("https://…/v1/secrets/UUID") is taken too, and only its UUID used.
std::unique_ptr<KeyManager> open_barbican(BarbicanSettings settings, Credentials credentials,
                                          const ServiceOptions& options);

}  // namespace lukskeep::keys
