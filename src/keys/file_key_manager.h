// Secrets in one SQLite file, sealed.
//
// A random master key seals the records, each with a key of its own that is derived from the
// record's ID, and bound to the ID and to all that is said of it: a record that is changed, or put
// in the place of another, does not open. The master key is sealed with a wrapping key, which is
// derived from the bytes of a key (a file, the kernel's keyring) or with Argon2id from a
// passphrase. What the file tells without a key: IDs, names, types, metadata, consumers and sizes.
// docs/format/keystore.md has the bytes.
//
// Every change is one transaction that is durable when the call returns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <lukskeep/progress.h>

#include "crypto/kdf.h"
#include "keys/key_manager.h"

namespace lukskeep::keys {

// Where the wrapping key comes from.
struct WrappingKey {
  // A URI of keys/key_source.h, which the file keeps, so that nobody has to name it again.
  std::string source;
  SecretBytes bytes;
  // Set: `bytes` are a passphrase, and this is what guessing it costs. Absent: a key of at least
  // limits::kWrappingKeyBytesMin bytes.
  std::optional<crypto::KdfCost> cost;
};

// What the file says of its wrapping key before it is opened.
struct WrappingInfo {
  std::string source;
  bool passphrase = false;
};

// Gives the bytes of the wrapping key.
using ReadWrappingKey = std::function<SecretBytes(const WrappingInfo&)>;

class FileKeyManager final : public KeyManager {
 public:
  // Mode 0600. Throws Error: kExists, kInvalidArgument (a wrapping key that is too short), what
  // crypto::derive throws, and errors of the system.
  static void create(const std::string& path, const WrappingKey& key, const CancelToken* cancel);

  // Throws Error: kNotFound, kWrongPassphrase, kUnsafe (others may read the file, or it belongs to
  // another user), kKdfLimit, kDamaged, kUnsupported (a newer format). `cancel` may be null.
  FileKeyManager(const std::string& path, const ReadWrappingKey& read_key,
                 const CancelToken* cancel);
  ~FileKeyManager() override;

  std::string description() const override;
  std::string store(const SecretInfo& info, ByteView payload, const Metadata& metadata) override;
  std::string order(const Order& order) override;
  std::optional<SecretInfo> find(const std::string& id) override;
  Secret get(const std::string& id) override;
  std::vector<SecretInfo> list(const std::string& name) override;
  Metadata metadata(const std::string& id) override;
  void set_metadata(const std::string& id, const Metadata& metadata) override;
  std::vector<Consumer> consumers(const std::string& id) override;
  void add_consumer(const std::string& id, const Consumer& consumer) override;
  void remove_consumer(const std::string& id, const Consumer& consumer) override;
  void remove(const std::string& id, bool used_too) override;

  // A new master key under `key`: every record is sealed anew, in one transaction, so that old
  // copies of the file and the old key open nothing that is stored from now on. Gives their number.
  std::size_t rewrap(const WrappingKey& key);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lukskeep::keys
