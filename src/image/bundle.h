// A bundle: an encrypted image with all that another cloud needs to use it, in one file that can be
// piped. docs/format/bundle.md has the layout.
//
// It holds the image in chunks with a digest each, the properties, the fingerprint of the LUKS
// header, and the secret that opens it, sealed to whoever receives it. One Ed25519 signature covers
// all of it. No name of a file is in a bundle: where things go is said by the receiver alone.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/progress.h>

#include "base/bytes.h"
#include "crypto/ed25519.h"
#include "image/properties.h"
#include "keys/key_manager.h"
#include "luks/header_file.h"

namespace lukskeep::image {

using Digest = std::array<std::byte, 32>;  // SHA-256

// Which header an image has, whatever the image is called.
struct HeaderFingerprint {
  std::string uuid;
  std::string sha256;  // hex, of what luks::backup_header gives
  bool operator==(const HeaderFingerprint&) const = default;
};

HeaderFingerprint fingerprint_of(const luks::HeaderFile& file);

struct BundleManifest {
  std::uint64_t image_bytes = 0;
  std::uint64_t chunk_bytes = 0;
  Digest chunks_digest{};  // of the list of chunk digests
  std::string format;      // the inspector's word
  HeaderFingerprint header;
  Properties properties;  // without the secret's ID, which is another where this goes
  // Of the secret all but its name and bytes; `secret.content_type` and type as they were stored.
  keys::SecretInfo secret;
  keys::Metadata secret_metadata;
  Bytes sealed_secret;  // an age file
  std::int64_t created_s = 0;
};

// JSON, and back. Throws Error{kDamaged} naming `what` for anything that encode would not write:
// sizes and counts beyond limits::kBundle*, members of another type.
std::string encode_manifest(const BundleManifest& manifest);
BundleManifest decode_manifest(std::string_view json, std::string_view what);

// The digest of a chunk that has zeroes only, and is not in the bundle.
inline constexpr Digest kZeroChunk{};

struct BundleHead {
  crypto::Ed25519PublicKey signer;
  BundleManifest manifest;
  std::vector<Digest> chunks;
};

// How large the chunks of such an image are.
std::uint64_t bundle_chunk_bytes(std::uint64_t image_bytes) noexcept;

struct BundleWork {
  ProgressCallback progress;
  const CancelToken* cancel = nullptr;
};

// Reads all of the image, on several threads, and completes `manifest` with what it found: sizes
// and digests.
std::vector<Digest> digest_chunks(const Device& image, BundleManifest& manifest,
                                  const BundleWork& work);

using BundleSink = std::function<void(ByteView)>;
// The whole bundle, in order. Throws Error{kConflict} if the image is not what it was when its
// digests were taken.
void write_bundle(const Device& image, const BundleManifest& manifest,
                  std::span<const Digest> chunks, const crypto::Ed25519PrivateKey& signer,
                  const BundleSink& sink, const BundleWork& work);

// Where a bundle comes from, in order.
class BundleSource {
 public:
  virtual ~BundleSource() = default;
  BundleSource(const BundleSource&) = delete;
  BundleSource& operator=(const BundleSource&) = delete;

  // All of `out`, or Error{kTooSmall} where it ends before.
  virtual void read(MutableBytes out) = 0;
  // Passes over so many bytes, without reading them where that can be done.
  virtual void skip(std::uint64_t bytes) = 0;

 protected:
  BundleSource() = default;
};

// The head, once its signature is known to be by one of `trusted`; nothing that is not signed is
// looked at. Throws Error: kUnsafe (signed by somebody else, or not validly), kDamaged,
// kUnsupported (another version), kTooSmall, naming `what`.
BundleHead read_bundle_head(BundleSource& source, std::span<const crypto::Ed25519PublicKey> trusted,
                            std::string_view what);

struct Received {
  std::uint64_t kept_bytes = 0;  // were there from another run, and good
};

// The image, chunk by chunk, to `part`: what of it is there and has the right digest stays, and is
// not read where the source can pass over it. Only what was verified is written. `part` grows as
// chunks arrive and has the image's size in the end. Throws Error{kDamaged} naming `what` for a
// chunk that is not what was signed; kTooSmall where the source ends before. What follows the last
// chunk is not looked at.
Received receive_image(BundleSource& source, const BundleHead& head, Device& part,
                       std::string_view what, const BundleWork& work);

}  // namespace lukskeep::image
