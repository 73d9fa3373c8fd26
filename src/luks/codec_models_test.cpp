#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "crypto/hash.h"
#include "luks/codec_test_models.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks::testing {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

Bytes counting_bytes(std::size_t size, unsigned start) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(start + i);
  return bytes;
}

class Dice {
 public:
  explicit Dice(std::mt19937_64& random) : random_(random) {}

  std::uint64_t number(std::uint64_t min, std::uint64_t max) {
    return std::uniform_int_distribution<std::uint64_t>(min, max)(random_);
  }
  std::uint32_t number32(std::uint32_t min, std::uint32_t max = UINT32_MAX) {
    return static_cast<std::uint32_t>(number(min, max));
  }
  bool coin() { return number(0, 1) == 1; }
  Bytes bytes(std::size_t size) {
    Bytes bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(number(0, 255));
    return bytes;
  }
  template <typename T>
  T pick(std::initializer_list<T> choices) {
    return *(choices.begin() + static_cast<std::ptrdiff_t>(number(0, choices.size() - 1)));
  }
  std::string text() {
    return pick<std::string>({"a", "with space", "\"quoted\"", "back\\slash/slash", "línea €",
                              "tab\tand\nnewline", "\x7f", "𝄞", "0", "null"});
  }
  std::string encryption() {
    return pick<std::string>({"aes-xts-plain64", "serpent-cbc-essiv:sha256", "cipher_null-ecb",
                              "capi:xts(aes)-plain64", "Twofish-Unheard-of"});
  }
  std::string hash() { return pick<std::string>({"sha256", "SHA1", "whirlpool", "unheard-of"}); }
  UnknownMembers unknown() {
    UnknownMembers members;
    for (std::uint64_t i = number(0, 2); i > 0; --i) {
      members["x-" + text()] = pick<std::string>(
          {"null", "-1.50e+3", "[ 1,\t2 ]", R"({"a" : {"b":[]}})", R"("\u0041\/é")", "true"});
    }
    return members;
  }

 private:
  std::mt19937_64& random_;
};

Keyslot pbkdf2_keyslot(std::uint64_t offset_bytes) {
  Keyslot keyslot;
  keyslot.key_size_bytes = 64;
  keyslot.af.hash = "sha256";
  keyslot.area.offset_bytes = offset_bytes;
  keyslot.area.size_bytes = 258048;
  keyslot.area.encryption = "aes-xts-plain64";
  keyslot.area.key_size_bytes = 64;
  keyslot.kdf.type_name = "pbkdf2";
  keyslot.kdf.hash = "sha256";
  keyslot.kdf.iterations = 1000;
  keyslot.kdf.salt = counting_bytes(32, 1);
  return keyslot;
}

Keyslot argon2_keyslot(std::uint64_t offset_bytes, Kdf::Type type) {
  Keyslot keyslot = pbkdf2_keyslot(offset_bytes);
  keyslot.kdf = {.type = type,
                 .type_name = type == Kdf::Type::kArgon2i ? "argon2i" : "argon2id",
                 .hash = {},
                 .iterations = 4,
                 .memory_kib = 32,
                 .parallel = 1,
                 .salt = counting_bytes(32, 77),
                 .unknown = {}};
  return keyslot;
}

Digest pbkdf2_digest(std::set<int> keyslots, std::set<int> segments) {
  Digest digest;
  digest.keyslots = std::move(keyslots);
  digest.segments = std::move(segments);
  digest.hash = "sha256";
  digest.iterations = 1000;
  digest.salt = counting_bytes(32, 100);
  digest.digest = counting_bytes(32, 200);
  return digest;
}

Header empty_luks2() {
  Header header;
  header.uuid = "f9e8ff4e-2046-43b6-9cd5-5920909ef019";
  header.metadata_size_bytes = 0x4000;
  header.sequence_id = 3;
  header.config.json_size_bytes = 0x3000;
  header.config.keyslots_size_bytes = 16 * kMiB - 0x8000;
  return header;
}

Segment crypt_segment(std::uint64_t offset_bytes, std::optional<std::uint64_t> size_bytes,
                      std::set<std::string> flags) {
  Segment segment;
  segment.offset_bytes = offset_bytes;
  segment.size_bytes = size_bytes;
  segment.encryption = "aes-xts-plain64";
  segment.sector_size_bytes = 4096;
  segment.flags = std::move(flags);
  return segment;
}

