#include "image/bundle.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "base/parallel_for.h"
#include "crypto/hash.h"
#include "luks/header_backup.h"

namespace lukskeep::image {
namespace {

// 16 bytes magic, u32 version, u32 size of the manifest, 32 bytes public key, 64 bytes signature.
constexpr std::string_view kMagic = "LUKSKEEP-BUNDLE\n";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kPrefixBytes = 16 + 4 + 4 + 32 + 64;
// Another kind of document that the same key signs is no bundle.
constexpr std::string_view kSigned = "lukskeep image bundle 1\n";

Bytes signed_bytes(std::string_view manifest) {
  const std::string text = std::string(kSigned) + std::string(manifest);
  const ByteView bytes = as_byte_view(text);
  return {bytes.begin(), bytes.end()};
}

Digest sha256(ByteView bytes) {
  Digest digest;
  crypto::Hash hash("sha256");
  hash.update(bytes);
  hash.finish(digest);
  return digest;
}

ByteView table_bytes(std::span<const Digest> chunks) { return std::as_bytes(chunks); }

Digest chunk_digest(ByteView chunk) { return all_zero(chunk) ? kZeroChunk : sha256(chunk); }

std::uint64_t chunk_count(const BundleManifest& manifest) {
  return manifest.image_bytes / manifest.chunk_bytes +
         (manifest.image_bytes % manifest.chunk_bytes != 0 ? 1 : 0);
}

std::size_t chunk_size(const BundleManifest& manifest, std::uint64_t index) {
  const std::uint64_t offset = index * manifest.chunk_bytes;
  return static_cast<std::size_t>(std::min(manifest.chunk_bytes, manifest.image_bytes - offset));
}

void tell(const BundleWork& work, std::string_view phase, std::uint64_t done, std::uint64_t total) {
  if (work.progress) work.progress({.phase = phase, .done_bytes = done, .total_bytes = total});
}

void check(const BundleWork& work) {
  if (work.cancel != nullptr) work.cancel->check();
}

// Members of a manifest, each of the right type.
class Members {
 public:
  Members(const Json& object, std::string_view what) : object_(object), what_(what) {
    if (!object.is_object()) fail("a part of its manifest is no object");
  }

  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(Code::kDamaged, fmt::format("{}: {}", what_, problem));
  }
  const Json& member(const char* name) const {
    const auto found = object_.find(name);
    if (found == object_.end()) fail(fmt::format("its manifest has no '{}'", name));
    return *found;
  }
  std::string text(const char* name) const {
    const Json& value = member(name);
    if (!value.is_string()) fail(fmt::format("'{}' in its manifest is no text", name));
    return value.get<std::string>();
  }
  std::uint64_t number(const char* name) const {
    const Json& value = member(name);
    if (!value.is_number_unsigned()) fail(fmt::format("'{}' in its manifest is no number", name));
    return value.get<std::uint64_t>();
  }
  std::map<std::string, std::string> texts(const char* name, std::size_t count_max) const {
    const Json& value = member(name);
    if (!value.is_object() || value.size() > count_max) {
      fail(fmt::format("'{}' in its manifest is no list of words, or too long a one", name));
    }
    std::map<std::string, std::string> result;
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail(fmt::format("a word of '{}' in its manifest is no text", name));
      result[key] = text.get<std::string>();
    }
    return result;
  }
  Members inner(const char* name) const { return {member(name), what_}; }

 private:
  const Json& object_;
  std::string_view what_;
};

Bytes bytes_of(const Members& members, const char* name, std::string_view encoding) {
  const std::string text = members.text(name);
  auto bytes = encoding == "hex" ? from_hex(text) : from_base64(text);
  if (!bytes) members.fail(fmt::format("'{}' in its manifest is not {}", name, encoding));
  return std::move(*bytes);
}

