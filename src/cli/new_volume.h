// What `create` and `encrypt` have in common: the options of a new volume, and making its header.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <lukskeep/secret_bytes.h>

#include "base/json.h"
#include "cli/kdf_args.h"
#include "cli/options.h"
#include "cli/session.h"
#include "luks/create.h"
#include "luks/keyslots.h"

namespace lukskeep::cli {

struct NewVolumeArgs {
  std::string type = "luks2";
  std::string cipher = "aes-xts-plain64";
  std::optional<std::uint32_t> key_bits;
  std::optional<std::uint64_t> sector_size_bytes;
  std::optional<std::uint64_t> metadata_size_bytes;
  std::optional<std::uint64_t> keyslots_size_bytes;
  std::optional<std::uint64_t> payload_offset_bytes;
  std::string label;
  std::string subsystem;
  std::string uuid;
  std::string header;
  std::string key = "prompt:";
  std::string volume_key;
  // Instead of what `key` and `volume_key` name, if not empty.
  SecretBytes known_passphrase;
  SecretBytes known_volume_key;
  bool allow_insecure = false;
  KdfArgs kdf;

  void declare(Options& options);
};

// A header and all that its first keyslot needs: nothing is on storage yet.
struct NewVolume {
  luks::NewHeader fresh;
  SecretBytes passphrase;
  luks::NewKeyslot keyslot;

  std::uint64_t payload_offset_bytes() const;
  // Sizes of the devices: the header's, which is the volume's own unless it is detached.
  std::uint64_t header_bytes() const;
  std::uint32_t sector_size_bytes() const;
};

// The sector size of a payload of `payload_bytes` if no option says: 4096 where the payload is
// whole sectors of that, else 512. LUKS1 knows only 512. Absent size: not known before it is
// written.
std::uint32_t choose_sector_size(const NewVolumeArgs& args,
                                 std::optional<std::uint64_t> payload_bytes);

// Checks all options, reads the keys, measures the KDF. `name` is for prompts and messages.
NewVolume prepare_new_volume(const Session& session, const NewVolumeArgs& args,
                             std::uint32_t sector_size_bytes, const std::string& name);

// "LUKS2, aes-xts-plain64 with a 512-bit key, 4096-byte sectors, UUID …".
std::string describe(const NewVolume& volume);

// "created"-style results of both commands.
OrderedJson new_volume_json(const NewVolumeArgs& args, const NewVolume& volume,
                            const std::string& name, std::uint64_t payload_bytes);

}  // namespace lukskeep::cli