Kdf random_kdf(Dice& dice) {
  Kdf kdf;
  kdf.type = dice.pick(
      {Kdf::Type::kPbkdf2, Kdf::Type::kArgon2i, Kdf::Type::kArgon2id, Kdf::Type::kUnknown});
  kdf.unknown = dice.unknown();
  if (kdf.type == Kdf::Type::kUnknown) {
    kdf.type_name = "argon3";
    kdf.unknown["salt"] = "7";
    return kdf;
  }
  kdf.iterations = dice.number32(1);
  kdf.salt = dice.bytes(dice.number(1, 100));
  if (kdf.type == Kdf::Type::kPbkdf2) {
    kdf.type_name = "pbkdf2";
    kdf.hash = dice.hash();
  } else {
    kdf.type_name = kdf.type == Kdf::Type::kArgon2i ? "argon2i" : "argon2id";
    kdf.memory_kib = dice.number32(1);
    kdf.parallel = dice.number32(1);
  }
  return kdf;
}

// With an area at `offset_bytes`, which it moves behind that area.
Keyslot random_keyslot(Dice& dice, std::uint64_t& offset_bytes) {
  Keyslot keyslot;
  keyslot.unknown = dice.unknown();
  keyslot.area.unknown = dice.unknown();
  keyslot.area.offset_bytes = offset_bytes;
  keyslot.area.size_bytes = 4096 * dice.number(1, 80);
  if (dice.number(0, 4) == 0) {
    keyslot.type = Keyslot::Type::kUnknown;
    keyslot.type_name = "x-" + dice.text();
    keyslot.key_size_bytes = dice.number32(0);
    keyslot.area.type = dice.pick<std::string>({"raw", "other"});
    keyslot.unknown["kdf"] = R"({"type":"pbkdf2"})";
    keyslot.area.unknown["encryption"] = "false";
  } else {
    keyslot.key_size_bytes = dice.number32(1, 512);
    keyslot.af.hash = dice.hash();
    keyslot.af.unknown = dice.unknown();
    keyslot.area.encryption = dice.encryption();
    keyslot.area.key_size_bytes = dice.number32(1, 512);
    const std::uint64_t material = std::uint64_t{keyslot.key_size_bytes} * 4000;
    keyslot.area.size_bytes = (material + 4095) / 4096 * 4096;
    keyslot.kdf = random_kdf(dice);
    keyslot.priority = dice.pick({Priority::kIgnore, Priority::kNormal, Priority::kPrefer});
  }
  offset_bytes += keyslot.area.size_bytes + 4096 * dice.number(0, 3);
  return keyslot;
}

Segment random_segment(Dice& dice, std::uint64_t& offset_bytes, bool last) {
  Segment segment;
  segment.offset_bytes = offset_bytes;
  if (!last || dice.coin()) segment.size_bytes = 4096 * dice.number(1, 1 << 20);
  offset_bytes += segment.size_bytes.value_or(0) + 4096 * dice.number(0, 2);
  segment.unknown = dice.unknown();
  if (dice.coin()) segment.flags.insert(dice.text());
  if (dice.coin()) segment.flags.insert("in-reencryption");
  segment.type =
      dice.pick({Segment::Type::kCrypt, Segment::Type::kLinear, Segment::Type::kUnknown});
  if (segment.type != Segment::Type::kCrypt) {
    const bool linear = segment.type == Segment::Type::kLinear;
    segment.type_name = linear ? "linear" : "hw-opal-crypt";
    if (!linear) segment.unknown["sector_size"] = "\"odd\"";
    return segment;
  }
  segment.iv_tweak = 8 * dice.number(0, 1 << 20);
  segment.encryption = dice.encryption();
  segment.sector_size_bytes = dice.pick<std::uint32_t>({512, 1024, 2048, 4096});
  segment.has_integrity = dice.number(0, 3) == 0;
  if (segment.has_integrity) {
    segment.unknown["integrity"] =
        R"json({"type":"hmac(sha256)", "journal_encryption":"none","journal_integrity":"none","x":[]})json";
  }
  return segment;
}

