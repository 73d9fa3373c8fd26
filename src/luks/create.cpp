#include "luks/create.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "base/parallel_for.h"
#include "base/uuid.h"
#include "crypto/cipher_spec.h"
#include "crypto/hash.h"
#include "crypto/kdf.h"
#include "crypto/random.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks {
namespace {

constexpr std::uint32_t kLuks1DigestBytes = 20;       // LUKS1 §2.1, "mk-digest"
constexpr std::uint32_t kDigestIterationsMin = 1000;  // LUKS1 §2.1, LUKS2 §3.2.5
constexpr std::chrono::milliseconds kDigestTarget{125};
constexpr std::uint64_t kLuks2HeaderBytesDefault = 16 * limits::kMiB;
constexpr std::uint64_t kLuks2MetadataBytesDefault = 16 * limits::kKiB;
constexpr std::size_t kLabelBytesMax = 47;

std::uint32_t default_key_size(const crypto::CipherSpec& spec) {
  const std::vector<std::uint32_t> sizes = crypto::key_sizes_bytes(spec);
  if (sizes.empty()) return 32;
  const std::uint32_t wanted = spec.mode == crypto::CipherMode::kXts   ? 64
                               : spec.mode == crypto::CipherMode::kLrw ? 48
                                                                       : 32;
  std::uint32_t best = sizes.front();
  for (const std::uint32_t size : sizes) {
    if (size <= wanted) best = std::max(best, size);
  }
  return best;
}

std::uint32_t sector_size(const CreateOptions& options) {
  if (options.sector_size_bytes == 0) return options.version == Version::kLuks1 ? 512 : 4096;
  const std::uint32_t size = options.sector_size_bytes;
  const bool legal = size == 512 || size == 1024 || size == 2048 || size == 4096;
  if (!legal) {
    throw Error(Code::kInvalidArgument, fmt::format("sector size {} is not possible", size),
                "it is 512, 1024, 2048 or 4096");
  }
  if (options.version == Version::kLuks1 && size != 512) {
    throw Error(Code::kInvalidArgument, "LUKS1 has sectors of 512 bytes only", "use LUKS2");
  }
  return size;
}

crypto::CipherSpec checked_cipher(const CreateOptions& options) {
  const crypto::CipherSpec spec = crypto::parse_cipher_spec(options.cipher);
  if (crypto::is_insecure(spec) && !options.allow_insecure) {
    throw Error(Code::kUnsafe, fmt::format("'{}' encrypts nothing", printable(options.cipher)),
                "--allow-insecure uses it all the same");
  }
  return spec;
}

std::uint32_t checked_key_size(const CreateOptions& options, const crypto::CipherSpec& spec) {
  std::uint32_t size = options.key_size_bytes;
  if (!options.volume_key.empty()) {
    const auto given = static_cast<std::uint32_t>(options.volume_key.size());
    if (size != 0 && size != given) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("the volume key given has {} bits, the key size asked for is {}",
                              given * 8, size * 8));
    }
    size = given;
  }
  if (size == 0) size = default_key_size(spec);
  if (size > limits::kVolumeKeyBytesMax) {
    throw Error(Code::kInvalidArgument, fmt::format("a key of {} bits is too large", size * 8));
  }
  crypto::check_key_size(spec, size);
  return size;
}

void check_luks1_options(const CreateOptions& options) {
  if (!options.label.empty() || !options.subsystem.empty()) {
    throw Error(Code::kInvalidArgument, "LUKS1 has no label and no subsystem", "use LUKS2");
  }
  if (options.metadata_size_bytes != 0 || options.keyslots_size_bytes != 0) {
    throw Error(Code::kInvalidArgument, "LUKS1 has no choice of metadata and keyslots size",
                "use LUKS2");
  }
}

void check_text(std::string_view text, std::string_view what) {
  if (text.size() > kLabelBytesMax || text.find('\0') != std::string_view::npos || !is_utf8(text)) {
    throw Error(Code::kInvalidArgument,
                fmt::format("the {} '{}' is no UTF-8 text of at most {} bytes", what,
                            printable(text), kLabelBytesMax));
  }
}

