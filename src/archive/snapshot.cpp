#include "archive/snapshot.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include <unistd.h>
#include <zstd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/device_identity.h"
#include "archive/manifest_text.h"
#include "base/json.h"
#include "base/limits.h"
#include "crypto/hash.h"
#include "luks/crypt_device.h"
#include "luks/header_backup.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/luks1_gap.h"
#include "storage/memory_device.h"

namespace lukskeep::archive {
namespace {

constexpr std::string_view kMagicLine = "lukskeep-snapshot 1\n";
constexpr std::string_view kMagicStem = "lukskeep-snapshot ";
constexpr std::size_t kHashBytes = 32;
constexpr int kCompressionLevel = 1;  // most of a header is random or zero
constexpr std::size_t kTextBytesMax = 4096;
constexpr std::size_t kListMax = 64;
// What a header may spell at any length is cut to these: the line stays below kManifestBytesMax
// even where each byte takes eight ("\ufffd" and two digits).
constexpr std::size_t kNameBytesMax = 128;
constexpr std::size_t kProblemBytesMax = 1024;
constexpr std::size_t kProblemsMax = 4;
constexpr std::size_t kPathBytesMax = 4096;  // PATH_MAX
constexpr std::size_t kPathTextBytesMax = 5 * kPathBytesMax;
constexpr int kCaptureTries = 8;

std::string sha256_hex(ByteView bytes) { return to_hex(crypto::hash("sha256", bytes)); }

// Everything is hashed with its length before it, so that no two inputs run into each other.
class Fingerprint {
 public:
  Fingerprint& add(ByteView bytes) {
    std::array<std::byte, 8> length{};
    store_be<std::uint64_t>(length.data(), bytes.size());
    hash_.update(length);
    hash_.update(bytes);
    return *this;
  }
  Fingerprint& add(std::string_view text) { return add(as_byte_view(text)); }
  Fingerprint& add(std::uint64_t number) {
    std::array<std::byte, 8> bytes{};
    store_be(bytes.data(), number);
    return add(ByteView(bytes));
  }
  std::string hex() {
    Bytes digest(kHashBytes);
    hash_.finish(digest);
    return to_hex(digest);
  }

