// Making new volumes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <lukskeep/device.h>
#include <lukskeep/header.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"

namespace lukskeep::luks {

// Defaults are cryptsetup's (2.6): aes-xts-plain64, 512 bits for both versions (LUKS1 and LUKS2),
// sha256, argon2id for LUKS2. Sizes of 0 mean "the default for this version".
struct CreateOptions {
  Version version = Version::kLuks2;
  std::string cipher = "aes-xts-plain64";
  std::uint32_t key_size_bytes = 0;          // 0: 64 for xts, 32 otherwise (cast5: 16)
  std::string hash = "sha256";               // AF, digest, PBKDF2
  std::uint32_t sector_size_bytes = 0;       // 0: 4096 for LUKS2, 512 for LUKS1
  std::uint64_t metadata_size_bytes = 0;     // LUKS2; 0: 16 KiB
  std::uint64_t keyslots_size_bytes = 0;     // LUKS2; 0: what is left of 16 MiB, as cryptsetup
  std::optional<std::uint64_t> payload_offset_bytes;  // absent: behind the header; detached: 0
  bool detached = false;
  std::string uuid;                          // empty: random
  std::string label;
  std::string subsystem;
  SecretBytes volume_key;                    // empty: random
  std::uint32_t digest_iterations = 0;       // 0: calibrated (125 ms), at least 1000
  bool allow_insecure = false;
  const CancelToken* cancel = nullptr;
};

// A validated header without keyslots (model only, nothing written), and its volume key.
struct NewHeader {
  Header header;
  SecretBytes volume_key;
};
// Throws Error: kInvalidArgument, kUnsupported, kUnsafe, each naming the option.
NewHeader make_header(const CreateOptions& options);

// Bytes that `header` needs before an attached payload, or as a detached header file.
std::uint64_t header_device_bytes(const Header& header);

// Writes a new header with one keyslot to `device`, which is large enough.
HeaderFile create_volume(std::shared_ptr<Device> device, NewHeader& fresh, ByteView passphrase,
                         const NewKeyslot& keyslot, const CancelToken* cancel = nullptr);

}  // namespace lukskeep::luks