Digest make_digest(const CreateOptions& options, ByteView volume_key) {
  const crypto::HashInfo hash = crypto::require_hash(options.hash);
  Digest digest{
      .hash = hash.name,
      .iterations = options.digest_iterations,
      .salt = crypto::random_bytes(32),
      .digest = Bytes(options.version == Version::kLuks1 ? kLuks1DigestBytes : hash.digest_bytes)};
  crypto::KdfCost cost{.type = crypto::KdfType::kPbkdf2, .hash = hash.name};
  if (digest.iterations == 0) {
    cost = crypto::calibrate({.type = crypto::KdfType::kPbkdf2,
                              .hash = hash.name,
                              .output_bytes = digest.digest.size(),
                              .target = kDigestTarget},
                             options.cancel);
    digest.iterations = cost.iterations;
  }
  digest.iterations = std::max(digest.iterations, kDigestIterationsMin);
  cost.iterations = digest.iterations;
  crypto::derive(cost, volume_key, digest.salt, digest.digest, hardware_threads(), options.cancel);
  digest.segments = {0};
  return digest;
}

std::uint64_t checked_payload_offset(const CreateOptions& options, std::uint64_t header_end,
                                     std::uint32_t sector_bytes) {
  if (!options.payload_offset_bytes) {
    return options.detached ? 0 : round_up(header_end, kPayloadAlignmentBytes);
  }
  const std::uint64_t offset = *options.payload_offset_bytes;
  if (offset % std::max<std::uint64_t>(512, sector_bytes) != 0) {
    throw Error(Code::kInvalidArgument,
                fmt::format("the payload offset {} is no multiple of the sector size {}", offset,
                            sector_bytes));
  }
  if (!options.detached && offset < header_end) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a payload at byte {} would overlap the header, which ends at byte {}",
                            offset, header_end),
                "choose a larger offset, or smaller metadata and keyslots areas");
  }
  return offset;
}

void lay_out_luks1(Header& header, const CreateOptions& options, std::uint32_t key_bytes) {
  check_luks1_options(options);
  header.luks1_key_size_bytes = key_bytes;
  std::uint64_t at = kLuks1KeyslotsOffsetBytes;
  for (Luks1Slot& slot : header.luks1_slots) {
    slot.material_offset_sectors = static_cast<std::uint32_t>(at / 512);
    slot.stripes = kNewStripes;
    at += keyslot_area_bytes(key_bytes, kNewStripes);
  }
  Segment& segment = header.segments.at(0);
  segment.offset_bytes = checked_payload_offset(options, at, 512);
  if (segment.offset_bytes / 512 > UINT32_MAX) {
    throw Error(Code::kInvalidArgument,
                fmt::format("LUKS1 cannot put a payload at byte {}", segment.offset_bytes));
  }
}

std::uint64_t luks2_keyslots_size(const CreateOptions& options, std::uint64_t metadata_bytes) {
  if (options.keyslots_size_bytes != 0) return options.keyslots_size_bytes;
  const std::uint64_t metadata_end = 2 * metadata_bytes;
  if (options.payload_offset_bytes.value_or(0) != 0) {
    const std::uint64_t room = *options.payload_offset_bytes > metadata_end
                                   ? *options.payload_offset_bytes - metadata_end
                                   : 0;
    return std::min(room - room % kAreaAlignmentBytes, limits::kKeyslotsAreaBytesMax);
  }
  return kLuks2HeaderBytesDefault - metadata_end;
}

void lay_out_luks2(Header& header, const CreateOptions& options, std::uint32_t key_bytes) {
  const std::uint64_t metadata =
      options.metadata_size_bytes != 0 ? options.metadata_size_bytes : kLuks2MetadataBytesDefault;
  if (std::find(kLuks2MetadataSizes.begin(), kLuks2MetadataSizes.end(), metadata) ==
      kLuks2MetadataSizes.end()) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a metadata size of {} bytes is not possible", metadata),
                "it is 16K, 32K, 64K … up to 4M, a power of two");
  }
  const std::uint64_t keyslots = luks2_keyslots_size(options, metadata);
  const std::uint64_t keyslots_min = keyslot_area_bytes(key_bytes);
  if (keyslots % kAreaAlignmentBytes != 0 || keyslots > limits::kKeyslotsAreaBytesMax ||
      keyslots < keyslots_min) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a keyslots area of {} bytes is not possible", keyslots),
                fmt::format("it is a multiple of 4096, from {} (one keyslot) to {}", keyslots_min,
                            limits::kKeyslotsAreaBytesMax));
  }
  check_text(options.label, "label");
  check_text(options.subsystem, "subsystem");
  header.label = options.label;
  header.subsystem = options.subsystem;
  header.metadata_size_bytes = metadata;
  header.sequence_id = 1;
  header.config.json_size_bytes = metadata - kLuks2BinaryHeaderBytes;
  header.config.keyslots_size_bytes = keyslots;
  Segment& segment = header.segments.at(0);
  segment.offset_bytes =
      checked_payload_offset(options, 2 * metadata + keyslots, segment.sector_size_bytes);
}

}  // namespace