 private:
  crypto::Hash hash_{"sha256"};
};

std::string keyslot_fingerprint(const luks::Header& header, int id) {
  const luks::Keyslot& keyslot = header.keyslots.at(id);
  Fingerprint fingerprint;
  fingerprint.add(keyslot.kdf.type_name)
      .add(keyslot.kdf.hash)
      .add(keyslot.kdf.iterations)
      .add(keyslot.kdf.memory_kib)
      .add(keyslot.kdf.parallel)
      .add(keyslot.kdf.salt);
  for (const auto& [number, digest] : header.digests) {
    if (digest.keyslots.contains(id)) fingerprint.add(digest.salt).add(digest.digest);
  }
  return fingerprint.hex();
}

std::vector<SnapshotKey> tokens_of(const luks::Header& header) {
  std::vector<SnapshotKey> tokens;
  tokens.reserve(header.tokens.size());
  for (const auto& [id, token] : header.tokens) {
    tokens.push_back({.number = id,
                      .type = manifest_text(token.type, kNameBytesMax),
                      .fingerprint = sha256_hex(as_byte_view(token.json))});
  }
  return tokens;
}

const luks::Segment* first_crypt_segment(const luks::Header& header) {
  for (const auto& [id, segment] : header.segments) {
    if (segment.type == luks::Segment::Type::kCrypt) return &segment;
  }
  return nullptr;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return {};
  return manifest_text(name.data());
}

std::vector<std::string> problems_of(const luks::ReadReport& report) {
  std::vector<std::string> problems;
  for (const std::string& problem : report.problems) {
    if (problems.size() == kProblemsMax) break;
    problems.push_back(manifest_text(problem, kProblemBytesMax));
  }
  return problems;
}

// What the header says, and its content.
Manifest describe(const luks::HeaderFile& file) {
  const luks::Header& header = file.header();
  Manifest manifest{.uuid = uuid_text(header.uuid),
                    .label = manifest_text(header.label, kNameBytesMax),
                    .version = header.version == luks::Version::kLuks1 ? 1U : 2U,
                    .sequence_id = header.sequence_id,
                    .header_bytes = luks::header_copy_bytes(file),
                    .metadata_bytes = header.metadata_size_bytes,
                    .payload_offset_bytes = luks::payload_offset_bytes(header),
                    .keyslots = describe_keyslots(header),
                    .tokens = tokens_of(header),
                    .content_id = content_id(file)};
  if (const luks::Segment* segment = first_crypt_segment(header)) {
    manifest.cipher = manifest_text(segment->encryption, kNameBytesMax);
    manifest.sector_bytes = segment->sector_size_bytes;
  }
  return manifest;
}

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Where another program holds the lock for good, what was read is still looked at twice.
std::unique_ptr<DeviceLock> try_lock(Device& device) {
  try {
    return device.lock_metadata();
  } catch (const Error& error) {
    if (error.code() != Code::kBusy) throw;
    return nullptr;
  }
}

bool same_header(const luks::HeaderFile& a, const luks::HeaderFile& b) {
  return a.header() == b.header() && a.report().primary == b.report().primary &&
         a.report().secondary == b.report().secondary;
}

// Absent if the bytes were changed while they were read, so that they are no header any more.
std::optional<luks::HeaderFile> parse_copy(std::shared_ptr<storage::MemoryDevice> copy) {
  try {
    return luks::HeaderFile::open(std::move(copy));
  } catch (const Error& error) {
    if (error.code() == Code::kOutOfMemory) throw;
    return std::nullopt;
  }
}

void set_origin(Manifest& manifest, const DeviceIdentity& device) {
  manifest.device = device;
  manifest.device.path = place_text(device.path);
  manifest.device.serial = manifest_text(device.serial);
  manifest.device.wwn = manifest_text(device.wwn);
  manifest.host = host_name();
  manifest.taken_ns = now_ns();
}

// ---- manifest
// ------------------------------------------------------------------------------------

OrderedJson keys_json(const std::vector<SnapshotKey>& keys) {
  OrderedJson list = OrderedJson::array();
  for (const SnapshotKey& key : keys) {
    list.push_back({{"number", key.number}, {"type", key.type}, {"fingerprint", key.fingerprint}});
  }
  return list;
}

// Members of one JSON object, each of its type and of a bounded size.
class Members {
 public:
  Members(const Json& object, std::string_view what) : object_(object), what_(what) {
    if (!object.is_object()) fail("", "is no object");
  }

  std::string text(const char* name, std::size_t bytes_max = kTextBytesMax) const {
    const Json& value = find(name);
    if (!value.is_string()) fail(name, "is no string");
    const auto& string = value.get_ref<const std::string&>();
    if (string.size() > bytes_max) fail(name, "is too long");
    return string;
  }

  template <typename Number>
  Number number(const char* name) const {
    const Json& value = find(name);
    const bool fits =
        value.is_number_unsigned() && std::in_range<Number>(value.get<std::uint64_t>());
    if (!fits) fail(name, "is no number that fits");
    return static_cast<Number>(value.get<std::uint64_t>());
  }

  std::string hash(const char* name) const {
    std::string hex = text(name);
    const auto bytes = from_hex(hex);
    if (!bytes || bytes->size() != kHashBytes) fail(name, "is no SHA-256");
    return hex;
  }

  const Json& list(const char* name) const {
    const Json& value = find(name);
    if (!value.is_array() || value.size() > kListMax) fail(name, "is no list of a sane length");
    return value;
  }

  const Json& find(const char* name) const {
    const auto found = object_.find(name);
    if (found == object_.end()) fail(name, "is missing");
    return *found;
  }

  [[noreturn]] void fail(std::string_view name, std::string_view problem) const {
    throw Error(Code::kDamaged, fmt::format("{}: manifest '{}' {}", what_, name, problem));
  }

