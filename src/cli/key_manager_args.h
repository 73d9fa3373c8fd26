// Which key manager commands work with, and what they need to get in.
//
// --key-manager, else LUKSKEEP_KEY_MANAGER, else the user's own keystore:
// /var/lib/lukskeep/keystore for root, lukskeep/keystore below XDG_DATA_HOME for others.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "keys/credentials.h"
#include "keys/key_manager.h"
#include "keys/open_key_manager.h"
#include "keys/passphrase_resolver.h"

namespace lukskeep::cli {

// Whether `entry`, which has declared `options`, takes keys or works on secrets.
bool uses_key_manager(const CommandEntry& entry, const Options& options);
// Whether it talks to Glance: then --insecure is about all services.
bool uses_image_service(const Options& options);
// --key-manager and --insecure.
void declare_key_manager(Options& options, Session& session, std::string_view insecure_name);

// As the URI that is named. Throws Error{kUsage} for a user without a home directory.
std::string key_manager_uri(const Session& session);
// Where keystore init puts a keystore. Throws Error{kUsage} if the URI names another kind.
std::string keystore_path(const Session& session);
// Where it puts a wrapping key of its own: /etc/lukskeep/keystore-key for root.
std::string default_wrapping_key();

// Warns if --insecure is given. `uri` may name another than the session's.
std::unique_ptr<keys::KeyManager> open_key_manager(const Session& session);
std::unique_ptr<keys::KeyManager> open_key_manager(const Session& session, const std::string& uri);

// A file that LUKSKEEP_CREDENTIALS names, or the user's own, or what the tools of OpenStack and
// Vault find in the environment.
keys::Credentials read_credentials();

// Reads the wrapping key of a keystore from where the file says, or LUKSKEEP_KEYSTORE_KEY.
SecretBytes read_wrapping_key(const Session& session, const keys::WrappingInfo& info);

std::vector<keys::Candidate> passphrase_candidates(const Session& session, const std::string& id);
SecretBytes certain_passphrase(const Session& session, const keys::KeySource& source);
// A file's, descriptor's or secret's bytes as they are: for what is no passphrase.
SecretBytes read_bytes_of(const Session& session, const keys::KeySource& source);

}  // namespace lukskeep::cli