void read_image(const Members& image, BundleManifest& manifest) {
  manifest.image_bytes = image.number("bytes");
  manifest.chunk_bytes = image.number("chunk_bytes");
  manifest.format = image.text("format");
  if (manifest.chunk_bytes < limits::kBundleChunkBytesMin ||
      manifest.chunk_bytes > limits::kBundleChunkBytesMax ||
      !std::has_single_bit(manifest.chunk_bytes) ||
      chunk_count(manifest) > limits::kBundleChunksMax) {
    image.fail("its image or its chunks have a size that no bundle has");
  }
  const Bytes digest = bytes_of(image, "chunks_sha256", "hex");
  if (digest.size() != manifest.chunks_digest.size()) image.fail("a digest has a wrong size");
  std::ranges::copy(digest, manifest.chunks_digest.begin());
}

void read_secret(const Members& secret, BundleManifest& manifest) {
  keys::SecretInfo& info = manifest.secret;
  try {
    info.type = keys::parse_secret_type(secret.text("type"));
  } catch (const Error& error) {
    if (error.code() == Code::kDamaged) throw;
    secret.fail("the type of its secret is none");
  }
  info.algorithm = secret.text("algorithm");
  info.mode = secret.text("mode");
  info.content_type = secret.text("content_type");
  if (const Json& bits = secret.member("bit_length"); !bits.is_null()) {
    const std::uint64_t number = secret.number("bit_length");
    if (number > limits::kOrderBitsMax) secret.fail("its secret has too many bits");
    info.bit_length = static_cast<std::uint32_t>(number);
  }
  manifest.secret_metadata = secret.texts("metadata", limits::kSecretMetadataMax);
  manifest.sealed_secret = bytes_of(secret, "sealed", "base64");
  try {
    // What no key manager takes is known before anything is transferred.
    constexpr std::array kSome = {std::byte{1}};
    keys::check_new_secret(info, kSome, manifest.secret_metadata);
  } catch (const Error& error) {
    secret.fail(error.message());
  }
}

}  // namespace

HeaderFingerprint fingerprint_of(const luks::HeaderFile& file) {
  return {.uuid = file.header().uuid, .sha256 = to_hex(sha256(luks::backup_header(file)))};
}

std::string encode_manifest(const BundleManifest& manifest) {
  const keys::SecretInfo& secret = manifest.secret;
  const Json json = {
      {"version", kVersion},
      {"created", keys::time_text(manifest.created_s)},
      {"image",
       {{"bytes", manifest.image_bytes},
        {"chunk_bytes", manifest.chunk_bytes},
        {"chunks_sha256", to_hex(manifest.chunks_digest)},
        {"format", manifest.format}}},
      {"header", {{"uuid", manifest.header.uuid}, {"sha256", manifest.header.sha256}}},
      {"properties", manifest.properties},
      {"secret",
       {{"type", keys::secret_type_name(secret.type)},
        {"algorithm", secret.algorithm},
        {"bit_length", secret.bit_length ? Json(*secret.bit_length) : Json()},
        {"mode", secret.mode},
        {"content_type", secret.content_type},
        {"metadata", manifest.secret_metadata},
        {"sealed", to_base64(manifest.sealed_secret)}}}};
  return json.dump();
}

BundleManifest decode_manifest(std::string_view text, std::string_view what) {
  const Json json = parse_json(text, what);
  const Members root(json, what);
  BundleManifest manifest;
  if (root.number("version") != kVersion) root.fail("its manifest is of another version");
  const auto created = keys::parse_time(root.text("created"));
  if (!created) root.fail("'created' in its manifest is no time");
  manifest.created_s = *created;
  read_image(root.inner("image"), manifest);
  manifest.header = {.uuid = root.inner("header").text("uuid"),
                     .sha256 = root.inner("header").text("sha256")};
  manifest.properties = root.texts("properties", limits::kImagePropertiesMax);
  read_secret(root.inner("secret"), manifest);
  return manifest;
}

