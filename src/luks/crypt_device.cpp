#include "luks/crypt_device.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/cipher_spec.h"
#include "crypto/sector_cipher.h"
#include "luks/layout.h"
#include "luks/luks2_codec.h"
#include "storage/qcow2.h"

namespace lukskeep::luks {
namespace {

constexpr std::uint64_t kIvSectorBytes = 512;  // IVs count these, whatever the sector size
// What is encrypted apart from the caller's bytes stays in the cache on its way to the storage.
constexpr std::size_t kScratchBytes = 128 * limits::kKiB;

constexpr std::array<std::byte, 4096> kZeroSector{};

bool is_backup(const Segment& segment) {
  return std::any_of(segment.flags.begin(), segment.flags.end(),
                     [](const std::string& flag) { return flag.starts_with("backup-"); });
}

// The segments that make up the volume, in order.
std::vector<std::pair<int, const Segment*>> active_segments(const Header& header) {
  std::vector<std::pair<int, const Segment*>> segments;
  for (const auto& [id, segment] : header.segments) {
    if (!is_backup(segment)) segments.emplace_back(id, &segment);
  }
  return segments;
}

bool is_sector_size(std::uint32_t size_bytes) {
  return size_bytes >= 512 && size_bytes <= 4096 && (size_bytes & (size_bytes - 1)) == 0;
}

// One segment as it is activated: where it is in the plain device and on the payload device.
struct Run {
  std::uint64_t start_bytes = 0;
  std::uint64_t payload_offset_bytes = 0;
  std::optional<std::uint64_t> size_bytes;  // absent: to the end of the payload device
  std::uint64_t iv_tweak = 0;
  std::uint32_t sector_bytes = 512;
  std::unique_ptr<crypto::SectorCipher> cipher;  // none: linear
};

class CryptDevice final : public Device {
 public:
  CryptDevice(std::shared_ptr<Device> payload, std::vector<Run> runs,
              const ActivationOptions& options)
      : payload_(std::move(payload)), runs_(std::move(runs)), options_(options) {
    for (const Run& run : runs_) block_bytes_ = std::max(block_bytes_, run.sector_bytes);
  }

  std::string name() const override { return payload_->name(); }
  bool writable() const override { return options_.writable && payload_->writable(); }
  std::uint32_t block_size_bytes() const override { return block_bytes_; }

  std::uint64_t size_bytes() const override {
    const Run& last = runs_.back();
    return last.start_bytes + run_size(last);
  }

  void read(std::uint64_t offset_bytes, MutableBytes out) const override {
    check_range(offset_bytes, out.size(), "read");
    for_each_piece(offset_bytes, out.size(),
                   [&](const Run& run, std::uint64_t at, std::size_t done, std::size_t length) {
                     read_piece(run, at, out.subspan(done, length));
                   });
  }

  void write(std::uint64_t offset_bytes, ByteView data) override {
    check_writable();
    check_range(offset_bytes, data.size(), "write");
    const std::size_t room = std::min(data.size(), kScratchBytes);
    const auto scratch = std::make_unique_for_overwrite<std::byte[]>(room);
    while (!data.empty()) {
      // Pieces end where sectors do.
      const std::size_t length =
          std::min<std::uint64_t>(data.size(), kScratchBytes - offset_bytes % block_bytes_);
      std::copy_n(data.begin(), length, scratch.get());
      write_in_place(offset_bytes, MutableBytes(scratch.get(), length));
      offset_bytes += length;
      data = data.subspan(length);
    }
  }