Digest random_digest(Dice& dice) {
  Digest digest;
  digest.unknown = dice.unknown();
  if (dice.number(0, 4) == 0) {
    digest.type = Digest::Type::kUnknown;
    digest.type_name = "x-" + dice.text();
    digest.unknown["salt"] = "[]";
    return digest;
  }
  digest.hash = dice.hash();
  digest.iterations = dice.number32(1);
  digest.salt = dice.bytes(dice.number(1, 64));
  digest.digest = dice.bytes(dice.number(16, 64));
  return digest;
}

void add_random_segments(Header& header, Dice& dice) {
  const auto count = static_cast<int>(dice.number(1, 4));
  std::uint64_t offset = 0;
  if (dice.number(0, 3) != 0) {
    offset = 2 * header.metadata_size_bytes + header.config.keyslots_size_bytes;
  }
  for (int i = 0; i < count; ++i) {
    header.segments[i] = random_segment(dice, offset, i == count - 1);
  }
  const auto backups = static_cast<int>(dice.number(0, 2));
  for (int i = count; i < count + backups; ++i) {
    std::uint64_t anywhere = 4096 * dice.number(0, 1000);
    header.segments[i] = random_segment(dice, anywhere, dice.coin());
    header.segments[i].flags.insert(i == count ? "backup-final" : "backup-x");
  }
}

void add_random_digests(Header& header, Dice& dice) {
  const auto count = static_cast<int>(dice.number(1, 8));
  for (int i = 0; i < count; ++i) {
    header.digests[i] = random_digest(dice);
    for (const auto& [id, keyslot] : header.keyslots) {
      const bool any = keyslot.type != Keyslot::Type::kLuks2;
      if (any && dice.number(0, 3) == 0) header.digests[i].keyslots.insert(id);
    }
  }
  const auto some_digest = [&] {
    return static_cast<int>(dice.number(0, static_cast<std::uint64_t>(count - 1)));
  };
  for (const auto& [id, keyslot] : header.keyslots) {
    if (keyslot.type == Keyslot::Type::kLuks2) header.digests[some_digest()].keyslots.insert(id);
  }
  for (const auto& [id, segment] : header.segments) {
    if (segment.type == Segment::Type::kCrypt || dice.coin()) {
      header.digests[some_digest()].segments.insert(id);
    }
  }
}

void add_random_tokens(Header& header, Dice& dice) {
  for (std::uint64_t i = dice.number(0, 4); i > 0; --i) {
    const auto id = static_cast<int>(dice.number(0, 31));
    header.tokens[id] = parse_token(
        dice.pick<std::string>({R"({"type":"x","keyslots":[]})",
                                "{ \"keyslots\" : [ ] ,\n \"n\":1.50, \"type\":\"\\u0061\\/€\" }",
                                R"({"type":"y","keyslots":[],"deep":[[[[{"a":[null]}]]]]})"}),
        "token");
    std::set<int> keyslots;
    for (const auto& [keyslot, unused] : header.keyslots) {
      if (dice.coin()) keyslots.insert(keyslot);
    }
    set_token_keyslots(header.tokens[id], keyslots);
  }
}

}  // namespace

Header sample_luks1() {
  Header header;
  header.version = Version::kLuks1;
  header.uuid = "0b1d1a6f-3f0e-4e0a-8b1c-0123456789ab";
  header.luks1_key_size_bytes = 32;
  header.segments[0] = crypt_segment(2 * kMiB, std::nullopt, {});
  header.segments[0].sector_size_bytes = 512;
  header.segments[0].encryption = "aes-cbc-essiv:sha256";
  header.digests[0] = pbkdf2_digest({0, 2}, {0});
  header.digests[0].digest.resize(20);
  for (std::size_t i = 0; i < header.luks1_slots.size(); ++i) {
    header.luks1_slots.at(i).material_offset_sectors = static_cast<std::uint32_t>(8 + 256 * i);
  }
  for (const int slot : {0, 2}) {
    Keyslot& keyslot = header.keyslots[slot];
    keyslot = pbkdf2_keyslot(
        512ULL * header.luks1_slots.at(static_cast<std::size_t>(slot)).material_offset_sectors);
    keyslot.key_size_bytes = 32;
    keyslot.area.size_bytes = 128000;
    keyslot.area.key_size_bytes = 32;
    keyslot.area.encryption = header.segments[0].encryption;
  }
  header.luks1_slots[1].inactive_iterations = 12345;  // as QEMU leaves them
  header.luks1_slots[1].inactive_salt[31] = std::byte{7};
  return header;
}

