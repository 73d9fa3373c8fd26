#include "luks/luks2_codec.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/hash.h"
#include "luks/luks2_json.h"

namespace lukskeep::luks {
namespace {

// LUKS2 §2.1, the binary header: all numbers are big endian.
constexpr std::size_t kMagicBytes = 6;
constexpr std::array<unsigned char, kMagicBytes> kPrimaryMagic = {'L', 'U', 'K', 'S', 0xba, 0xbe};
constexpr std::array<unsigned char, kMagicBytes> kSecondaryMagic = {'S', 'K', 'U', 'L', 0xba, 0xbe};
constexpr std::size_t kVersionOffset = 6;
constexpr std::size_t kSizeOffset = 8;
constexpr std::size_t kSequenceIdOffset = 16;
constexpr std::size_t kLabelOffset = 24;
constexpr std::size_t kLabelBytes = 48;
constexpr std::size_t kChecksumAlgorithmOffset = 72;
constexpr std::size_t kChecksumAlgorithmBytes = 32;
constexpr std::size_t kSaltOffset = 104;

constexpr std::size_t kUuidOffset = 168;
constexpr std::size_t kUuidBytes = 40;
constexpr std::size_t kSubsystemOffset = 208;
constexpr std::size_t kSubsystemBytes = 48;
constexpr std::size_t kHeaderOffsetOffset = 256;
constexpr std::size_t kChecksumOffset = 448;
constexpr std::size_t kChecksumBytes = 64;
constexpr std::uint16_t kVersion = 2;

[[noreturn]] void damaged(std::string_view what, std::string_view problem) {
  throw Error(Code::kDamaged, fmt::format("{}: {}", what, problem));
}

bool is_legal_size(std::uint64_t size_bytes) {
  return std::find(kLuks2MetadataSizes.begin(), kLuks2MetadataSizes.end(), size_bytes) !=
         kLuks2MetadataSizes.end();
}

bool has_magic(ByteView bytes, const std::array<unsigned char, kMagicBytes>& magic) {
  const ByteView wanted = std::as_bytes(std::span(magic));
  return bytes.size() >= kMagicBytes && std::equal(wanted.begin(), wanted.end(), bytes.begin());
}

std::string read_text(ByteView copy, std::size_t offset, std::size_t size_bytes,
                      std::string_view what, std::string_view field) {
  const std::string_view text = as_string_view(copy.subspan(offset, size_bytes));
  const std::size_t end = text.find('\0');
  if (end == std::string_view::npos) {
    damaged(what, fmt::format("LUKS2 {} '{}' has no terminating zero", field, printable(text)));
  }
  return std::string(text.substr(0, end));
}

// The checksum of a whole copy, counting the bytes of its own field as zero.
Bytes checksum(const std::string& algorithm, ByteView copy) {
  static constexpr std::array<std::byte, kChecksumBytes> kZeros{};
  crypto::Hash hash(algorithm);
  hash.update(copy.first(kChecksumOffset));
  hash.update(kZeros);
  hash.update(copy.subspan(kChecksumOffset + kChecksumBytes));
  Bytes sum(hash.digest_bytes());
  hash.finish(sum);
  return sum;
}

void check_checksum(const std::string& algorithm, ByteView copy, std::string_view what) {
  const auto info = crypto::find_hash(algorithm);
  if (!info || info->digest_bytes > kChecksumBytes) {
    damaged(what, fmt::format("LUKS2 checksum algorithm '{}' is unknown", printable(algorithm)));
  }
  const ByteView stored = copy.subspan(kChecksumOffset, info->digest_bytes);
  const Bytes computed = checksum(algorithm, copy);
  if (!std::equal(stored.begin(), stored.end(), computed.begin())) {
    damaged(what, "LUKS2 checksum does not match the metadata");
  }
}

// The text before the padding. LUKS2 §2.2: it starts with '{', and only zeros follow it, one at
// least.
std::string_view json_text(ByteView area, std::string_view what) {
  const std::string_view text = as_string_view(area);
  if (text.front() != '{') damaged(what, "LUKS2 JSON does not start with '{'");
  const std::size_t end = text.find('\0');
  if (end == std::string_view::npos) damaged(what, "LUKS2 JSON has no terminating zero");
  if (!all_zero(area.subspan(end))) damaged(what, "LUKS2 JSON is followed by other bytes than 0");
  return text.substr(0, end);
}

// The model with what stands outside of the JSON.
Header binary_part(const Header& header) {
  Header part;
  part.uuid = header.uuid;
  part.label = header.label;
  part.subsystem = header.subsystem;
  part.metadata_size_bytes = header.metadata_size_bytes;
  part.sequence_id = header.sequence_id;
  part.checksum_algorithm = header.checksum_algorithm;
  return part;
}

// Both kinds of rules on the model, and whether its JSON means the model again: a value that JSON
// cannot express, or that decoding takes for something else, must not reach a disk.
void validate(const Header& header, std::string_view json, std::string_view what) {
  check_luks2_rules(header, what);
  Header decoded = binary_part(header);
  decode_luks2_json(json, what, decoded);
  if (decoded != header) damaged(what, "values that LUKS2 metadata has no member for");
}

void write_bytes(Bytes& out, std::size_t offset, ByteView bytes) {
  std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<std::ptrdiff_t>(offset));
}

}  // namespace

