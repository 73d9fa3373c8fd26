// Plain copies of a header in the format of `cryptsetup luksHeaderBackup`: the header's bytes as
// they stand, from the start of the device to the end of the keyslots area.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/header.h>

#include "base/bytes.h"
#include "luks/header_file.h"

namespace lukskeep::luks {

// The bytes a backup file holds. Throws kDamaged if the device ends before its header does, or if
// one of two LUKS2 copies is not good (a backup must not preserve damage), unless `allow_damaged`.
Bytes backup_header(const HeaderFile& file, bool allow_damaged = false);

// Why a restore may do harm. Each is settled by itself.
enum class RestoreRisk : std::uint8_t {
  kDamaged,       // the backup itself is
  kVersion,       // LUKS1 over LUKS2 or the reverse
  kUuid,          // of another volume
  kDevice,        // taken from another device
  kSize,          // the device has another size, or is too small for the payload
  kOffsets,       // the payload would start elsewhere
  kMetadataSize,  // the header would have another size
  kCipher,        // the payload is described otherwise
  kOlder,         // changes made since would be lost, and removed passphrases come back
  kRequirements,  // one of the two is of a re-encryption
  kVolumeKey,     // holds another one than the header that is there
  kPayload,       // makes nothing known of the payload
  kForeign,       // the target holds other data than LUKS
  kInUse,         // somebody has the volume open
};
inline constexpr int kRestoreRiskCount = static_cast<int>(RestoreRisk::kInUse) + 1;

// "damaged", "version", "uuid", "device", "size", "offsets", "metadata-size", "cipher", "older",
// "requirements", "volume-key", "payload", "foreign", "in-use".
std::string_view risk_name(RestoreRisk risk) noexcept;

struct Objection {
  RestoreRisk risk = RestoreRisk::kDamaged;
  std::string text;  // one sentence
};

struct RestorePlan {
  Header from_backup;
  std::optional<Header> present;      // what the target holds now, if that is readable
  std::vector<Objection> objections;  // what makes it unsafe
  std::vector<std::string> notes;     // what will change: keyslots and tokens that come or go
  std::set<int> revived;  // keyslots of the backup whose key the present header does not have
  Bytes bytes;            // what is to stand at the start of the target …
  Bytes replaced;         // … where this stands now
  bool secondary_first = false;  // LUKS2: the target's primary copy is the better one
};

// Reads and validates the backup and compares it with what `target` holds now. Writes nothing.
// Throws kNotLuks or kDamaged (the backup itself), kTooSmall (target, or a backup that is cut).
RestorePlan plan_restore(std::shared_ptr<Device> backup, const std::shared_ptr<Device>& target);

// Whether both were made for the same passphrase at the same time: a keyslot keeps its salt and
// costs wherever it goes.
bool same_key(const Keyslot& a, const Keyslot& b);

// Leaves these keyslots of the backup out of what is to be written, material and all; the header
// then counts as newer than both. Throws kLastKeyslot if none would be left that opens the volume,
// kUnsupported if the backup requires what this program does not know.
void leave_out_keyslots(RestorePlan& plan, const std::set<int>& keyslots);

// Carries out a plan that was made for `target`: what the backup's keyslots need is written first,
// then each copy of the metadata by itself, then the rest; durable and read back when it returns.
// The caller has dealt with the objections. If power fails in the middle, the volume opens with the
// old header or the new one as long as a keyslot of either is untouched by the other; in any case
// doing it again completes it.
// Throws kConflict if the target is not what the plan saw, and kBusy, kReadOnly, kIo.
void restore_header(const RestorePlan& plan, Device& target);

// Overwrites the header of `file` with zeroes, metadata first: for one whose bytes, `copy`, are
// durable elsewhere. Throws kConflict if the device holds something else by now.
void remove_header(const HeaderFile& file, ByteView copy);

}  // namespace lukskeep::luks
