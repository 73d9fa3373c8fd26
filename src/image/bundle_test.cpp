#include "image/bundle.h"

#include <algorithm>
#include <functional>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "luks/test_volume.h"
#include "storage/memory_device.h"

namespace lukskeep::image {
namespace {

constexpr std::uint64_t kChunk = limits::kBundleChunkBytesMin;

Code code_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_FALSE(error.message().empty());
    return error.code();
  }
  return Code::kInternal;
}

crypto::Ed25519PrivateKey key_of(int number) {
  Bytes seed(32, static_cast<std::byte>(number));
  return {.seed = SecretBytes(seed)};
}

class MemorySource final : public BundleSource {
 public:
  explicit MemorySource(Bytes bytes) : bytes_(std::move(bytes)) {}
  void read(MutableBytes out) override {
    if (out.size() > bytes_.size() - at_) throw Error(Code::kTooSmall, "it ends before");
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at_), out.size(), out.begin());
    at_ += out.size();
    read_bytes += out.size();
  }
  void skip(std::uint64_t bytes) override {
    if (bytes > bytes_.size() - at_) throw Error(Code::kTooSmall, "it ends before");
    at_ += bytes;
  }
  std::uint64_t read_bytes = 0;

 private:
  Bytes bytes_;
  std::size_t at_ = 0;
};

// Two chunks of data, one of zeroes, and a short one.
Bytes make_picture() {
  Bytes bytes(3 * kChunk + 1000);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    state = state * 1664525 + 1013904223;
    const bool hole = i >= kChunk && i < 2 * kChunk;
    bytes[i] = hole ? std::byte{} : static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

const Bytes& picture() {
  static const Bytes bytes = make_picture();
  return bytes;
}

BundleManifest description() {
  BundleManifest manifest;
  manifest.format = "luks1";
  manifest.header = {.uuid = "2b1e", .sha256 = "00ff"};
  manifest.properties = {{"os_encrypt_format", "LUKSv1"}, {"os_distro", "debian"}};
  manifest.secret.type = keys::SecretType::kSymmetric;
  manifest.secret.algorithm = "aes";
  manifest.secret.bit_length = 256;
  manifest.secret_metadata = {{"lukskeep-encoding", "hex"}};
  manifest.sealed_secret = Bytes(200, std::byte{7});
  manifest.created_s = 1'700'000'000;
  return manifest;
}

struct Made {
  BundleManifest manifest;
  Bytes bytes;
};

Made make(const Bytes& image, int signer = 1) {
  Made made{.manifest = description(), .bytes = {}};
  const storage::MemoryDevice device(image, false);
  const auto chunks = digest_chunks(device, made.manifest, {});
  write_bundle(
      device, made.manifest, chunks, key_of(signer),
      [&](ByteView bytes) { made.bytes.insert(made.bytes.end(), bytes.begin(), bytes.end()); }, {});
  return made;
}

BundleHead read_head(MemorySource& source) {
  const std::vector trusted = {crypto::public_key_of(key_of(9)), crypto::public_key_of(key_of(1))};
  return read_bundle_head(source, trusted, "'test'");
}

Bytes receive(const Bytes& bundle, storage::MemoryDevice& part) {
  MemorySource source(bundle);
  const BundleHead head = read_head(source);
  receive_image(source, head, part, "'test'", {});
  return part.contents();
}

TEST(Bundle, ArrivesAsItLeft) {
  const Made made = make(picture());
  EXPECT_LT(made.bytes.size(), picture().size());  // the zeroes did not travel
  MemorySource source(made.bytes);
  const BundleHead head = read_head(source);
  EXPECT_EQ(head.manifest.image_bytes, picture().size());
  EXPECT_EQ(head.manifest.properties, description().properties);
  EXPECT_EQ(head.manifest.header, description().header);
  EXPECT_EQ(head.manifest.secret.type, keys::SecretType::kSymmetric);
  EXPECT_EQ(head.manifest.secret.bit_length, 256U);
  EXPECT_EQ(head.manifest.secret_metadata, description().secret_metadata);
  EXPECT_EQ(head.manifest.sealed_secret, description().sealed_secret);
  EXPECT_EQ(head.manifest.created_s, description().created_s);
  storage::MemoryDevice part((Bytes()));
  EXPECT_EQ(receive_image(source, head, part, "'test'", {}).kept_bytes, 0U);
  EXPECT_EQ(part.contents(), picture());
}

TEST(Bundle, EmptyImageAndWholeChunks) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{kChunk}, std::size_t{2 * kChunk}}) {
    const Bytes image(size, std::byte{5});
    storage::MemoryDevice part((Bytes()));
    EXPECT_EQ(receive(make(image).bytes, part), image);
  }
}

