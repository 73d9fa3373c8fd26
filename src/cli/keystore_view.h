// What the keystore commands show of secrets.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "keys/key_manager.h"

namespace lukskeep::cli {

OrderedJson secret_json(const keys::SecretInfo& info);
OrderedJson consumer_json(const keys::Consumer& consumer);
OrderedJson consumers_json(const std::vector<keys::Consumer>& consumers);
// One line: ID, type, time, name.
std::string secret_line(const keys::SecretInfo& info);
// "passphrase secret 'db-disk' (ID)".
std::string secret_words(const keys::SecretInfo& info);

}  // namespace lukskeep::cli
