// A LUKS volume for programs: open its header, unlock it, use its contents, change its keys.
//
//   auto volume = lukskeep::Volume::open({.path = "disk.luks"});
//   if (volume.unlock(passphrase)) {
//     auto plain = volume.activate(lukskeep::Access::kRead);
//     plain->read(0, buffer);
//   }
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/export.h>
#include <lukskeep/header.h>
#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

namespace lukskeep {

// Where a volume is. The header stands at the start of `path`, or of `header_path` if that is set.
struct VolumeLocation {
  std::string path;         // a file, a block device, or a URI as in lukskeep(1)
  std::string header_path;  // detached header
  Access access = Access::kRead;
};

struct UnlockRequest {
  std::optional<int> keyslot;   // only this one
  bool allow_insecure = false;  // accept keyslots and segments that encrypt nothing
  std::uint32_t kdf_seconds_max = 300;
  const CancelToken* cancel = nullptr;
};

// Errors are thrown as lukskeep::Error; each call says which codes matter to a caller. Everything
// throws kIo. A Volume is used by one thread at a time; the Devices it gives are not so limited.
class LUKSKEEP_API Volume {
 public:
  // Reads and validates the header; writes nothing. Throws kNotFound, kPermissionDenied, kBusy
  // (somebody else writes to it), kNotLuks, kDamaged.
  static Volume open(const VolumeLocation& location);
  // The same on devices of the caller's. `payload` may be `header`.
  static Volume open(std::shared_ptr<Device> header, std::shared_ptr<Device> payload);

  Volume(Volume&&) noexcept;
  Volume& operator=(Volume&&) noexcept;
  ~Volume();

  const luks::Header& header() const noexcept;
  // One sentence for each thing that is wrong with a header that is readable all the same.
  const std::vector<std::string>& problems() const noexcept;
  std::uint64_t payload_size_bytes() const;

  // Whether the passphrase opens a keyslot; the volume key is then kept in this object, and the
  // keyslot's number returned. Throws kKdfLimit, kUnsafe, kUnsupported, kInterrupted.
  std::optional<int> unlock(std::span<const std::byte> passphrase,
                            const UnlockRequest& request = {});
  bool unlocked() const noexcept;

  // The plain contents; the volume must be unlocked (kInvalidArgument). The Device stays usable
  // when the Volume is gone. Throws kUnsupported (requirements, integrity), kTooSmall, and kUnsafe
  // (not encrypted; or writing would hit a header on the same device).
  std::unique_ptr<Device> activate(Access access) const;

  // A new keyslot for `passphrase` at the costs of cryptsetup's defaults, measured on this machine
  // for `iteration_time_ms`; returns its number. The volume must be unlocked and writable. Throws
  // kNoFreeKeyslot, kConflict, kReadOnly.
  int add_passphrase(std::span<const std::byte> passphrase, std::uint32_t iteration_time_ms = 2000);
  // Throws kNotFound, and kLastKeyslot unless `allow_last`.
  void remove_keyslot(int keyslot, bool allow_last = false);

  // The header's bytes as `cryptsetup luksHeaderBackup` writes them.
  std::vector<std::byte> backup_header() const;

 private:
  struct State;
  explicit Volume(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace lukskeep