Header sample_luks2() {
  Header header = empty_luks2();
  header.label = "a label";
  header.subsystem = "a subsystem";
  header.keyslots[0] = pbkdf2_keyslot(0x8000);
  header.keyslots[1] = argon2_keyslot(0x8000 + 258048, Kdf::Type::kArgon2id);
  header.keyslots[1].priority = Priority::kPrefer;
  header.keyslots[5] = argon2_keyslot(0x8000 + 3 * 258048, Kdf::Type::kArgon2i);
  header.keyslots[5].key_size_bytes = 32;
  header.keyslots[5].area.size_bytes = 131072;
  header.keyslots[5].priority = Priority::kIgnore;
  header.tokens[0] = parse_token(
      R"({"type":"luks2-keyring","keyslots":["0"],"key_description":"a key"})", "token");
  header.tokens[3] =
      parse_token("{ \"keyslots\": [\"1\", \"0\"],\n \"type\":\"own\", \"n\": 1.50 }", "token");
  header.segments[0] = crypt_segment(16 * kMiB, 64 * kMiB, {"a-flag"});
  header.segments[0].iv_tweak = 8;
  header.segments[0].has_integrity = true;
  header.segments[0].unknown["integrity"] =
      R"json({"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"})json";
  header.digests[0] = pbkdf2_digest({0, 1}, {0});
  header.digests[1] = pbkdf2_digest({5}, {});
  header.config.flags = {"allow-discards", "no-read-workqueue"};
  header.config.requirements = {"inline-hw-tags"};
  header.config.requirements_unknown["optional"] = R"(["x"])";
  header.config.unknown["x-config"] = "1";
  header.keyslots[0].unknown["x-keyslot"] = "2";
  header.keyslots[0].af.unknown["x-af"] = "3";
  header.keyslots[0].area.unknown["x-area"] = "4";
  header.keyslots[0].kdf.unknown["x-kdf"] = "5";
  header.segments[0].unknown["x-segment"] = "6";
  header.digests[0].unknown["x-digest"] = "7";
  header.unknown["x-future"] = R"({"a": [1, 2.50]})";
  return header;
}

Header sample_reencryption() {
  Header header = empty_luks2();
  header.keyslots[0] = pbkdf2_keyslot(0x8000);
  header.keyslots[1] = pbkdf2_keyslot(0x8000 + 258048);
  Keyslot& work = header.keyslots[2];
  work.type = Keyslot::Type::kReencrypt;
  work.type_name = "reencrypt";
  work.key_size_bytes = 1;
  work.area.type = "datashift-checksum";
  work.area.offset_bytes = 0x8000 + 2 * 258048;
  work.area.size_bytes = 4 * kMiB;
  work.area.unknown = {
      {"hash", "\"sha256\""}, {"sector_size", "4096"}, {"shift_size", "\"16777216\""}};
  work.unknown = {{"mode", "\"reencrypt\""}, {"direction", "\"forward\""}, {"priority", "0"}};
  header.segments[0] = crypt_segment(16 * kMiB, 64 * kMiB, {});
  header.segments[1] = crypt_segment(80 * kMiB, 64 * kMiB, {"in-reencryption"});
  header.segments[2] = crypt_segment(144 * kMiB, std::nullopt, {});
  header.segments[3] = crypt_segment(16 * kMiB, std::nullopt, {"backup-previous"});
  header.segments[4] = crypt_segment(16 * kMiB, std::nullopt, {"backup-final"});
  header.digests[0] = pbkdf2_digest({0}, {2, 3});
  header.digests[1] = pbkdf2_digest({1}, {0, 1, 4});
  header.digests[2] = pbkdf2_digest({2}, {});
  header.config.requirements = {"online-reencrypt-v2"};
  return header;
}

