// Making new volumes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <lukskeep/device.h>
#include <lukskeep/header.h>
#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "storage/memory_device.h"

namespace lukskeep::luks {

// Defaults are cryptsetup's (2.6). Sizes of 0 mean "the default for this version".
struct CreateOptions {
  Version version = Version::kLuks2;
  std::string cipher = "aes-xts-plain64";
  std::uint32_t key_size_bytes = 0;       // 0: the largest up to 64 for xts, up to 32 otherwise
  std::string hash = "sha256";            // AF, digest, and PBKDF2 of LUKS1
  std::uint32_t sector_size_bytes = 0;    // 0: 4096 for LUKS2, 512 for LUKS1
  std::uint64_t metadata_size_bytes = 0;  // LUKS2; 0: 16 KiB
  std::uint64_t keyslots_size_bytes = 0;  // LUKS2; 0: what is left of 16 MiB, or before the payload
  std::optional<std::uint64_t> payload_offset_bytes;  // absent: behind the header; detached: 0
  bool detached = false;
  std::string uuid;                     // empty: random
  std::string label;                    // LUKS2
  std::string subsystem;                // LUKS2
  SecretBytes volume_key;               // empty: random
  std::uint32_t digest_iterations = 0;  // 0: calibrated to 125 ms, at least 1000
  bool allow_insecure = false;
  const CancelToken* cancel = nullptr;
};

// A validated header without keyslots (model only, nothing written), and its volume key.
struct NewHeader {
  Header header;
  SecretBytes volume_key;
};
// Throws Error: kInvalidArgument, kUnsupported, kUnsafe, each naming what is wrong.
NewHeader make_header(const CreateOptions& options);

// Bytes that `header` needs before an attached payload (its offset), or as a detached header.
std::uint64_t header_device_bytes(const Header& header);

// Writes the header with one keyslot to `device`, whose old contents are lost: LUKS headers and
// keyslot areas that it held are overwritten. Throws kTooSmall before it writes anything.
HeaderFile create_volume(std::shared_ptr<Device> device, const NewHeader& fresh,
                         ByteView passphrase, const NewKeyslot& keyslot,
                         const CancelToken* cancel = nullptr);

// The same in two steps, for a device on which the payload is to be written before anybody can take
// it for a volume: first the place of the header is zeroed, at last the header is written.
class PendingHeader {
 public:
  // As create_volume, in memory: finds everything that is wrong before the payload is written.
  PendingHeader(std::shared_ptr<Device> device, const NewHeader& fresh, ByteView passphrase,
                const NewKeyslot& keyslot, const CancelToken* cancel = nullptr);
  // Durable when it returns.
  void write();

 private:
  std::shared_ptr<Device> device_;
  std::shared_ptr<storage::MemoryDevice> memory_;
};

}  // namespace lukskeep::luks
