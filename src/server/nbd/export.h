// One volume that the NBD plugin serves: what was asked for, and its way to a Device.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <lukskeep/device.h>
#include <lukskeep/header.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "keys/key_source.h"

namespace lukskeep::server {

// What a client's requests to give storage back lead to.
enum class Discard : std::uint8_t {
  kOff,     // nothing; zeroes are encrypted like other data
  kOn,      // trimmed sectors are given back and then read as anything; zeroes as with kOff
  kZeroes,  // sectors stored as zeroes read as zeroes: trimmed and zeroed ones become such, and
            // show in the map. Other programs read noise there.
};

struct ExportSettings {
  std::string name;         // as clients ask for it; may be empty
  std::string path;         // of the volume, or with a header of its payload
  std::string header_path;  // empty: attached
  keys::KeySource key;
  bool is_volume_key = false;  // what `key` gives
  bool close_key_fd = false;   // once it was read
  bool read_only = false;
  bool allow_insecure = false;
  Discard discard = Discard::kOff;
};

// Opens the payload at `path` as an Export does. Throws what storage::open_location throws.
std::shared_ptr<Device> open_payload(const std::string& path, bool read_only,
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
  // The volume key; empty once it was taken. Secret memory does not outlive a fork, so the plugin
  // hands it over.
  SecretBytes take_volume_key() noexcept { return std::move(volume_key_); }
  // The plain contents, for any number of threads and any requests. Connects anew to a payload that
  // a server has; throws what open_payload throws.
  void activate(ByteView volume_key);
  // After activate.
  Device& device() const noexcept { return *plain_; }

 private:
  std::unique_ptr<Device> make_plain(ByteView volume_key) const;

  ExportSettings settings_;
  luks::Header header_;
  std::shared_ptr<Device> payload_;  // null until activate() if it is reached by threads
  SecretBytes volume_key_;
  std::unique_ptr<Device> plain_;
};

}  // namespace lukskeep::server