  void write_in_place(std::uint64_t offset_bytes, MutableBytes data) override {
    check_writable();
    check_range(offset_bytes, data.size(), "write");
    for_each_piece(offset_bytes, data.size(),
                   [&](const Run& run, std::uint64_t at, std::size_t done, std::size_t length) {
                     write_piece(run, at, data.subspan(done, length));
                   });
  }

  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                    ZeroMode mode) override {
    if (mode != ZeroMode::kPunch || !options_.holes_as_zeroes) {
      Device::write_zeroes(offset_bytes, length_bytes, mode);
      return;
    }
    check_writable();
    check_range(offset_bytes, length_bytes, "write");
    // Whole sectors become holes; of those at the ends a part is zeroed.
    for_each_piece(offset_bytes, length_bytes,
                   [&](const Run& run, std::uint64_t at, std::uint64_t, std::uint64_t length) {
                     const auto [start, end] = whole_sectors(run, at, length);
                     zero_part(run, at, start - at);
                     payload_->write_zeroes(run.payload_offset_bytes + start, end - start,
                                            ZeroMode::kPunch);
                     zero_part(run, end, at + length - end);
                   });
  }

  void discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override {
    check_writable();
    check_range(offset_bytes, length_bytes, "discard");
    for_each_piece(offset_bytes, length_bytes,
                   [&](const Run& run, std::uint64_t at, std::uint64_t, std::uint64_t length) {
                     const auto [start, end] = whole_sectors(run, at, length);
                     if (start < end) {
                       payload_->discard(run.payload_offset_bytes + start, end - start);
                     }
                   });
  }

  void flush() override { payload_->flush(); }

  void resize(std::uint64_t size) override {
    check_writable();
    const Run& last = runs_.back();
    const bool fits = size >= last.start_bytes &&
                      size - last.start_bytes <= UINT64_MAX - last.payload_offset_bytes;
    if (last.size_bytes || !fits) Device::resize(size);
    payload_->resize(last.payload_offset_bytes + (size - last.start_bytes));
  }

  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    if (!options_.holes_as_zeroes) return Device::extents(offset_bytes, length_bytes);
    check_range(offset_bytes, length_bytes, "read");
    std::vector<Extent> all;
    for_each_piece(offset_bytes, length_bytes,
                   [&](const Run& run, std::uint64_t at, std::uint64_t, std::uint64_t length) {
                     append_extents(run, at, length, all);
                   });
    return all;
  }

 private:
  // Where the whole sectors of [at, at + length) start and end. Without any, both are `at + length`
  // or where the one sector ends that the range starts in, whatever comes first.
  static std::pair<std::uint64_t, std::uint64_t> whole_sectors(const Run& run, std::uint64_t at,
                                                               std::uint64_t length) {
    const std::uint64_t unit = run.sector_bytes;
    const std::uint64_t start = std::min(at + length, (at + unit - 1) / unit * unit);
    return {start, std::max(start, (at + length) / unit * unit)};
  }

  // `length` is less than a sector.
  void zero_part(const Run& run, std::uint64_t at, std::uint64_t length) {
    if (length > 0) update_sector(run, at, ByteView(kZeroSector).first(length));
  }

  std::uint64_t run_size(const Run& run) const {
    if (run.size_bytes) return *run.size_bytes;
    const std::uint64_t end = payload_->size_bytes();
    const std::uint64_t have = end > run.payload_offset_bytes ? end - run.payload_offset_bytes : 0;
    return have - have % run.sector_bytes;
  }

  void check_range(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                   std::string_view verb) const {
    const std::uint64_t size = size_bytes();
    if (offset_bytes > size || length_bytes > size - offset_bytes) {
      throw Error(Code::kTooSmall,
                  fmt::format("cannot {} {} bytes at offset {} of the volume '{}': it has {} bytes",
                              verb, length_bytes, offset_bytes, name(), size));
    }
  }

  void check_writable() const {
    if (!writable()) {
      throw Error(Code::kReadOnly, fmt::format("the volume '{}' is open for reading only", name()));
    }
  }

  // Calls body(run, offset within run, bytes done before, length) for each run touched.
  template <typename Body>
  void for_each_piece(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                      const Body& body) const {
    std::uint64_t done = 0;
    for (const Run& run : runs_) {
      if (done == length_bytes) return;
      const std::uint64_t at = offset_bytes + done - run.start_bytes;
      const std::uint64_t size = run_size(run);
      if (at >= size) continue;
      const std::uint64_t length = std::min(length_bytes - done, size - at);
      body(run, at, done, length);
      done += length;
    }
  }

