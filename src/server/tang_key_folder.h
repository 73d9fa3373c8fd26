// The folder where a Tang server has its keys, as tangd has it: NAME.jwk is advertised, .NAME.jwk
// is hidden (it still answers, but nobody is told of it), anything else is not a key.
//
// Writers exclude each other with a lock on the folder, and readers of ours wait for them. A key
// appears under its name only when it is whole and durable; a change that is cut off leaves a
// folder that serves.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/secret_bytes.h>

#include "nbde/jwk.h"
#include "nbde/jws.h"

namespace lukskeep::server {

struct TangKeyFile {
  std::string name;  // in the folder
  bool hidden = false;
  nbde::EcKey key;
  std::string thumbprint;      // SHA-256
  std::int64_t changed_s = 0;  // when the file was written, seconds since 1970
};

struct TangKeyFiles {
  std::vector<TangKeyFile> keys;      // sorted by name, hidden or not
  std::vector<std::string> problems;  // files that should be keys and are none
};

// Whether it is for signatures (and can make them), or for exchanges.
bool is_signing_key(const nbde::EcKey& key);
bool is_exchange_key(const nbde::EcKey& key);

// SHA-256 over thumbprints and states of all keys: the same on servers that hold the same keys.
std::string key_set_fingerprint(const std::vector<TangKeyFile>& keys);

// The key that `thumbprint` names: by any hash, or by the start of the SHA-256 one, at least 6
// characters. Throws Error: kNotFound, kInvalidArgument (several start so).
const TangKeyFile& find_key_file(const std::vector<TangKeyFile>& keys, std::string_view thumbprint);

class TangKeyFolder {
 public:
  explicit TangKeyFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const noexcept { return path_; }

  // At most limits::kTangKeysMax. Waits for a writer, up to a few seconds. Throws Error: kNotFound,
  // kPermissionDenied, kBusy, kIo.
  TangKeyFiles read() const;

  // A new signing and a new exchange key, mode 0440; makes the folder if it is not there. Returns
  // their thumbprints. If `only_if_empty`, nothing where there is a key that is advertised; but if
  // only exchange keys are, as a first start that was cut off leaves it, the signing key.
  std::vector<std::string> generate(nbde::Curve curve, bool only_if_empty = false) const;

  struct Rotation {
    std::vector<std::string> made;
    std::vector<std::string> hidden;
  };
  // Generates, then hides what was advertised before.
  Rotation rotate(nbde::Curve curve) const;

  // Throws Error as find_key_file. False if it was so already.
  bool set_hidden(std::string_view thumbprint, bool hidden) const;
  // The file is overwritten first, for what that is worth.
  void remove(std::string_view thumbprint) const;

  // Writes a key with exactly these bytes under `name`. False if the same key is there under the
  // same state already. The caller has checked `name`. Throws Error{kExists} if another key has it.
  bool put(const std::string& name, ByteView text) const;

 private:
  std::string path_;
};

// Whether `name` is one that a key may have: no path, ends with ".jwk", printable.
bool is_key_file_name(std::string_view name);

}  // namespace lukskeep::server
