// What a service wants to see before it lets somebody in: names and values, as files of OpenStack
// ("openrc") and Vault's tools name them.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::keys {

class Credentials {
 public:
  void set(std::string name, SecretBytes value);
  // Null if it is absent or empty.
  const SecretBytes* find(std::string_view name) const;
  // For what is no secret; empty if it is absent.
  std::string text(std::string_view name) const;
  // Throws Error{kUsage} that says what is missing.
  const SecretBytes& need(std::string_view name) const;

 private:
  std::map<std::string, SecretBytes, std::less<>> values_;
};

// Lines NAME=VALUE, with or without `export`, quoted or not; names that start with neither OS_ nor
// VAULT_, and other lines, are nothing to us. Nothing is expanded: throws Error{kInvalidArgument},
// naming `what` and the line, for a value with shell code, which it never quotes.
Credentials parse_credentials(ByteView text, std::string_view what);

}  // namespace lukskeep::keys