  static std::uint64_t iv_sector(const Run& run, std::uint64_t at) {
    return run.iv_tweak + at / kIvSectorBytes;
  }

  void decrypt(const Run& run, std::uint64_t at, MutableBytes sectors) const {
    if (run.cipher) run.cipher->decrypt(iv_sector(run, at), sectors);
  }

  // Whole sectors straight into `out`; ragged ends through a scratch sector.
  void read_piece(const Run& run, std::uint64_t at, MutableBytes out) const {
    const std::uint64_t sector = run.sector_bytes;
    while (!out.empty()) {
      const std::uint64_t skip = at % sector;
      if (skip == 0 && out.size() >= sector) {
        const std::size_t whole = out.size() - out.size() % sector;
        read_sectors(run, at, out.first(whole));
        at += whole;
        out = out.subspan(whole);
        continue;
      }
      std::array<std::byte, 4096> scratch;
      const std::size_t length = std::min<std::uint64_t>(out.size(), sector - skip);
      // Somebody else may be writing to the other part of this sector.
      const std::lock_guard lock(lock_of(run, at - skip));
      read_sectors(run, at - skip, MutableBytes(scratch).first(sector));
      std::copy_n(scratch.begin() + static_cast<std::ptrdiff_t>(skip), length, out.begin());
      at += length;
      out = out.subspan(length);
    }
  }

  void read_sectors(const Run& run, std::uint64_t at, MutableBytes sectors) const {
    payload_->read(run.payload_offset_bytes + at, sectors);
    if (!options_.holes_as_zeroes) {
      decrypt(run, at, sectors);
      return;
    }
    // Stretches of stored zeroes stay what they are, the others are decrypted.
    const std::size_t unit = run.sector_bytes;
    for (std::size_t start = 0; start < sectors.size();) {
      const bool hole = all_zero(sectors.subspan(start, unit));
      std::size_t end = start + unit;
      while (end < sectors.size() && all_zero(sectors.subspan(end, unit)) == hole) end += unit;
      if (!hole) decrypt(run, at + start, sectors.subspan(start, end - start));
      start = end;
    }
  }

  void write_piece(const Run& run, std::uint64_t at, MutableBytes data) {
    const std::uint64_t sector = run.sector_bytes;
    while (!data.empty()) {
      const std::uint64_t skip = at % sector;
      if (skip == 0 && data.size() >= sector) {
        const MutableBytes whole = data.first(data.size() - data.size() % sector);
        write_sectors(run, at, whole);
        at += whole.size();
        data = data.subspan(whole.size());
        continue;
      }
      const std::size_t length = std::min<std::uint64_t>(data.size(), sector - skip);
      update_sector(run, at, data.first(length));
      at += length;
      data = data.subspan(length);
    }
  }

  void write_sectors(const Run& run, std::uint64_t at, MutableBytes sectors) {
    if (run.cipher) run.cipher->encrypt(iv_sector(run, at), sectors);
    payload_->write_in_place(run.payload_offset_bytes + at, sectors);
  }

  std::mutex& lock_of(const Run& run, std::uint64_t at) const {
    return sector_locks_[(at / run.sector_bytes) % sector_locks_.size()];
  }

  // Two writers may each own a part of one sector: only one of them may hold it at a time.
  void update_sector(const Run& run, std::uint64_t at, ByteView part) {
    const std::uint64_t skip = at % run.sector_bytes;
    const std::uint64_t start = at - skip;
    const std::lock_guard lock(lock_of(run, start));
    std::array<std::byte, 4096> buffer;
    const MutableBytes sector = MutableBytes(buffer).first(run.sector_bytes);
    read_sectors(run, start, sector);
    std::copy(part.begin(), part.end(), sector.begin() + static_cast<std::ptrdiff_t>(skip));
    write_sectors(run, start, sector);
  }