std::optional<Luks2Prefix> decode_luks2_prefix(ByteView bytes, std::uint64_t expected_offset_bytes,
                                               std::string_view what) {
  const bool primary = expected_offset_bytes == 0;
  if (!has_magic(bytes, primary ? kPrimaryMagic : kSecondaryMagic)) return std::nullopt;
  const bool has_version = bytes.size() >= kVersionOffset + sizeof(std::uint16_t);
  const auto version = has_version ? load_be<std::uint16_t>(&bytes[kVersionOffset]) : kVersion;
  if (primary && version == 1) return std::nullopt;  // LUKS1 has the same magic
  if (bytes.size() < kLuks2BinaryHeaderBytes) {
    damaged(what, fmt::format("LUKS2 header ends after {} of {} bytes", bytes.size(),
                              kLuks2BinaryHeaderBytes));
  }
  if (version != kVersion) {
    throw Error(Code::kUnsupported, fmt::format("{}: LUKS version {} is unknown", what, version));
  }
  Luks2Prefix prefix;
  prefix.copy = primary ? Luks2Copy::kPrimary : Luks2Copy::kSecondary;
  prefix.metadata_size_bytes = load_be<std::uint64_t>(&bytes[kSizeOffset]);
  prefix.sequence_id = load_be<std::uint64_t>(&bytes[kSequenceIdOffset]);
  prefix.offset_bytes = load_be<std::uint64_t>(&bytes[kHeaderOffsetOffset]);
  if (!is_legal_size(prefix.metadata_size_bytes)) {
    damaged(what, fmt::format("LUKS2 metadata size of {} bytes is not one of the nine legal ones",
                              prefix.metadata_size_bytes));
  }
  if (prefix.offset_bytes != expected_offset_bytes) {
    damaged(what, fmt::format("LUKS2 copy at byte {} says that it is at byte {}",
                              expected_offset_bytes, prefix.offset_bytes));
  }
  if (!primary && prefix.metadata_size_bytes != expected_offset_bytes) {
    damaged(what, fmt::format("secondary LUKS2 copy of {} bytes stands at byte {}",
                              prefix.metadata_size_bytes, expected_offset_bytes));
  }
  return prefix;
}

Header decode_luks2(ByteView copy, std::uint64_t expected_offset_bytes, std::string_view what) {
  const auto prefix = decode_luks2_prefix(copy, expected_offset_bytes, what);
  if (!prefix) damaged(what, "no LUKS2 header");
  if (copy.size() != prefix->metadata_size_bytes) {
    damaged(what, fmt::format("LUKS2 metadata has {} bytes, not {}", copy.size(),
                              prefix->metadata_size_bytes));
  }
  Header header;
  header.metadata_size_bytes = prefix->metadata_size_bytes;
  header.sequence_id = prefix->sequence_id;
  header.checksum_algorithm = read_text(copy, kChecksumAlgorithmOffset, kChecksumAlgorithmBytes,
                                        what, "checksum algorithm");
  check_checksum(header.checksum_algorithm, copy, what);
  header.label = read_text(copy, kLabelOffset, kLabelBytes, what, "label");
  header.uuid = read_text(copy, kUuidOffset, kUuidBytes, what, "UUID");
  header.subsystem = read_text(copy, kSubsystemOffset, kSubsystemBytes, what, "subsystem");
  decode_luks2_json(json_text(copy.subspan(kLuks2BinaryHeaderBytes), what), what, header);
  check_luks2_rules(header, what);
  return header;
}

void validate_luks2(const Header& header, std::string_view what) {
  std::string json;
  try {
    json = luks2_json(header);
  } catch (const Error& error) {
    damaged(what, error.message());
  }
  validate(header, json, what);
}

Bytes encode_luks2(const Header& header, Luks2Copy copy, ByteView salt) {
  if (salt.size() != kLuks2SaltBytes) {
    throw Error(Code::kInvalidArgument, fmt::format("salt of a LUKS2 copy has {} bytes, not {}",
                                                    salt.size(), kLuks2SaltBytes));
  }
  std::string json;
  try {
    json = luks2_json(header);
    validate(header, json, "LUKS2 header");
  } catch (const Error& error) {
    throw Error(Code::kInvalidArgument, error.message());
  }
  const std::uint64_t room = header.config.json_size_bytes - 1;  // one zero stays behind it
  if (json.size() > room) {
    throw Error(Code::kNoSpace,
                fmt::format("LUKS2 metadata needs {} bytes, {} more than there is room for",
                            json.size(), json.size() - room),
                "remove tokens or keyslots, or make the volume with a larger metadata size");
  }
  const bool primary = copy == Luks2Copy::kPrimary;
  Bytes out(header.metadata_size_bytes);
  write_bytes(out, 0, std::as_bytes(std::span(primary ? kPrimaryMagic : kSecondaryMagic)));
  store_be(&out[kVersionOffset], kVersion);
  store_be(&out[kSizeOffset], header.metadata_size_bytes);
  store_be(&out[kSequenceIdOffset], header.sequence_id);
  write_bytes(out, kLabelOffset, as_byte_view(header.label));
  write_bytes(out, kChecksumAlgorithmOffset, as_byte_view(header.checksum_algorithm));
  write_bytes(out, kSaltOffset, salt);
  write_bytes(out, kUuidOffset, as_byte_view(header.uuid));
  write_bytes(out, kSubsystemOffset, as_byte_view(header.subsystem));
  store_be(&out[kHeaderOffsetOffset], primary ? std::uint64_t{0} : header.metadata_size_bytes);
  write_bytes(out, kLuks2BinaryHeaderBytes, as_byte_view(json));
  write_bytes(out, kChecksumOffset, checksum(header.checksum_algorithm, out));
  return out;
}

}  // namespace lukskeep::luks