Header random_luks1(std::mt19937_64& random) {
  Dice dice(random);
  Header header = sample_luks1();
  header.keyslots.clear();
  header.luks1_key_size_bytes = dice.number32(1, 512);
  const std::uint32_t key_size = header.luks1_key_size_bytes;
  const std::uint32_t sectors = (key_size * 4000 + 511) / 512;
  Segment& segment = header.segments[0];
  segment.encryption = dice.pick<std::string>({"aes", "aes-ecb", "a-b-c-d", "cipher_null-ecb"});
  Digest& digest = header.digests[0];
  digest.keyslots.clear();
  digest.hash = dice.hash();
  digest.iterations = dice.number32(1);
  digest.salt = dice.bytes(32);
  digest.digest = dice.bytes(20);
  std::uint32_t offset = dice.number32(2, 100);
  for (std::size_t i = 0; i < header.luks1_slots.size(); ++i) {
    Luks1Slot& slot = header.luks1_slots.at(7 - i);
    slot = {};
    slot.material_offset_sectors = offset;
    offset += sectors + dice.number32(0, 1000);
    if (dice.coin()) {
      slot.inactive_iterations = dice.number32(0);
      const Bytes salt = dice.bytes(32);
      std::copy(salt.begin(), salt.end(), slot.inactive_salt.begin());
      continue;
    }
    Keyslot& keyslot = header.keyslots[static_cast<int>(7 - i)];
    keyslot = pbkdf2_keyslot(512ULL * slot.material_offset_sectors);
    keyslot.key_size_bytes = keyslot.area.key_size_bytes = key_size;
    keyslot.area.size_bytes = 512ULL * sectors;
    keyslot.area.encryption = segment.encryption;
    keyslot.af.hash = keyslot.kdf.hash = digest.hash;
    keyslot.kdf.iterations = dice.number32(1);
    keyslot.kdf.salt = dice.bytes(32);
    digest.keyslots.insert(static_cast<int>(7 - i));
  }
  segment.offset_bytes = dice.coin() ? 0 : 512 * dice.number(offset, UINT32_MAX);
  return header;
}

Header random_luks2(std::mt19937_64& random) {
  Dice dice(random);
  Header header = empty_luks2();
  header.label = dice.coin() ? "" : dice.text();
  header.subsystem = dice.coin() ? "" : std::string(47, 'x');
  header.sequence_id = dice.number(0, UINT64_MAX);
  header.checksum_algorithm = dice.pick<std::string>({"sha256", "SHA512", "sha1", "sha256"});
  header.metadata_size_bytes =
      kLuks2MetadataSizes.at(dice.number(1, dice.number(0, 9) == 0 ? 8 : 2));
  header.config.json_size_bytes = header.metadata_size_bytes - 4096;
  header.config.keyslots_size_bytes = 128 * kMiB;
  if (dice.coin()) header.config.flags.insert(dice.text());
  if (dice.coin()) header.config.requirements.insert(dice.text());
  header.config.requirements_unknown = dice.unknown();
  header.config.unknown = dice.unknown();
  header.unknown = dice.unknown();
  std::uint64_t area = 2 * header.metadata_size_bytes;
  for (std::uint64_t i = dice.number(0, 6); i > 0; --i) {
    header.keyslots[static_cast<int>(dice.number(0, 31))] = random_keyslot(dice, area);
  }
  add_random_segments(header, dice);
  add_random_digests(header, dice);
  add_random_tokens(header, dice);
  return header;
}

Bytes read_header_image(const std::string& name) {
  const std::string path = std::string(LUKSKEEP_SOURCE_DIR) + "/tests/images/headers/" + name;
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  EXPECT_GE(text.size(), kLuks1HeaderBytes) << path;
  const ByteView view = as_byte_view(text);
  Bytes bytes(view.begin(), view.end());
  if (name.find(".luks2") != std::string::npos) {
    bytes.resize(static_cast<std::size_t>(load_be<std::uint64_t>(&bytes.at(8))));
  }
  return bytes;
}

void fix_luks2_checksum(Bytes& copy) {
  std::fill_n(copy.begin() + 448, 64, std::byte{0});
  const Bytes sum = crypto::hash("sha256", copy);
  std::copy(sum.begin(), sum.end(), copy.begin() + 448);
}

Bytes luks2_copy_with_json(Bytes copy, std::string_view json) {
  std::fill(copy.begin() + 4096, copy.end(), std::byte{0});
  const ByteView text = as_byte_view(json);
  std::copy(text.begin(), text.end(), copy.begin() + 4096);
  fix_luks2_checksum(copy);
  return copy;
}

}  // namespace lukskeep::luks::testing