 private:
  const Json& object_;
  std::string_view what_;
};

std::vector<SnapshotKey> decode_keys(const Members& members, const char* name,
                                     std::string_view what) {
  std::vector<SnapshotKey> keys;
  for (const Json& entry : members.list(name)) {
    const Members key(entry, what);
    keys.push_back({.number = key.number<int>("number"),
                    .type = key.text("type"),
                    .fingerprint = key.hash("fingerprint")});
  }
  return keys;
}

// ---- compression
// ---------------------------------------------------------------------------------

// Hands over what comes out, little by little.
void compress(ByteView bytes, const std::function<void(ByteView)>& sink) {
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(),
                                                                     &ZSTD_freeCCtx);
  const auto check = [](std::size_t result) {
    if (ZSTD_isError(result) == 0) return result;
    throw Error(Code::kInternal, fmt::format("zstd: {}", ZSTD_getErrorName(result)));
  };
  if (context == nullptr) throw Error(Code::kOutOfMemory, "no memory to compress a header");
  check(ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, kCompressionLevel));
  check(ZSTD_CCtx_setPledgedSrcSize(context.get(), bytes.size()));
  Bytes piece(ZSTD_CStreamOutSize());
  ZSTD_inBuffer in{.src = bytes.data(), .size = bytes.size(), .pos = 0};
  for (std::size_t left = 1; left > 0;) {
    ZSTD_outBuffer out{.dst = piece.data(), .size = piece.size(), .pos = 0};
    left = check(ZSTD_compressStream2(context.get(), &out, &in, ZSTD_e_end));
    sink(ByteView(piece).first(out.pos));
  }
}

// The manifest says how many bytes there are; more are not made.
Bytes decompress(ByteView bytes, std::size_t size_bytes, std::string_view what) {
  Bytes out(size_bytes);
  const std::size_t size = ZSTD_decompress(out.data(), out.size(), bytes.data(), bytes.size());
  if (ZSTD_isError(size) != 0 || size != size_bytes) {
    throw Error(Code::kDamaged, fmt::format("{}: the compressed header is damaged", what));
  }
  return out;
}

}  // namespace

std::vector<SnapshotKey> describe_keyslots(const luks::Header& header) {
  std::vector<SnapshotKey> keys;
  keys.reserve(header.keyslots.size());
  for (const auto& [id, keyslot] : header.keyslots) {
    const bool usual = keyslot.type == luks::Keyslot::Type::kLuks2;
    keys.push_back(
        {.number = id,
         .type = manifest_text(usual ? keyslot.kdf.type_name : keyslot.type_name, kNameBytesMax),
         .fingerprint = keyslot_fingerprint(header, id)});
  }
  return keys;
}

std::string content_id(const luks::HeaderFile& file) {
  const luks::Header& header = file.header();
  const Device& device = *file.device();
  const std::uint64_t copy_bytes = luks::header_copy_bytes(file);
  Fingerprint fingerprint;
  const auto add_range = [&](std::uint64_t offset, std::uint64_t size) {
    const std::uint64_t have = offset < device.size_bytes() ? device.size_bytes() - offset : 0;
    Bytes bytes(std::min({size, have, copy_bytes}));
    device.read(offset, bytes);
    fingerprint.add(bytes);
  };
  if (header.version == luks::Version::kLuks1) {
    add_range(0, luks::kLuks1HeaderBytes);
  } else {
    add_range(0, 2 * header.metadata_size_bytes);
  }
  for (const auto& [id, keyslot] : header.keyslots) {
    add_range(keyslot.area.offset_bytes, keyslot.area.size_bytes);
  }
  const std::uint64_t header_bytes = luks::header_size_bytes(header);
  if (copy_bytes > header_bytes) add_range(header_bytes, copy_bytes - header_bytes);
  return fingerprint.hex();
}

// Another program may change the header at any time, and not all take the lock. Read once, parsed
// from what was read, and compared with what is there afterwards, a copy is of one state: key
// material is written before the metadata that names it, and wiped after.
Capture capture(const luks::HeaderFile& file, const std::string& path) {
  luks::HeaderFile present = file;
  for (int tries = 0; tries < kCaptureTries; ++tries) {
    const std::unique_ptr<DeviceLock> lock = try_lock(*file.device());
    const auto bytes = std::make_shared<storage::MemoryDevice>(luks::backup_header(present, true));
    present = luks::HeaderFile::open(file.device());
    const auto copy = parse_copy(bytes);
    if (!copy || !same_header(*copy, present)) continue;
    Capture taken{.manifest = describe(*copy), .header = bytes->take()};
    taken.manifest.sha256 = sha256_hex(taken.header);
    taken.manifest.problems = problems_of(present.report());
    set_origin(taken.manifest, identify_device(path, file.device()->size_bytes()));
    return taken;
  }
  throw Error(Code::kBusy,
              fmt::format("the header of '{}' changes again and again while it is read",
                          file.device()->name()),
              "wait until the other program is done, or stop it");
}