std::uint64_t bundle_chunk_bytes(std::uint64_t image_bytes) noexcept {
  std::uint64_t chunk = limits::kBundleChunkBytesMin;
  while (chunk < limits::kBundleChunkBytesMax && image_bytes / chunk >= limits::kBundleChunksMax) {
    chunk *= 2;
  }
  return chunk;
}

std::vector<Digest> digest_chunks(const Device& image, BundleManifest& manifest,
                                  const BundleWork& work) {
  manifest.image_bytes = image.size_bytes();
  manifest.chunk_bytes = bundle_chunk_bytes(manifest.image_bytes);
  const std::uint64_t count = chunk_count(manifest);
  if (count > limits::kBundleChunksMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("'{}' is too large for a bundle: {} bytes are the most",
                            printable(image.name(), 256),
                            limits::kBundleChunksMax * limits::kBundleChunkBytesMax));
  }
  std::vector<Digest> chunks(count);
  const unsigned threads = hardware_threads();
  // A round at a time, so that progress is told by one thread.
  const std::uint64_t round = std::uint64_t{4} * threads;
  for (std::uint64_t first = 0; first < count; first += round) {
    check(work);
    const auto some = static_cast<std::size_t>(std::min(round, count - first));
    parallel_for(some, threads, [&](std::size_t i) {
      const std::uint64_t index = first + i;
      Bytes chunk(chunk_size(manifest, index));
      image.read(index * manifest.chunk_bytes, chunk);
      chunks[index] = chunk_digest(chunk);
    });
    tell(work, "digest", std::min((first + some) * manifest.chunk_bytes, manifest.image_bytes),
         manifest.image_bytes);
  }
  manifest.chunks_digest = sha256(table_bytes(chunks));
  return chunks;
}

void write_bundle(const Device& image, const BundleManifest& manifest,
                  std::span<const Digest> chunks, const crypto::Ed25519PrivateKey& signer,
                  const BundleSink& sink, const BundleWork& work) {
  const std::string text = encode_manifest(manifest);
  if (text.size() > limits::kBundleManifestBytesMax) {
    throw Error(Code::kInvalidArgument,
                "the properties are too many, or too long, for the manifest of a bundle");
  }
  Bytes prefix(kPrefixBytes);
  std::memcpy(prefix.data(), kMagic.data(), kMagic.size());
  store_be<std::uint32_t>(&prefix[16], kVersion);
  store_be<std::uint32_t>(&prefix[20], static_cast<std::uint32_t>(text.size()));
  std::ranges::copy(crypto::public_key_of(signer).bytes, prefix.begin() + 24);
  std::ranges::copy(crypto::ed25519_sign(signer, signed_bytes(text)), prefix.begin() + 56);
  sink(prefix);
  sink(as_byte_view(text));
  sink(table_bytes(chunks));
  Bytes chunk;
  for (std::uint64_t index = 0; index < chunks.size(); ++index) {
    check(work);
    chunk.resize(chunk_size(manifest, index));
    image.read(index * manifest.chunk_bytes, chunk);
    if (chunk_digest(chunk) != chunks[index]) {
      throw Error(
          Code::kConflict,
          fmt::format("'{}' was changed while it was exported", printable(image.name(), 256)),
          "export it when nobody uses it");
    }
    if (chunks[index] != kZeroChunk) sink(chunk);
    tell(work, "export", index * manifest.chunk_bytes + chunk.size(), manifest.image_bytes);
  }
}

