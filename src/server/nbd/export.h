// One volume that the NBD plugin serves: what was asked for, and its way to a Device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/header.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "keys/key_source.h"
#include "storage/location.h"

namespace lukskeep::server {

// What a client's requests to give storage back lead to.
enum class Discard : std::uint8_t {
  kOff,     // nothing; zeroes are encrypted like other data
  kOn,      // trimmed sectors are given back and then read as anything; zeroes as with kOff
  kZeroes,  // sectors stored as zeroes read as zeroes: trimmed and zeroed ones become such, and
            // show in the map. Other programs read noise there.
};

// Where a key comes from, and what it gives.
struct ExportKey {
  keys::KeySource source;
  bool is_volume_key = false;
  bool close_fd = false;  // once it was read
};

struct ExportSettings {
  std::string name;         // as clients ask for it; may be empty
  std::string path;         // of the volume, or with a header of its payload
  std::string header_path;  // empty: attached
  ExportKey key;
  bool read_only = false;
  bool allow_insecure = false;
  Discard discard = Discard::kOff;
  // As storage::OpenOptions; the keys are those of encrypted backing files, from the top, the last
  // one that of all further ones.
  bool allow_backing = false;
  bool allow_data_file = false;
  std::vector<ExportKey> backing_keys;
};

// Opens the payload at `path` as an Export does: `options` say who may read and write, and which
// files that an image names. Throws what storage::open_location throws.
std::shared_ptr<Device> open_payload(const std::string& path, storage::OpenOptions options,
                                     const luks::Header& header);

// Opened, locked and with its key found: all that can fail has been tried. From then on nothing is
// read from the header, so others may change it.
class Export {
 public:
  // A writable volume is locked from its payload on against everybody else, a read-only one against
  // writers. `prompter` may be empty if no key is asked for. Throws what storage::open_file,
  // luks::HeaderFile::open, luks::unlock and luks::make_crypt_device throw; kWrongPassphrase.
  Export(ExportSettings settings, const keys::Prompter& prompter);

  const ExportSettings& settings() const noexcept { return settings_; }
  // The volume key, and behind it those of encrypted backing files; none once they were taken. At
  // most limits::kQcow2ChainMax. Secret memory does not outlive a fork, so the plugin hands them
  // over.
  std::vector<SecretBytes> take_volume_keys() noexcept { return std::move(volume_keys_); }
  // The plain contents, for any number of threads and any requests. Connects anew to a payload that
  // a server has, and opens one anew that has encrypted backing files; throws what open_payload
  // throws.
  void activate(const std::vector<SecretBytes>& volume_keys);
  // After activate.
  Device& device() const noexcept { return *plain_; }

 private:
  storage::OpenOptions open_options(storage::OpenEncrypted open_encrypted) const;
  std::unique_ptr<Device> make_plain(ByteView volume_key) const;

  ExportSettings settings_;
  luks::Header header_;
  // Null until activate() if it is reached by threads, or has secrets of its own.
  std::shared_ptr<Device> payload_;
  std::vector<SecretBytes> volume_keys_;
  std::unique_ptr<Device> plain_;
};

}  // namespace lukskeep::server