Capture capture_wreck(ByteView bytes, const luks::Header& expected, const DeviceIdentity& device,
                      const std::string& problem) {
  Capture taken{.manifest = {.uuid = uuid_text(expected.uuid),
                             .version = expected.version == luks::Version::kLuks1 ? 1U : 2U,
                             .header_bytes = bytes.size(),
                             .problems = {manifest_text(problem)},
                             .sha256 = sha256_hex(bytes),
                             .reason = std::string(kWreck)},
                .header = Bytes(bytes.begin(), bytes.end())};
  taken.manifest.content_id = taken.manifest.sha256;
  set_origin(taken.manifest, device);
  return taken;
}

std::string place_text(const std::string& path) {
  return manifest_text(absolute_path(path), kPathBytesMax);
}

std::string uuid_text(std::string_view uuid) { return manifest_text(uuid, kNameBytesMax); }

std::string encode_manifest(const Manifest& manifest) {
  const OrderedJson json = {{"uuid", manifest.uuid},
                            {"label", manifest.label},
                            {"version", manifest.version},
                            {"sequence_id", manifest.sequence_id},
                            {"header_bytes", manifest.header_bytes},
                            {"metadata_bytes", manifest.metadata_bytes},
                            {"payload_offset_bytes", manifest.payload_offset_bytes},
                            {"cipher", manifest.cipher},
                            {"sector_bytes", manifest.sector_bytes},
                            {"keyslots", keys_json(manifest.keyslots)},
                            {"tokens", keys_json(manifest.tokens)},
                            {"problems", manifest.problems},
                            {"sha256", manifest.sha256},
                            {"content_id", manifest.content_id},
                            {"device",
                             {{"path", manifest.device.path},
                              {"size_bytes", manifest.device.size_bytes},
                              {"serial", manifest.device.serial},
                              {"wwn", manifest.device.wwn}}},
                            {"taken_ns", static_cast<std::uint64_t>(manifest.taken_ns)},
                            {"reason", manifest.reason},
                            {"command", manifest.command},
                            {"host", manifest.host}};
  // All that comes from elsewhere is manifest_text() already.
  return json.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
}

Manifest decode_manifest(std::string_view line, std::string_view what) {
  if (line.size() > limits::kManifestBytesMax) {
    throw Error(Code::kDamaged, fmt::format("{}: the manifest is too long", what));
  }
  const Json json = parse_json(line, what);
  const Members members(json, what);
  const Members device(members.find("device"), what);
  Manifest manifest{.uuid = members.text("uuid"),
                    .label = members.text("label"),
                    .version = members.number<unsigned>("version"),
                    .sequence_id = members.number<std::uint64_t>("sequence_id"),
                    .header_bytes = members.number<std::uint64_t>("header_bytes"),
                    .metadata_bytes = members.number<std::uint64_t>("metadata_bytes"),
                    .payload_offset_bytes = members.number<std::uint64_t>("payload_offset_bytes"),
                    .cipher = members.text("cipher"),
                    .sector_bytes = members.number<std::uint32_t>("sector_bytes"),
                    .keyslots = decode_keys(members, "keyslots", what),
                    .tokens = decode_keys(members, "tokens", what),
                    .sha256 = members.hash("sha256"),
                    .content_id = members.hash("content_id"),
                    .device = {.path = device.text("path", kPathTextBytesMax),
                               .size_bytes = device.number<std::uint64_t>("size_bytes"),
                               .serial = device.text("serial"),
                               .wwn = device.text("wwn")},
                    .taken_ns = members.number<std::int64_t>("taken_ns"),
                    .reason = members.text("reason"),
                    .command = members.text("command"),
                    .host = members.text("host")};
  for (const Json& problem : members.list("problems")) {
    if (!problem.is_string()) members.fail("problems", "is no list of texts");
    manifest.problems.push_back(problem.get<std::string>());
  }
  if (manifest.version != 1 && manifest.version != 2) members.fail("version", "is neither 1 nor 2");
  if (manifest.header_bytes > limits::kSnapshotHeaderBytesMax) {
    members.fail("header_bytes", "is more than any header has");
  }
  return manifest;
}

void seal_snapshot(const Capture& capture, std::span<const AgeRecipient> recipients,
                   const AgeSealer::Sink& sink) {
  const std::string line = encode_manifest(capture.manifest);
  sink(as_byte_view(fmt::format("{}{}\n", kMagicLine, line)));
  AgeSealer sealer(recipients, sink);
  sealer.add(crypto::hash("sha256", as_byte_view(line)));
  compress(capture.header, [&](ByteView part) { sealer.add(part); });
  sealer.finish();
}