BundleHead read_bundle_head(BundleSource& source, std::span<const crypto::Ed25519PublicKey> trusted,
                            std::string_view what) {
  const auto fail = [&](Code code, std::string_view problem, std::string hint = {}) {
    throw Error(code, fmt::format("{} {}", what, problem), std::move(hint));
  };
  Bytes prefix(kPrefixBytes);
  source.read(prefix);
  if (!as_string_view(prefix).starts_with(kMagic)) fail(Code::kDamaged, "is no bundle");
  if (const auto version = load_be<std::uint32_t>(&prefix[16]); version != kVersion) {
    fail(Code::kUnsupported, fmt::format("is a bundle of version {}", version),
         "a newer lukskeep may read it");
  }
  const auto manifest_bytes = load_be<std::uint32_t>(&prefix[20]);
  if (manifest_bytes > limits::kBundleManifestBytesMax) {
    fail(Code::kDamaged, "has a manifest that is larger than any");
  }
  BundleHead head;
  std::ranges::copy_n(prefix.begin() + 24, 32, head.signer.bytes.begin());
  if (std::ranges::find(trusted, head.signer) == trusted.end()) {
    fail(Code::kUnsafe,
         fmt::format("is signed by {}, which is nobody that was named",
                     crypto::to_string(head.signer)),
         "ask the sender for the key by another way, and name it with --signer");
  }
  Bytes text(manifest_bytes);
  source.read(text);
  if (!crypto::ed25519_verify(head.signer, signed_bytes(as_string_view(text)),
                              ByteView(prefix).subspan(56, 64))) {
    fail(Code::kUnsafe, "has a signature that does not fit: it was changed on its way");
  }
  head.manifest = decode_manifest(as_string_view(text), what);
  head.chunks.resize(chunk_count(head.manifest));
  source.read(std::as_writable_bytes(std::span(head.chunks)));
  if (sha256(table_bytes(head.chunks)) != head.manifest.chunks_digest) {
    fail(Code::kDamaged, "has another list of digests than was signed");
  }
  return head;
}

namespace {

// One image on its way into its part.
class Receiver {
 public:
  Receiver(BundleSource& source, const BundleHead& head, Device& part, std::string_view what)
      : source_(source), head_(head), part_(part), what_(what) {}

  Received run(const BundleWork& work) {
    const std::uint64_t total = head_.manifest.image_bytes;
    // Of another image, which had the same name.
    if (part_.size_bytes() > total) part_.resize(total);
    for (std::uint64_t index = 0; index < head_.chunks.size(); ++index) {
      check(work);
      receive(index);
      tell(work, "import", std::min((index + 1) * head_.manifest.chunk_bytes, total), total);
    }
    return received_;
  }

 private:
  void receive(std::uint64_t index) {
    const std::uint64_t offset = index * head_.manifest.chunk_bytes;
    const Digest& digest = head_.chunks[index];
    const bool zero = digest == kZeroChunk;
    chunk_.resize(chunk_size(head_.manifest, index));
    if (is_there(offset, digest)) {
      received_.kept_bytes += chunk_.size();
      if (!zero) source_.skip(chunk_.size());
      return;
    }
    if (zero) {
      part_.resize(std::max(part_.size_bytes(), offset));
      // What is there is another run's, and broken; what is not yet there reads as zeroes.
      const std::uint64_t old = part_.size_bytes() - offset;
      if (old != 0)
        part_.write_zeroes(offset, std::min<std::uint64_t>(old, chunk_.size()), ZeroMode::kPunch);
      return grow(offset + chunk_.size());
    }
    source_.read(chunk_);
    if (sha256(chunk_) != digest) {
      throw Error(
          Code::kDamaged,
          fmt::format("{}: the image is not what was signed, from byte {} on", what_, offset),
          "fetch the bundle again: what is good of it is not read twice");
    }
    grow(offset + chunk_.size());
    part_.write(offset, chunk_);
  }

  void grow(std::uint64_t size) {
    if (part_.size_bytes() < size) part_.resize(size);
  }

  bool is_there(std::uint64_t offset, const Digest& digest) {
    if (part_.size_bytes() < offset + chunk_.size()) return false;
    part_.read(offset, chunk_);
    return chunk_digest(chunk_) == digest;
  }

  BundleSource& source_;
  const BundleHead& head_;
  Device& part_;
  std::string_view what_;
  Bytes chunk_;
  Received received_;
};

}  // namespace

Received receive_image(BundleSource& source, const BundleHead& head, Device& part,
                       std::string_view what, const BundleWork& work) {
  return Receiver(source, head, part, what).run(work);
}

}  // namespace lukskeep::image