// Whatever byte is changed, nothing wrong arrives.
TEST(Bundle, EveryChangeIsFound) {
  const Made made = make(picture());
  const std::size_t head_bytes = made.bytes.size() - (2 * kChunk + 1000);
  for (std::size_t at = 0; at < made.bytes.size();
       at += at < head_bytes ? 5 : made.bytes.size() / 20) {
    Bytes changed = made.bytes;
    changed[at] ^= std::byte{0x20};
    storage::MemoryDevice part((Bytes()));
    const Code code = code_of([&] { receive(changed, part); });
    EXPECT_TRUE(code == Code::kDamaged || code == Code::kUnsafe || code == Code::kUnsupported ||
                code == Code::kTooSmall)
        << at << " " << code_name(code);
    const Bytes arrived = part.contents();
    EXPECT_TRUE(std::ranges::equal(arrived, ByteView(picture()).first(arrived.size()))) << at;
  }
}

TEST(Bundle, WhoeverElseSignedItIsRefused) {
  const Made made = make(picture(), 2);
  storage::MemoryDevice part((Bytes()));
  EXPECT_EQ(code_of([&] { receive(made.bytes, part); }), Code::kUnsafe);
  EXPECT_EQ(part.size_bytes(), 0U);
  // Another's key in front of the signature does not help.
  Bytes changed = made.bytes;
  std::ranges::copy(crypto::public_key_of(key_of(1)).bytes, changed.begin() + 24);
  EXPECT_EQ(code_of([&] { receive(changed, part); }), Code::kUnsafe);
}

TEST(Bundle, CutAnywhereItGoesOnLater) {
  const Made made = make(picture());
  for (const std::size_t cut : {std::size_t{1}, std::size_t{500}, std::size_t{kChunk},
                                std::size_t{kChunk + 1000}, std::size_t{2 * kChunk + 999}}) {
    storage::MemoryDevice part((Bytes()));
    const Bytes first(made.bytes.begin(), made.bytes.end() - static_cast<std::ptrdiff_t>(cut));
    EXPECT_EQ(code_of([&] { receive(first, part); }), Code::kTooSmall);
    MemorySource source(made.bytes);
    const BundleHead head = read_head(source);
    const std::uint64_t before = source.read_bytes;
    const std::uint64_t there = part.size_bytes() / kChunk * kChunk;
    EXPECT_GE(receive_image(source, head, part, "'test'", {}).kept_bytes, there);
    EXPECT_EQ(part.contents(), picture());
    EXPECT_LE(source.read_bytes - before, picture().size() - there);
  }
}

TEST(Bundle, WrongPartsAreReceivedAgain) {
  const Made made = make(picture());
  for (const std::size_t size : {std::size_t{kChunk}, picture().size(), picture().size() + 70000}) {
    Bytes wrong(size, std::byte{0x55});
    const std::size_t good = std::min<std::size_t>(kChunk, size);
    std::copy_n(picture().begin(), good, wrong.begin());
    storage::MemoryDevice part(wrong);
    EXPECT_EQ(receive(made.bytes, part), picture()) << size;
  }
}

TEST(Bundle, ImageThatChangesIsNotExported) {
  auto device = std::make_shared<storage::MemoryDevice>(picture());
  BundleManifest manifest = description();
  const auto chunks = digest_chunks(*device, manifest, {});
  device->write(kChunk + 5, as_byte_view("x"));
  EXPECT_EQ(
      code_of([&] { write_bundle(*device, manifest, chunks, key_of(1), [](ByteView) {}, {}); }),
      Code::kConflict);
}