  // A sector is a hole only if all of it is one below.
  void append_extents(const Run& run, std::uint64_t at, std::uint64_t length,
                      std::vector<Extent>& all) const {
    const auto append = [&](std::uint64_t end, bool zero) {
      const std::uint64_t start =
          all.empty() ? run.start_bytes + at : all.back().offset_bytes + all.back().length_bytes;
      const std::uint64_t stop = run.start_bytes + end;
      if (stop <= start) return;
      if (!all.empty() && all.back().zero == zero) {
        all.back().length_bytes += stop - start;
      } else {
        all.push_back({.offset_bytes = start, .length_bytes = stop - start, .zero = zero});
      }
    };
    for (const Extent& below : payload_->extents(run.payload_offset_bytes + at, length)) {
      const std::uint64_t start = below.offset_bytes - run.payload_offset_bytes;
      const std::uint64_t end = start + below.length_bytes;
      if (!below.zero) {
        append(end, false);
        continue;
      }
      const std::uint64_t unit = run.sector_bytes;
      const std::uint64_t first = std::min(end, (start + unit - 1) / unit * unit);
      append(first, false);
      append(std::max(first, end - end % unit), true);
      append(end, false);
    }
  }

  std::shared_ptr<Device> payload_;
  std::vector<Run> runs_;
  ActivationOptions options_;
  std::uint32_t block_bytes_ = 512;
  mutable std::array<std::mutex, 64> sector_locks_;
};

void check_activation(const Header& header, const std::string& name) {
  const std::set<std::string> unsupported = unsupported_requirements(header);
  if (!unsupported.empty()) {
    std::string names;
    for (const std::string& requirement : unsupported) {
      names += fmt::format("{}'{}'", names.empty() ? "" : ", ", printable(requirement));
    }
    throw Error(Code::kUnsupported,
                fmt::format("the volume '{}' requires {}, which this program does not support",
                            name, names),
                "its header can be read (lukskeep info), its payload cannot");
  }
}

std::set<int> digests_of_segment(const Header& header, int segment) {
  std::set<int> ids;
  for (const auto& [id, digest] : header.digests) {
    if (digest.segments.contains(segment)) ids.insert(id);
  }
  return ids;
}

// One key decrypts the whole volume; segments under several keys exist during re-encryption only.
void check_one_key(const Header& header) {
  std::optional<std::set<int>> first;
  for (const auto& [id, segment] : active_segments(header)) {
    if (segment->type != Segment::Type::kCrypt) continue;
    const std::set<int> digests = digests_of_segment(header, id);
    if (!first) first = digests;
    if (digests != *first) {
      throw Error(Code::kUnsupported,
                  fmt::format("segment {} has another volume key than the segments before it", id));
    }
  }
}

Run make_run(int id, const Segment& segment, ByteView key, const ActivationOptions& options) {
  if (segment.type == Segment::Type::kUnknown) {
    throw Error(Code::kUnsupported, fmt::format("segment {} is of the unsupported type '{}'", id,
                                                printable(segment.type_name)));
  }
  if (segment.has_integrity) {
    throw Error(Code::kUnsupported,
                fmt::format("segment {} has integrity protection, which is not supported", id));
  }
  Run run{.start_bytes = 0,
          .payload_offset_bytes = segment.offset_bytes,
          .size_bytes = segment.size_bytes,
          .iv_tweak = segment.iv_tweak,
          .sector_bytes = segment.sector_size_bytes,
          .cipher = nullptr};
  if (segment.type == Segment::Type::kLinear) {
    if (!options.allow_insecure) {
      throw Error(Code::kUnsafe, fmt::format("segment {} is not encrypted (type 'linear')", id),
                  "--allow-insecure uses it all the same");
    }
    run.sector_bytes = 512;
    return run;
  }
  if (!is_sector_size(segment.sector_size_bytes)) {
    throw Error(Code::kUnsupported,
                fmt::format("segment {} has sectors of {} bytes", id, segment.sector_size_bytes));
  }
  const crypto::CipherSpec spec = crypto::parse_cipher_spec(segment.encryption);
  if (crypto::is_insecure(spec) && !options.allow_insecure) {
    throw Error(
        Code::kUnsafe,
        fmt::format("segment {} is not encrypted ('{}')", id, printable(segment.encryption)),
        "--allow-insecure uses it all the same");
  }
  run.cipher = crypto::make_sector_cipher(spec, key, segment.sector_size_bytes);
  return run;
}

