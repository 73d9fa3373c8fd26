#include "image/volume_type.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/limits.h"
#include "crypto/cipher_spec.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"

namespace lukskeep::image {
namespace {

using crypto::CipherMode;
using crypto::CipherSpec;

// ---- reading the type ----------------------------------------------------------------------

// Names of classes that Cinder still maps to formats (os_brick/encryptors/__init__.py).
struct LegacyProvider {
  std::string_view end;
  std::string_view provider;
};
constexpr std::array kLegacyProviders = {
    LegacyProvider{"LuksEncryptor", "luks"},
    LegacyProvider{"CryptsetupEncryptor", "plain"},
    LegacyProvider{"NoOpEncryptor", ""},
};

[[noreturn]] void refuse_member(std::string_view what, std::string_view member,
                                std::string_view expected) {
  throw Error(Code::kInvalidArgument, fmt::format("{}: '{}' is no {}", what, member, expected));
}

const Json* find_member(const Json& object, const char* member) {
  const auto found = object.find(member);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const Json* find_object(const Json& object, const char* member, std::string_view what) {
  const Json* found = find_member(object, member);
  if (found != nullptr && !found->is_object()) refuse_member(what, member, "object");
  return found;
}

std::string read_text(const Json& object, const char* member, std::string_view what) {
  const Json* found = find_member(object, member);
  if (found == nullptr) return {};
  if (!found->is_string()) refuse_member(what, member, "text");
  return found->get<std::string>();
}

// The client prints numbers as text here and there.
std::optional<std::uint64_t> read_number(const Json& object, const char* member,
                                         std::string_view what) {
  const Json* found = find_member(object, member);
  if (found == nullptr) return {};
  if (found->is_number_unsigned()) return found->get<std::uint64_t>();
  const std::string text = found->is_string() ? found->get<std::string>() : std::string();
  if (text.empty() || text.size() > 9 ||
      text.find_first_not_of("0123456789") != std::string::npos) {
    refuse_member(what, member, "whole number");
  }
  return std::stoull(text);
}

void read_encryption(const Json& encryption, std::string_view what, VolumeType& type) {
  type.provider = read_text(encryption, "provider", what);
  for (const LegacyProvider& legacy : kLegacyProviders) {
    if (type.provider.ends_with(legacy.end)) {
      type.provider = legacy.provider;
      break;
    }
  }
  type.cipher = read_text(encryption, "cipher", what);
  type.control_location = read_text(encryption, "control_location", what);
  const auto bits = read_number(encryption, "key_size", what);
  if (!bits) return;
  if (*bits > limits::kOrderBitsMax) refuse_member(what, "key_size", "possible size");
  type.key_bits = static_cast<std::uint32_t>(*bits);
}

// ---- judging -------------------------------------------------------------------------------

constexpr std::string_view kLuks = "luks";
constexpr std::string_view kLuks2 = "luks2";
constexpr std::string_view kPlain = "plain";
constexpr std::uint64_t kLuks2HeaderBytes = 16 * limits::kMiB;

// What Cinder hands to qemu-img, and what a disk with partitions is to it.
constexpr std::array<std::string_view, 12> kConvertible = {
    "raw", "gpt", "mbr", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "ploop", "luks1", "luks2"};
// What a guest finds on a disk.
constexpr std::array<std::string_view, 4> kDisks = {"raw", "gpt", "mbr", "iso"};

template <typename Names>
bool is_one_of(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Key sizes and names of qemu/crypto/block-luks.c. A key of 24 bytes ends qemu-img: its key
// material is no whole sectors.
bool qemu_opens(const CipherSpec& spec, std::uint32_t key_bytes) {
  using crypto::BlockCipher;
  using crypto::IvGenerator;
  if (spec.iv != IvGenerator::kPlain && spec.iv != IvGenerator::kPlain64 &&
      spec.iv != IvGenerator::kEssiv && spec.iv != IvGenerator::kNone) {
    return false;
  }
  if (spec.mode == CipherMode::kLrw || key_bytes * luks::kNewStripes % 512 != 0) return false;
  const bool xts = spec.mode == CipherMode::kXts;
  const std::uint32_t half = xts ? key_bytes / 2 : key_bytes;
  switch (spec.cipher) {
    case BlockCipher::kAes:
    case BlockCipher::kSerpent:
    case BlockCipher::kTwofish:
      return half == 16 || half == 24 || half == 32;
    case BlockCipher::kCast5:
      return !xts && half == 16;
    default:
      return false;
  }
}

std::optional<CipherSpec> parse_spec(const std::string& text) {
  try {
    return crypto::parse_cipher_spec(text);
  } catch (const Error&) {
    return {};
  }
}

bool takes_key(const CipherSpec& spec, std::uint32_t key_bytes) {
  const auto sizes = crypto::key_sizes_bytes(spec);
  return std::find(sizes.begin(), sizes.end(), key_bytes) != sizes.end();
}

std::uint64_t divide_up(std::uint64_t value, std::uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}

class Judge {
 public:
  Judge(const VolumeType& type, const ImageFacts& facts, BackEnd back_end)
      : type_(type), facts_(facts), verdict_{.back_end = back_end} {}

  Verdict run(std::optional<std::uint64_t> size_gib) {
    judge_format();
    judge_type();
    if (facts_.encrypted) {
      judge_encrypted();
    } else if (type_.encrypted()) {
      judge_new_encryption();
    }
    judge_size(size_gib);
    return std::move(verdict_);
  }

 private:
  bool rbd() const { return verdict_.back_end == BackEnd::kRbd; }
  void refuse(std::string_view name, std::string what, std::string remedy) {
    verdict_.reasons.push_back(
        {.name = name, .what = std::move(what), .remedy = std::move(remedy)});
  }
  void remark(std::string_view name, std::string what, std::string remedy) {
    refuse(name, std::move(what), std::move(remedy));
    verdict_.reasons.back().refuses = false;
  }

  void judge_format();
  void judge_type();
  void judge_encrypted();
  void judge_version();
  void judge_header_cipher();
  void judge_key();
  void judge_new_encryption();
  void judge_new_cipher(const CipherSpec& spec);
  std::uint32_t used_bits(const CipherSpec& spec, std::uint32_t bits) const;
  void judge_size(std::optional<std::uint64_t> size_gib);
  std::uint64_t new_header_bytes() const;

  const VolumeType& type_;
  const ImageFacts& facts_;
  Verdict verdict_;
};

void Judge::judge_format() {
  if (is_one_of(kConvertible, facts_.format)) return;
  refuse("image-format",
         fmt::format("Cinder makes no volume of {}, or stores it as it is", facts_.format),
         "convert the image to raw or qcow2 first");
}

void Judge::judge_type() {
  if (!type_.encrypted()) return;
  if (type_.provider != kLuks && type_.provider != kLuks2 && type_.provider != kPlain) {
    return refuse("type-provider",
                  fmt::format("nobody knows the provider '{}'", printable(type_.provider)),
                  "the provider is luks or luks2");
  }
  if (type_.control_location != "front-end") {
    refuse("type-control-location",
           fmt::format("with the control location '{}' nobody encrypts or decrypts",
                       printable(type_.control_location)),
           "it must be front-end");
  }
  if (rbd() && type_.provider != kLuks) {
    refuse("type-provider",
           fmt::format("Cinder's RBD driver refuses the provider {}", type_.provider),
           "use a type with the provider luks");
  } else if (type_.provider == kPlain) {
    remark("type-plain", "plain volumes have no header: their key can never be changed",
           "use a type with the provider luks2");
  }
}

void Judge::judge_encrypted() {
  if (!type_.encrypted()) {
    return refuse("type-not-encrypted",
                  "the image is encrypted and the type is not: Cinder copies it as it is, and the "
                  "server never boots",
                  "choose a type with encryption, or decrypt the image");
  }
  if (facts_.header == nullptr) {
    return refuse("luks-in-qcow2",
                  "the image is encrypted inside qcow2, which no released Cinder takes apart",
                  "'lukskeep image convert' makes a raw LUKS image of it");
  }
  if (type_.provider == kPlain) {
    refuse("type-provider", "the provider plain decrypts the LUKS header as if it were data",
           "use a type with the provider luks or luks2");
  }
  judge_version();
  judge_header_cipher();
  judge_key();
  if (!facts_.inner_format.empty() && !is_one_of(kDisks, facts_.inner_format)) {
    refuse("inner-format",
           fmt::format("under the encryption is {}, which a guest takes for the disk itself",
                       facts_.inner_format),
           "encrypt the raw disk: 'lukskeep image encrypt' takes qcow2 apart");
  }
}

// With the provider luks Nova has QEMU open the volume, which knows LUKS1 only; luks2 goes through
// cryptsetup, which opens both.
void Judge::judge_version() {
  const bool luks1 = facts_.header->version == luks::Version::kLuks1;
  if (!luks1 && type_.provider == kLuks) {
    refuse("luks2-in-luks1-type",
           "the image is LUKS2, and with the provider luks QEMU opens it, which knows LUKS1 only",
           rbd() ? "'lukskeep image rekey --type luks1' makes a LUKS1 image of it"
                 : "use a type with the provider luks2, or 'lukskeep image rekey --type luks1'");
  } else if (luks1 && type_.provider == kLuks2) {
    remark("luks1-in-luks2-type", "the image is LUKS1 and stays so, whatever the type says",
           "'lukskeep image rekey --type luks2' makes a LUKS2 image of it");
  }
}

// The header decides; what the type says is for volumes that are made empty.
void Judge::judge_header_cipher() {
  const auto& segments = facts_.header->segments;
  if (segments.empty()) return;
  const std::string& encryption = segments.begin()->second.encryption;
  const std::optional<CipherSpec> spec = parse_spec(encryption);
  std::uint32_t key_bytes = facts_.header->luks1_key_size_bytes;
  if (facts_.header->version == luks::Version::kLuks2 && !facts_.header->keyslots.empty()) {
    key_bytes = facts_.header->keyslots.begin()->second.key_size_bytes;
  }
  verdict_.cipher = spec ? crypto::to_string(*spec) : printable(encryption);
  verdict_.key_bits = key_bytes * 8;
  const bool qemu = rbd() || type_.provider == kLuks;
  if (qemu && facts_.header->version == luks::Version::kLuks1 &&
      !(spec && qemu_opens(*spec, key_bytes))) {
    refuse("cipher-not-in-qemu",
           fmt::format("QEMU, which opens the volume, has no {} with a key of {} bits",
                       verdict_.cipher, key_bytes * 8),
           "'lukskeep image rekey --type luks1 --cipher aes-xts-plain64'");
  }
  const std::optional<CipherSpec> said = parse_spec(type_.cipher);
  if (!said || !type_.key_bits) return;
  const std::uint32_t said_bits = used_bits(*said, *type_.key_bits);
  if (said != spec || said_bits != key_bytes * 8) {
    remark("cipher-differs",
           fmt::format("the type means {} of {} bits here; the volume keeps the image's {} of {}",
                       crypto::to_string(*said), said_bits, verdict_.cipher, key_bytes * 8),
           "'lukskeep image rekey' if that is not meant");
  }
}

// Nova turns every secret into hex before it opens a volume, whatever its type.
void Judge::judge_key() {
  if (facts_.key_type && *facts_.key_type != keys::SecretType::kSymmetric) {
    refuse("key-type",
           fmt::format("the secret is of the type {}; Nova opens volumes with the hex of a "
                       "symmetric key only",
                       keys::secret_type_name(*facts_.key_type)),
           "'lukskeep image rekey' with a symmetric key of the key manager");
  } else if (facts_.hex_opens && !*facts_.hex_opens) {
    refuse("key-does-not-open", "the hex of the secret, which Nova uses, opens no keyslot",
           "name the right secret, or 'lukskeep image rekey'");
  }
}

// The volume is made with the type's cipher, and the image copied into it.
void Judge::judge_new_encryption() {
  if (type_.cipher.empty() || !type_.key_bits) {
    return refuse("type-incomplete",
                  fmt::format("the type names no {}, and Cinder needs it to order a key",
                              type_.cipher.empty() ? "cipher" : "key size"),
                  "aes-xts-plain64 and a key size of 256");
  }
  const std::optional<CipherSpec> spec = parse_spec(type_.cipher);
  if (!spec) {
    return refuse("type-cipher",
                  fmt::format("nobody knows the cipher '{}'", printable(type_.cipher)),
                  "aes-xts-plain64");
  }
  if (crypto::is_insecure(*spec)) {
    return refuse("type-cipher", fmt::format("'{}' encrypts nothing", printable(type_.cipher)),
                  "aes-xts-plain64");
  }
  judge_new_cipher(*spec);
}

// cryptsetup takes the key size for the whole volume key; Cinder's RBD driver makes the name of a
// cipher of it ("aes-256"), whose key QEMU takes twice for xts.
std::uint32_t Judge::used_bits(const CipherSpec& spec, std::uint32_t bits) const {
  return rbd() && spec.mode == CipherMode::kXts ? bits * 2 : bits;
}

void Judge::judge_new_cipher(const CipherSpec& spec) {
  const std::uint32_t bits = type_.key_bits.value_or(0);
  const std::uint32_t used = used_bits(spec, bits);
  verdict_.cipher = crypto::to_string(spec);
  verdict_.key_bits = used;
  const bool works =
      bits % 8 == 0 && takes_key(spec, used / 8) && (!rbd() || qemu_opens(spec, used / 8));
  if (!works) {
    return refuse("type-key-size",
                  fmt::format("a key size of {} means {}, which does not exist", bits,
                              rbd() ? fmt::format("'{}-{}' to qemu-img",
                                                  crypto::block_cipher_name(spec.cipher), bits)
                                    : fmt::format("a key of {} bits to cryptsetup", used)),
                  rbd() ? "a key size of 256" : "a key size of 256 or, for xts, 512");
  }
  if (spec.mode == CipherMode::kXts) {
    remark("key-size-meaning",
           fmt::format("a key size of {} becomes {} of {} bits here", bits, verdict_.cipher, used),
           rbd() ? "with cryptsetup the same type makes a key of half the size"
                 : "on RBD the same type makes a key of twice the size");
  }
}

std::uint64_t Judge::new_header_bytes() const {
  if (!type_.encrypted() || facts_.encrypted || type_.provider == kPlain) return 0;
  if (type_.provider == kLuks2) return kLuks2HeaderBytes;
  const std::uint32_t key_bytes = verdict_.key_bits.value_or(512) / 8;
  const std::uint64_t areas = luks::kLuks1KeyslotCount * luks::keyslot_area_bytes(key_bytes);
  // QEMU puts the payload right behind the keyslots.
  const std::uint64_t end = luks::kAreaAlignmentBytes + areas;
  return rbd() ? end : luks::round_up(end, luks::kPayloadAlignmentBytes);
}

void Judge::judge_size(std::optional<std::uint64_t> size_gib) {
  const bool whole_file = facts_.encrypted && facts_.header != nullptr;
  const std::uint64_t held =
      whole_file ? facts_.size_bytes : facts_.virtual_size_bytes.value_or(facts_.size_bytes);
  const std::uint64_t header = new_header_bytes();
  verdict_.volume_bytes_min = held > UINT64_MAX - header ? UINT64_MAX : held + header;
  verdict_.size_gib_min =
      std::max<std::uint64_t>(1, divide_up(verdict_.volume_bytes_min, limits::kGiB));
  const std::uint64_t wanted = size_gib.value_or(verdict_.size_gib_min);
  if (wanted < verdict_.size_gib_min) {
    refuse("volume-too-small",
           fmt::format("{} GiB do not hold {} bytes{}: Cinder cuts the end off", wanted,
                       verdict_.volume_bytes_min,
                       header != 0 ? fmt::format(", {} of them the header that it adds", header)
                                   : std::string()),
           fmt::format("ask for a volume of {} GiB", verdict_.size_gib_min));
  }
  if (type_.size_gib_max && wanted > *type_.size_gib_max) {
    refuse("type-size",
           fmt::format("{} GiB are above the {} that volumes of the type have at most", wanted,
                       *type_.size_gib_max),
           "use another type");
  }
  if (type_.size_gib_min && wanted < *type_.size_gib_min) {
    if (size_gib) {
      refuse("type-size",
             fmt::format("{} GiB are below the {} that volumes of the type have at "
                         "least",
                         wanted, *type_.size_gib_min),
             fmt::format("ask for {} GiB", *type_.size_gib_min));
    } else {
      verdict_.size_gib_min = *type_.size_gib_min;
    }
  }
}

}  // namespace

std::string_view back_end_name(BackEnd back_end) noexcept {
  return back_end == BackEnd::kBrick ? "brick" : "rbd";
}

VolumeType parse_volume_type(std::string_view text, std::string_view what) {
  const Json json = parse_json(text, what);
  if (!json.is_object()) {
    throw Error(Code::kInvalidArgument, fmt::format("{}: no JSON object", what));
  }
  const Json* wrapped = find_object(json, "volume_type", what);
  const Json& body = wrapped != nullptr ? *wrapped : json;
  const bool alone = body.contains("provider");
  if (!alone && !body.contains("name") && !body.contains("encryption")) {
    throw Error(Code::kInvalidArgument, fmt::format("{}: no volume type", what),
                "openstack volume type show NAME --encryption-type -f json");
  }
  VolumeType type{.name = read_text(body, "name", what)};
  const Json* encryption = find_object(body, "encryption", what);
  if (encryption == nullptr) encryption = find_object(json, "encryption", what);
  if (alone) encryption = &body;
  if (encryption != nullptr) read_encryption(*encryption, what, type);
  for (const char* member : {"extra_specs", "properties"}) {
    const Json* specs = find_object(body, member, what);
    if (specs == nullptr) continue;
    type.size_gib_min = read_number(*specs, "provisioning:min_vol_size", what);
    type.size_gib_max = read_number(*specs, "provisioning:max_vol_size", what);
    break;
  }
  return type;
}

bool Verdict::allowed() const noexcept {
  return std::none_of(reasons.begin(), reasons.end(),
                      [](const Reason& reason) { return reason.refuses; });
}

Verdict judge_volume(const VolumeType& type, const ImageFacts& facts, BackEnd back_end,
                     std::optional<std::uint64_t> size_gib) {
  return Judge(type, facts, back_end).run(size_gib);
}

}  // namespace lukskeep::image