TEST(Bundle, CancelEndsBothSides) {
  CancelToken cancel;
  cancel.cancel();
  BundleManifest manifest = description();
  const storage::MemoryDevice device(picture(), false);
  EXPECT_EQ(code_of([&] { digest_chunks(device, manifest, {.progress = {}, .cancel = &cancel}); }),
            Code::kInterrupted);
  MemorySource source(make(picture()).bytes);
  const BundleHead head = read_head(source);
  storage::MemoryDevice part((Bytes()));
  EXPECT_EQ(code_of([&] {
              receive_image(source, head, part, "'t'", {.progress = {}, .cancel = &cancel});
            }),
            Code::kInterrupted);
}

struct HostileCase {
  const char* what;
  std::function<void(Json&)> change;
};

const HostileCase kHostile[] = {
    {"no object", [](Json& json) { json = Json::array(); }},
    {"another version", [](Json& json) { json["version"] = 2; }},
    {"no image", [](Json& json) { json.erase("image"); }},
    {"chunks of no bytes", [](Json& json) { json["image"]["chunk_bytes"] = 0; }},
    {"small chunks", [](Json& json) { json["image"]["chunk_bytes"] = 512; }},
    {"odd chunks", [](Json& json) { json["image"]["chunk_bytes"] = kChunk + 1; }},
    {"huge chunks", [](Json& json) { json["image"]["chunk_bytes"] = std::uint64_t{1} << 40; }},
    {"huge image", [](Json& json) { json["image"]["bytes"] = UINT64_MAX; }},
    {"negative image", [](Json& json) { json["image"]["bytes"] = -1; }},
    {"size as text", [](Json& json) { json["image"]["bytes"] = "10"; }},
    {"short digest", [](Json& json) { json["image"]["chunks_sha256"] = "00"; }},
    {"digest of letters", [](Json& json) { json["image"]["chunks_sha256"] = "xyz"; }},
    {"header as text", [](Json& json) { json["header"] = "x"; }},
    {"properties as list", [](Json& json) { json["properties"] = Json::array(); }},
    {"property as number", [](Json& json) { json["properties"]["x"] = 1; }},
    {"secret of no type", [](Json& json) { json["secret"]["type"] = "magic"; }},
    {"too many bits", [](Json& json) { json["secret"]["bit_length"] = 1U << 30; }},
    {"sealed is no base64", [](Json& json) { json["secret"]["sealed"] = "%%"; }},
    {"algorithm that is too long",
     [](Json& json) { json["secret"]["algorithm"] = std::string(1000, 'a'); }},
    {"metadata name that is none", [](Json& json) { json["secret"]["metadata"]["a/../b"] = "x"; }},
    {"time that is none", [](Json& json) { json["created"] = "yesterday"; }},
    {"too many properties",
     [](Json& json) {
       for (int i = 0; i < 2000; ++i) json["properties"][std::to_string(i)] = "x";
     }},
};

TEST(Bundle, HostileManifestsAreRefused) {
  BundleManifest manifest = description();
  manifest.chunk_bytes = kChunk;
  manifest.image_bytes = 3 * kChunk;
  const std::string good = encode_manifest(manifest);
  EXPECT_EQ(encode_manifest(decode_manifest(good, "test")), good);
  for (const HostileCase& test : kHostile) {
    Json json = Json::parse(good);
    test.change(json);
    EXPECT_EQ(code_of([&] { decode_manifest(json.dump(), "test"); }), Code::kDamaged) << test.what;
  }
}

TEST(Bundle, ChunksGrowWithTheImage) {
  EXPECT_EQ(bundle_chunk_bytes(0), kChunk);
  EXPECT_EQ(bundle_chunk_bytes(limits::kGiB), kChunk);
  EXPECT_EQ(bundle_chunk_bytes(4096 * limits::kGiB), 8 * kChunk);
  EXPECT_EQ(bundle_chunk_bytes(UINT64_MAX), limits::kBundleChunkBytesMax);
}

TEST(Bundle, FingerprintFollowsTheHeader) {
  using namespace luks::testing;
  const luks::HeaderFile one = make_volume(cheap_options(luks::Version::kLuks1));
  const luks::HeaderFile two = make_volume(cheap_options(luks::Version::kLuks1));
  EXPECT_EQ(fingerprint_of(one), fingerprint_of(reopen(contents(one))));
  EXPECT_NE(fingerprint_of(one), fingerprint_of(two));
  EXPECT_EQ(fingerprint_of(one).uuid, one.header().uuid);
}

}  // namespace
}  // namespace lukskeep::image