void check_size(const Run& run, const Device& payload) {
  const std::uint64_t size = payload.size_bytes();
  const std::uint64_t wanted = run.size_bytes.value_or(0);
  if (run.payload_offset_bytes > size || wanted > size - run.payload_offset_bytes) {
    throw Error(Code::kTooSmall,
                fmt::format("'{}' has {} bytes, but its payload is said to be {} bytes from byte "
                            "{} on",
                            payload.name(), size, wanted, run.payload_offset_bytes),
                "the file was cut short, or this header belongs to another payload");
  }
}

// In an image like LUKS in qcow2 all sectors of the file are the payload, wherever the image keeps
// its tables; it has no sense for a payload offset. QEMU writes LUKS1 there, and knows nothing
// else.
Header sectors_of_image(Header header, const Device& image) {
  if (header.version != Version::kLuks1) {
    throw Error(Code::kUnsupported,
                fmt::format("'{}' is encrypted with LUKS2, which images cannot be", image.name()));
  }
  for (auto& [id, segment] : header.segments) {
    segment.offset_bytes = 0;
    segment.size_bytes.reset();
  }
  return header;
}

}  // namespace

std::unique_ptr<Device> make_crypt_device(const Header& header, std::shared_ptr<Device> payload,
                                          ByteView key, const ActivationOptions& options) {
  if (const auto image = std::dynamic_pointer_cast<storage::EncryptedImage>(payload)) {
    return image->contents(
        make_crypt_device(sectors_of_image(header, *image), image->sectors(), key, options));
  }
  check_activation(header, payload->name());
  check_one_key(header);
  std::vector<Run> runs;
  std::uint64_t start = 0;
  for (const auto& [id, segment] : active_segments(header)) {
    Run run = make_run(id, *segment, key, options);
    check_size(run, *payload);
    run.start_bytes = start;
    if (!runs.empty() && !runs.back().size_bytes) {
      throw Error(Code::kDamaged, fmt::format("segment {} follows one without an end", id));
    }
    if (run.size_bytes.value_or(0) > UINT64_MAX - start) {
      throw Error(Code::kDamaged, fmt::format("segment {} ends beyond every device", id));
    }
    start += run.size_bytes.value_or(0);
    runs.push_back(std::move(run));
  }
  if (runs.empty()) {
    throw Error(Code::kDamaged, fmt::format("the volume '{}' has no segment", payload->name()));
  }
  return std::make_unique<CryptDevice>(std::move(payload), std::move(runs), options);
}

void check_payload_apart(const Header& header, const Device& payload) {
  if (payload_offset_bytes(header) >= header_end_bytes(header)) return;
  throw Error(Code::kUnsafe,
              fmt::format("the payload of '{}' would start at byte {}, inside its own header",
                          payload.name(), payload_offset_bytes(header)),
              "this is a detached header: name the payload, and this file with --header");
}

bool opens_active_segment(const Header& header, const Digest& digest) {
  const auto segments = active_segments(header);
  return std::any_of(segments.begin(), segments.end(),
                     [&](const auto& segment) { return digest.segments.contains(segment.first); });
}

std::uint64_t payload_offset_bytes(const Header& header) {
  std::uint64_t lowest = UINT64_MAX;
  for (const auto& [id, segment] : active_segments(header)) {
    lowest = std::min(lowest, segment->offset_bytes);
  }
  return lowest == UINT64_MAX ? 0 : lowest;
}

std::uint64_t payload_size_bytes(const Header& header, std::uint64_t device_size_bytes) {
  std::uint64_t total = 0;
  for (const auto& [id, segment] : active_segments(header)) {
    if (segment->size_bytes) {
      total += *segment->size_bytes;
    } else if (device_size_bytes > segment->offset_bytes) {
      const std::uint64_t have = device_size_bytes - segment->offset_bytes;
      const std::uint32_t unit = std::max(1U, segment->sector_size_bytes);
      total += have - have % unit;
    }
  }
  return total;
}

}  // namespace lukskeep::luks
