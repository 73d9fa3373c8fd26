// One saved copy of a header: what is known of it (the manifest, readable by anybody) and its exact
// bytes (sealed). docs/format/snapshot.md describes the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/header.h>

#include "archive/age.h"
#include "base/bytes.h"
#include "luks/header_file.h"

namespace lukskeep::archive {

// Where the header was found. Strings are empty where the system does not tell.
struct DeviceIdentity {
  std::string path;  // absolute
  std::uint64_t size_bytes = 0;
  std::string serial;
  std::string wwn;

  bool operator==(const DeviceIdentity&) const = default;
};

// A keyslot or token as a snapshot knows it. The fingerprint (SHA-256, hex) names the key itself,
// wherever it stands: a keyslot's covers salt, costs and volume key digest, a token's its JSON.
struct SnapshotKey {
  int number = 0;
  std::string type;  // "pbkdf2", "argon2id", …; of a token its type
  std::string fingerprint;

  bool operator==(const SnapshotKey&) const = default;
};

// All texts are manifest_text(): `device.path` and `uuid` turn into bytes by manifest_bytes().
struct Manifest {
  std::string uuid;
  std::string label;
  unsigned version = 2;  // 1 or 2
  std::uint64_t sequence_id = 0;
  std::uint64_t header_bytes = 0;  // of the copy
  std::uint64_t metadata_bytes = 0;
  std::uint64_t payload_offset_bytes = 0;
  std::string cipher;
  std::uint32_t sector_bytes = 0;
  std::vector<SnapshotKey> keyslots;
  std::vector<SnapshotKey> tokens;
  std::vector<std::string> problems;  // what was damaged when the copy was made
  std::string sha256;                 // of the header's bytes, hex
  // SHA-256 over what matters of them: metadata and the areas of active keyslots. Equal for two
  // copies that differ only in unused room.
  std::string content_id;
  DeviceIdentity device;
  std::int64_t taken_ns = 0;  // since 1970, UTC
  std::string reason;         // "before", "after", "manual", "import", "scan", "watch", "wreck"
  std::string command;        // that changed the header, or empty
  std::string host;

  bool operator==(const Manifest&) const = default;
};

std::vector<SnapshotKey> describe_keyslots(const luks::Header& header);

// What a snapshot is made from.
struct Capture {
  Manifest manifest;
  Bytes header;
};

// Reads the header as it is on the device of `file` now, damage included: one state of it, whatever
// other programs do meanwhile. `path` is for the identity. Throws kTooSmall if the device ends
// before its header does, kBusy if it never stands still, and what HeaderFile::open throws.
Capture capture(const luks::HeaderFile& file, const std::string& path);

// What a manifest calls a device at `path` and a header's UUID.
std::string place_text(const std::string& path);
std::string uuid_text(std::string_view uuid);

// The reason of bytes that can no longer be read as a header, kept before they are overwritten.
inline constexpr std::string_view kWreck = "wreck";

// A snapshot of such bytes. `expected` is the header that will take their place: it says which
// volume they were of. `problem` is what was wrong with them.
Capture capture_wreck(ByteView bytes, const luks::Header& expected, const DeviceIdentity& device,
                      const std::string& problem);

// Only the manifest's content_id: for a look whether anything changed.
std::string content_id(const luks::HeaderFile& file);

// JSON on one line, without the newline.
std::string encode_manifest(const Manifest& manifest);
// Throws Error{kDamaged} naming `what` and the member that is missing, too long or wrong.
Manifest decode_manifest(std::string_view line, std::string_view what);

// The file of a snapshot, handed over in pieces. What is written before this throws is worth
// nothing.
void seal_snapshot(const Capture& capture, std::span<const AgeRecipient> recipients,
                   const AgeSealer::Sink& sink);
Bytes seal_snapshot(const Capture& capture, std::span<const AgeRecipient> recipients);

struct SnapshotFile {
  Manifest manifest;
  std::string id;  // SHA-256 of the manifest's line, hex
  std::size_t sealed_offset = 0;
};
// What read_snapshot will find in the file of a snapshot with this manifest.
SnapshotFile name_snapshot(const Manifest& manifest);
// Reads what is readable without a key. Throws kDamaged, kUnsupported (another version).
SnapshotFile read_snapshot(ByteView file, std::string_view what);

// The header's bytes, proven to belong to the manifest. Absent if no identity fits.
// Throws kDamaged if anything was changed.
std::optional<Bytes> open_snapshot(ByteView file, std::span<const AgeIdentity> identities,
                                   std::string_view what);

// Throws kDamaged unless the opened `header` is the one that `manifest` describes. Anybody can seal
// a manifest together with a header that it does not fit.
void check_description(const Manifest& manifest, ByteView header, std::string_view what);

// Whether an identity opens it. If one does, the description has to fit too: else throws kDamaged.
bool prove_snapshot(ByteView file, std::span<const AgeIdentity> identities, std::string_view what);

}  // namespace lukskeep::archive
