// Where secrets live: one interface for a file, Barbican and Vault.
//
// A KeyManager belongs to one thread at a time; several objects, also of other processes, may work
// on the same place. Every wait ends by itself (limits::kKeyManagerWaitSeconds at most for one call
// to a service, ten seconds for another process) and when the token that the object was made with
// is cancelled. All functions throw Error: kNotFound (no such secret), kPermissionDenied, kRemote
// and kTimeout (a service failed), kInterrupted, kDamaged (a record that was tampered with),
// kInvalidArgument (what the place cannot hold), kIo, kNoSpace, kBusy. A function that throws has
// changed nothing, or its message names what is left.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::keys {

// As Barbican and castellan tell them apart.
enum class SecretType : std::uint8_t {
  kSymmetric,   // bytes of a key; who uses it as a passphrase writes it in hex
  kPassphrase,  // text
  kOpaque,      // bytes of no known kind
  kPublic,      // these three in PEM
  kPrivate,
  kCertificate,
};
// "symmetric", "passphrase" …
std::string_view secret_type_name(SecretType type) noexcept;
// Throws Error{kUsage}.
SecretType parse_secret_type(std::string_view text);

// Words about a secret that its owner may change: names of letters, digits, '-' and '_', which
// Barbican turns into lower case, so all of them do.
using Metadata = std::map<std::string, std::string>;
// Throws Error{kInvalidArgument} for a name or size that not every key manager takes.
void check_metadata(const Metadata& metadata);

// Who uses a secret, as Barbican has it: "image", "image", an ID.
struct Consumer {
  std::string service;
  std::string resource_type;
  std::string resource_id;

  auto operator<=>(const Consumer&) const = default;
};
// "SERVICE/TYPE/ID"; the ID may have slashes. Throws Error{kUsage}.
Consumer parse_consumer(std::string_view text);
std::string to_string(const Consumer& consumer);

// What is known of a secret without its bytes. Text is as the place has it: printable() it.
struct SecretInfo {
  std::string id;  // given by the place
  std::string name;
  SecretType type = SecretType::kOpaque;
  std::string algorithm;  // "aes", "AES"; empty: not said
  std::optional<std::uint32_t> bit_length;
  std::string mode;
  std::string content_type = "application/octet-stream";  // or "text/plain"
  std::optional<std::int64_t> expires_s;                  // seconds since 1970
  std::int64_t created_s = 0;
};

struct Secret {
  SecretInfo info;
  SecretBytes payload;
};

// Who may read a secret beside its owner (Barbican).
struct AccessList {
  bool project_access = true;  // everybody in the owner's project who has a role for it
  std::vector<std::string> users;
};

// What a service is asked to make.
struct Order {
  std::string name;
  std::string algorithm = "aes";
  std::uint32_t bit_length = 256;
  std::string mode;
  std::optional<std::int64_t> expires_s;
};

class KeyManager {
 public:
  virtual ~KeyManager() = default;
  KeyManager(const KeyManager&) = delete;
  KeyManager& operator=(const KeyManager&) = delete;

  // "the keystore '/x'", "the Barbican 'http://…'": fit for messages.
  virtual std::string description() const = 0;

  // Gives the new secret's ID; `info.id` and `info.created_s` are not looked at. What fails
  // half-way is undone; where that fails too the message names what is left.
  virtual std::string store(const SecretInfo& info, ByteView payload, const Metadata& metadata) = 0;
  // A symmetric key that the place makes; its bytes do not travel.
  virtual std::string order(const Order& order) = 0;

  virtual std::optional<SecretInfo> find(const std::string& id) = 0;
  virtual Secret get(const std::string& id) = 0;
  // In the order of their creation where the place knows it; an empty name means all. At most
  // limits::kSecretsMax.
  virtual std::vector<SecretInfo> list(const std::string& name = {}) = 0;

  virtual Metadata metadata(const std::string& id) = 0;
  // Replaces all of it.
  virtual void set_metadata(const std::string& id, const Metadata& metadata) = 0;

  virtual std::vector<Consumer> consumers(const std::string& id) = 0;
  // Naming one twice, or removing one that is not there, is no error.
  virtual void add_consumer(const std::string& id, const Consumer& consumer) = 0;
  virtual void remove_consumer(const std::string& id, const Consumer& consumer) = 0;

  // Throws Error{kUnsafe} naming the consumers while there are any, also where the place itself
  // would not mind, unless `used_too`.
  virtual void remove(const std::string& id, bool used_too = false) = 0;

  // Throw Error{kUnsupported} where the place has none.
  virtual AccessList access(const std::string& id);
  virtual void set_access(const std::string& id, const AccessList& access);

 protected:
  KeyManager() = default;
  // The refusal of remove().
  static void refuse_used(const std::string& id, const std::vector<Consumer>& consumers);
};

// Throws Error{kInvalidArgument} for a payload that is empty or above limits::kSecretBytesMax, or a
// description that not every key manager takes.
void check_new_secret(const SecretInfo& info, ByteView payload, const Metadata& metadata);

// "2026-03-01T12:00:00Z", and back: a fraction and an absent Z (UTC then) are accepted; absent if
// it is no time.
std::string time_text(std::int64_t seconds);
std::optional<std::int64_t> parse_time(std::string_view text);

}  // namespace lukskeep::keys