NewHeader make_header(const CreateOptions& options) {
  const crypto::CipherSpec spec = checked_cipher(options);
  const std::uint32_t key_bytes = checked_key_size(options, spec);
  if (!options.uuid.empty() && !is_uuid(options.uuid)) {
    throw Error(Code::kInvalidArgument, fmt::format("'{}' is no UUID", printable(options.uuid)));
  }
  NewHeader fresh;
  fresh.volume_key =
      options.volume_key.empty() ? crypto::random_secret(key_bytes) : options.volume_key.clone();
  fresh.header.version = options.version;
  fresh.header.uuid = options.uuid.empty() ? random_uuid() : options.uuid;
  fresh.header.segments[0] =
      Segment{.encryption = crypto::to_string(spec), .sector_size_bytes = sector_size(options)};
  if (options.version == Version::kLuks1) {
    lay_out_luks1(fresh.header, options, key_bytes);
  } else {
    lay_out_luks2(fresh.header, options, key_bytes);
  }
  fresh.header.digests[0] = make_digest(options, fresh.volume_key.span());
  if (options.version == Version::kLuks1) {
    static_cast<void>(decode_luks1(encode_luks1(fresh.header), "new LUKS1 header"));
  } else {
    validate_luks2(fresh.header, "new LUKS2 header");
  }
  return fresh;
}

std::uint64_t header_device_bytes(const Header& header) {
  std::uint64_t bytes = header_size_bytes(header);
  for (const auto& [id, segment] : header.segments) bytes = std::max(bytes, segment.offset_bytes);
  return bytes;
}

HeaderFile create_volume(std::shared_ptr<Device> device, const NewHeader& fresh,
                         ByteView passphrase, const NewKeyslot& keyslot,
                         const CancelToken* cancel) {
  if (!device->writable()) {
    throw Error(Code::kReadOnly, fmt::format("'{}' cannot be written", device->name()));
  }
  const std::uint64_t header_bytes = header_size_bytes(fresh.header);
  if (device->size_bytes() < header_bytes) {
    throw Error(Code::kTooSmall,
                fmt::format("'{}' has {} bytes, a header of this geometry needs {}", device->name(),
                            device->size_bytes(), header_bytes));
  }
  HeaderChange first{.header = fresh.header};
  const int id = keyslot.keyslot.value_or(0);
  first.new_areas.push_back(
      put_keyslot(first.header, id, 0, fresh.volume_key.span(), passphrase, keyslot, cancel));
  // What an earlier volume kept here would still open to somebody who has its passphrase.
  const std::uint64_t areas_start = fresh.header.version == Version::kLuks1
                                        ? kLuks1KeyslotsOffsetBytes
                                        : 2 * fresh.header.metadata_size_bytes;
  first.obsolete.push_back({.offset_bytes = areas_start, .size_bytes = header_bytes - areas_start});
  return HeaderFile::create(std::move(device), std::move(first));
}

PendingHeader::PendingHeader(std::shared_ptr<Device> device, const NewHeader& fresh,
                             ByteView passphrase, const NewKeyslot& keyslot,
                             const CancelToken* cancel)
    : device_(std::move(device)),
      memory_(std::make_shared<storage::MemoryDevice>(Bytes(header_size_bytes(fresh.header)))) {
  create_volume(memory_, fresh, passphrase, keyslot, cancel);
  device_->write_zeroes(0, memory_->size_bytes(), ZeroMode::kAllocate);
  device_->flush();
}

void PendingHeader::write() {
  // The first block holds the magic.
  const ByteView header = memory_->contents();
  // The payload before anything that could be taken for its header.
  device_->flush();
  device_->write(kAreaAlignmentBytes, header.subspan(kAreaAlignmentBytes));
  device_->flush();
  device_->write(0, header.first(kAreaAlignmentBytes));
  device_->flush();
}

}  // namespace lukskeep::luks