Bytes seal_snapshot(const Capture& capture, std::span<const AgeRecipient> recipients) {
  Bytes file;
  seal_snapshot(capture, recipients,
                [&](ByteView part) { file.insert(file.end(), part.begin(), part.end()); });
  return file;
}

SnapshotFile name_snapshot(const Manifest& manifest) {
  const std::string line = encode_manifest(manifest);
  return {.manifest = manifest,
          .id = sha256_hex(as_byte_view(line)),
          .sealed_offset = kMagicLine.size() + line.size() + 1};
}

SnapshotFile read_snapshot(ByteView file, std::string_view what) {
  const std::string_view text =
      as_string_view(file.first(std::min(file.size(), limits::kManifestBytesMax + 64)));
  if (!text.starts_with(kMagicLine)) {
    if (text.starts_with(kMagicStem)) {
      throw Error(Code::kUnsupported, fmt::format("{} is a snapshot of a newer kind", what),
                  "a newer LuksKeep reads it");
    }
    throw Error(Code::kDamaged, fmt::format("{} is no snapshot", what));
  }
  const std::size_t end = text.find('\n', kMagicLine.size());
  if (end == std::string_view::npos) {
    throw Error(Code::kDamaged, fmt::format("{}: the manifest has no end", what));
  }
  const std::string_view line = text.substr(kMagicLine.size(), end - kMagicLine.size());
  return {.manifest = decode_manifest(line, what),
          .id = sha256_hex(as_byte_view(line)),
          .sealed_offset = end + 1};
}

std::optional<Bytes> open_snapshot(ByteView file, std::span<const AgeIdentity> identities,
                                   std::string_view what) {
  const SnapshotFile snapshot = read_snapshot(file, what);
  const auto inner = age_open(file.subspan(snapshot.sealed_offset), identities, what);
  if (!inner) return std::nullopt;
  if (inner->size() < kHashBytes || to_hex(ByteView(*inner).first(kHashBytes)) != snapshot.id) {
    throw Error(Code::kDamaged, fmt::format("{}: its manifest was changed", what));
  }
  Bytes header =
      decompress(ByteView(*inner).subspan(kHashBytes), snapshot.manifest.header_bytes, what);
  if (sha256_hex(header) != snapshot.manifest.sha256) {
    throw Error(Code::kDamaged, fmt::format("{}: the header is not the one it names", what));
  }
  return header;
}

void check_description(const Manifest& manifest, ByteView header, std::string_view what) {
  const auto file =
      parse_copy(std::make_shared<storage::MemoryDevice>(Bytes(header.begin(), header.end())));
  if (manifest.reason == kWreck) {
    // Of what is no header nothing can be said, and nothing may be.
    const bool silent = manifest.keyslots.empty() && manifest.tokens.empty() &&
                        manifest.sequence_id == 0 && manifest.content_id == manifest.sha256;
    if (file || !silent) {
      throw Error(Code::kDamaged, fmt::format("{} is not what is left of a header", what));
    }
    return;
  }
  if (!file) throw Error(Code::kDamaged, fmt::format("{}: what it holds is no header", what));
  const Manifest found = describe(*file);
  const auto fingerprints = [](const Manifest& of) {
    std::vector<std::string> list;
    list.reserve(of.keyslots.size());
    for (const SnapshotKey& key : of.keyslots) list.push_back(key.fingerprint);
    return list;
  };
  const bool same = found.uuid == manifest.uuid && found.version == manifest.version &&
                    found.sequence_id == manifest.sequence_id &&
                    found.payload_offset_bytes == manifest.payload_offset_bytes &&
                    found.content_id == manifest.content_id &&
                    fingerprints(found) == fingerprints(manifest);
  if (!same) throw Error(Code::kDamaged, fmt::format("{} holds another header than it says", what));
}

bool prove_snapshot(ByteView file, std::span<const AgeIdentity> identities, std::string_view what) {
  if (identities.empty()) return false;
  const auto header = open_snapshot(file, identities, what);
  if (!header) return false;
  const Manifest manifest = read_snapshot(file, what).manifest;
  check_description(manifest, *header, what);
  return manifest.reason != kWreck;
}

}  // namespace lukskeep::archive
