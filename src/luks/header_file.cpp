#include "luks/header_file.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <memory>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/random.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"
#include "storage/request.h"

namespace lukskeep::luks {
namespace {

constexpr std::array kPrimaryMagic = {std::byte{'L'}, std::byte{'U'},  std::byte{'K'},
                                      std::byte{'S'}, std::byte{0xba}, std::byte{0xbe}};
constexpr std::size_t kVersionOffset = 6;

// One LUKS2 copy as found: the header, or why there is none.
struct FoundCopy {
  CopyState state = CopyState::kAbsent;
  std::uint64_t offset_bytes = 0;
  std::unique_ptr<Header> header;  // if the state is kGood
  std::string problem;
};

Bytes read_bytes(const Device& device, std::uint64_t offset_bytes, std::uint64_t size_bytes) {
  Bytes bytes(size_bytes);
  device.read(offset_bytes, bytes);
  return bytes;
}

// Reads the copy at `offset_bytes`; kAbsent if the device has no LUKS2 magic there.
FoundCopy read_copy(const Device& device, std::uint64_t offset_bytes) {
  FoundCopy copy{.offset_bytes = offset_bytes};
  if (device.size_bytes() < offset_bytes ||
      device.size_bytes() - offset_bytes < kLuks2BinaryHeaderBytes) {
    return copy;
  }
  const std::string what = fmt::format("{} LUKS2 header of '{}'",
                                       offset_bytes == 0 ? "primary" : "secondary", device.name());
  try {
    const Bytes head = read_bytes(device, offset_bytes, kLuks2BinaryHeaderBytes);
    const auto prefix = decode_luks2_prefix(head, offset_bytes, what);
    if (!prefix) return copy;
    copy.state = CopyState::kDamaged;
    if (device.size_bytes() - offset_bytes < prefix->metadata_size_bytes) {
      throw Error(Code::kTooSmall, fmt::format("{}: the device ends at byte {}, inside it", what,
                                               device.size_bytes()));
    }
    copy.header = std::make_unique<Header>(decode_luks2(
        read_bytes(device, offset_bytes, prefix->metadata_size_bytes), offset_bytes, what));
    copy.state = CopyState::kGood;
  } catch (const Error& error) {
    // An unreadable or wrong copy is a finding here: the other one may serve.
    if (storage::ends_everything(error)) throw;
    copy.state = CopyState::kDamaged;
    copy.problem = error.message();
  }
  return copy;
}

// The secondary of a primary that cannot say where it is: the first good one of the nine places.
FoundCopy scan_for_secondary(const Device& device) {
  FoundCopy best;
  for (const std::uint64_t offset : kLuks2MetadataSizes) {
    FoundCopy copy = read_copy(device, offset);
    if (copy.state == CopyState::kGood) return copy;
    if (copy.state == CopyState::kDamaged && best.state == CopyState::kAbsent) {
      best = std::move(copy);
    }
  }
  return best;
}

std::string describe_missing(const FoundCopy& copy, std::string_view which) {
  if (copy.state == CopyState::kDamaged) return copy.problem;
  return fmt::format("{} LUKS2 header: no magic at byte {}", which, copy.offset_bytes);
}

// Whether something else may have taken the place of a primary copy that is gone.
bool holds_data(const Device& device) {
  return !all_zero(
      read_bytes(device, 0, std::min<std::uint64_t>(device.size_bytes(), kLuks2BinaryHeaderBytes)));
}

std::pair<Header, ReadReport> choose_copy(const Device& device, FoundCopy primary,
                                          FoundCopy secondary) {
  ReadReport report{.primary = primary.state,
                    .secondary = secondary.state,
                    .secondary_offset_bytes = secondary.offset_bytes,
                    .problems = {},
                    .foreign_start = false};
  const bool primary_good = primary.header != nullptr;
  const bool secondary_good = secondary.header != nullptr;
  if (!primary_good && !secondary_good) {
    throw Error(
        Code::kDamaged,
        fmt::format("both copies of the LUKS2 header of '{}' are unusable: {}; {}", device.name(),
                    describe_missing(primary, "primary"), describe_missing(secondary, "secondary")),
        "restore the header from a backup (lukskeep header restore)");
  }
  report.foreign_start = primary.state == CopyState::kAbsent && holds_data(device);
  if (!primary_good) report.problems.push_back(describe_missing(primary, "primary"));
  if (!secondary_good) report.problems.push_back(describe_missing(secondary, "secondary"));
  if (primary.header && secondary.header) {
    const std::uint64_t first = primary.header->sequence_id;
    const std::uint64_t second = secondary.header->sequence_id;
    if (first != second) {
      CopyState& stale = first < second ? report.primary : report.secondary;
      stale = CopyState::kStale;
      report.problems.push_back(fmt::format(
          "the {} copy is older than the {} (sequence id {} against {})",
          first < second ? "primary" : "secondary", first < second ? "secondary" : "primary",
          std::min(first, second), std::max(first, second)));
    }
  }
  const bool use_primary = primary_good && report.primary != CopyState::kStale;
  report.secondary_offset_bytes =
      use_primary ? primary.header->metadata_size_bytes : secondary.offset_bytes;
  return {std::move(use_primary ? *primary.header : *secondary.header), std::move(report)};
}

std::pair<Header, ReadReport> read_luks2(const Device& device) {
  FoundCopy primary = read_copy(device, 0);
  FoundCopy secondary = primary.header ? read_copy(device, primary.header->metadata_size_bytes)
                                       : scan_for_secondary(device);
  if (primary.state == CopyState::kAbsent && secondary.state != CopyState::kGood) {
    // A stray magic in foreign data is no LUKS header.
    throw Error(Code::kNotLuks, fmt::format("'{}' has no LUKS header", device.name()),
                "if the header is detached, name it with --header");
  }
  return choose_copy(device, std::move(primary), std::move(secondary));
}

// The UUID stands at the same place in both versions (LUKS1 §3.1, LUKS2 §2.2).
std::string_view uuid_field(ByteView head) {
  constexpr std::size_t kUuidOffset = 168;
  constexpr std::size_t kUuidBytes = 40;
  const std::string_view field = as_string_view(head.subspan(kUuidOffset, kUuidBytes));
  return field.substr(0, field.find('\0'));
}

// A LUKS1 header that cannot be read may be a conversion that was cut while the first block was
// written: then the second copy of the LUKS2 header is whole, and says the same UUID.
std::pair<Header, ReadReport> read_luks1(const Device& device, ByteView head) {
  try {
    return {decode_luks1(head, fmt::format("LUKS1 header of '{}'", device.name())),
            ReadReport{.primary = CopyState::kGood,
                       .secondary = CopyState::kAbsent,
                       .secondary_offset_bytes = 0,
                       .problems = {},
                       .foreign_start = false}};
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged || head.size() < kLuks1HeaderBytes) throw;
    FoundCopy secondary = scan_for_secondary(device);
    if (!secondary.header || secondary.header->uuid.empty() ||
        secondary.header->uuid != uuid_field(head)) {
      throw;
    }
    return choose_copy(device,
                       {.state = CopyState::kDamaged,
                        .offset_bytes = 0,
                        .header = nullptr,
                        .problem = error.message()},
                       std::move(secondary));
  }
}

std::pair<Header, ReadReport> read_header(const Device& device) {
  const std::uint64_t have = std::min<std::uint64_t>(device.size_bytes(), kLuks1HeaderBytes);
  const Bytes head = read_bytes(device, 0, have);
  const bool luks_magic = head.size() > kVersionOffset + 1 &&
                          std::equal(kPrimaryMagic.begin(), kPrimaryMagic.end(), head.begin());
  // Any other version goes the way of LUKS2, whose second copy may know better.
  if (luks_magic && load_be<std::uint16_t>(head.data() + kVersionOffset) == 1) {
    return read_luks1(device, head);
  }
  return read_luks2(device);
}

void write_luks2_copy(Device& device, const Header& header, Luks2Copy copy) {
  const Bytes bytes = encode_luks2(header, copy, crypto::random_bytes(kLuks2SaltBytes));
  device.write(copy == Luks2Copy::kPrimary ? 0 : header.metadata_size_bytes, bytes);
  device.flush();
}

// `first` is the copy that is worth less: it is at risk while the other still stands.
void write_header(Device& device, const Header& header, Luks2Copy first) {
  if (header.version == Version::kLuks1) {
    device.write(0, encode_luks1(header));
    device.flush();
    return;
  }
  const Luks2Copy second =
      first == Luks2Copy::kPrimary ? Luks2Copy::kSecondary : Luks2Copy::kPrimary;
  write_luks2_copy(device, header, first);
  write_luks2_copy(device, header, second);
}

// Every byte a header change could not survive losing is checked before the first write.
void check_fits(const Device& device, const HeaderChange& change) {
  const std::uint64_t needed = header_size_bytes(change.header);
  const bool luks1 = change.header.version == Version::kLuks1;
  std::uint64_t end = luks1 ? kLuks1HeaderBytes : needed;
  for (const AreaWrite& area : change.new_areas) {
    end = std::max(end, area.offset_bytes + area.material.size());
  }
  if (device.size_bytes() < end) {
    throw Error(Code::kTooSmall, fmt::format("'{}' has {} bytes, its header needs {}",
                                             device.name(), device.size_bytes(), end));
  }
}

void check_areas_free(const Header& present, const std::vector<AreaWrite>& new_areas) {
  for (const AreaWrite& area : new_areas) {
    for (const auto& [id, keyslot] : present.keyslots) {
      const bool apart = area.offset_bytes + area.material.size() <= keyslot.area.offset_bytes ||
                         keyslot.area.offset_bytes + keyslot.area.size_bytes <= area.offset_bytes;
      if (!apart) {
        throw Error(Code::kInternal,
                    fmt::format("new key material at byte {} would overwrite keyslot {}",
                                area.offset_bytes, id));
      }
    }
  }
}

// Where the metadata stands that makes `header` readable.
std::uint64_t metadata_end_bytes(const Header& header) {
  return header.version == Version::kLuks1 ? kLuks1HeaderBytes : 2 * header.metadata_size_bytes;
}

bool same_layout(const Header& a, const Header& b) {
  return a.version == b.version && a.metadata_size_bytes == b.metadata_size_bytes;
}

// Metadata that changes its place goes where no keyslot is.
void check_metadata_free(const Header& present, const Header& changed) {
  for (const auto& [id, keyslot] : present.keyslots) {
    if (keyslot.area.offset_bytes < metadata_end_bytes(changed)) {
      throw Error(Code::kInternal, fmt::format("the new metadata would overwrite keyslot {}", id));
    }
  }
}

void write_areas(Device& device, const std::vector<AreaWrite>& areas) {
  if (areas.empty()) return;
  for (const AreaWrite& area : areas) device.write(area.offset_bytes, area.material);
  device.flush();
}

void wipe_ranges(Device& device, const std::vector<AreaRange>& ranges) {
  if (ranges.empty()) return;
  for (const AreaRange& range : ranges) {
    // A header that claims more than the device has must not stop the wiping of what is there.
    const std::uint64_t end = std::min(range.offset_bytes + range.size_bytes, device.size_bytes());
    for (std::uint64_t at = range.offset_bytes; at < end;) {
      const std::uint64_t piece = std::min(end - at, limits::kMiB);
      device.write(at, crypto::random_bytes(piece));
      at += piece;
    }
  }
  device.flush();
}

// Bytes at the places where an older header could be found: zeroed before a new one is made.
void wipe_old_magic(Device& device) {
  const Bytes zeroes(kLuks2BinaryHeaderBytes);
  const auto zero_at = [&](std::uint64_t offset) {
    if (device.size_bytes() < offset + zeroes.size()) return;
    if (!all_zero(read_bytes(device, offset, zeroes.size()))) device.write(offset, zeroes);
  };
  zero_at(0);
  for (const std::uint64_t offset : kLuks2MetadataSizes) {
    const FoundCopy copy = read_copy(device, offset);
    if (copy.state != CopyState::kAbsent) zero_at(offset);
  }
  device.flush();
}

}  // namespace

std::string_view copy_state_name(CopyState state) noexcept {
  switch (state) {
    case CopyState::kGood:
      return "good";
    case CopyState::kDamaged:
      return "damaged";
    case CopyState::kAbsent:
      return "absent";
    case CopyState::kStale:
      return "stale";
  }
  return "unknown";
}

HeaderFile::HeaderFile(std::shared_ptr<Device> device, Header header, ReadReport report)
    : device_(std::move(device)), header_(std::move(header)), report_(std::move(report)) {}

HeaderFile HeaderFile::open(std::shared_ptr<Device> device) {
  auto [header, report] = read_header(*device);
  return {std::move(device), std::move(header), std::move(report)};
}

HeaderFile HeaderFile::create(std::shared_ptr<Device> device, HeaderChange first) {
  if (first.header.version == Version::kLuks2) first.header.sequence_id = 1;
  // Finds what is wrong with it before anything is destroyed.
  if (first.header.version == Version::kLuks2) {
    static_cast<void>(encode_luks2(first.header, Luks2Copy::kPrimary, Bytes(kLuks2SaltBytes)));
  } else {
    static_cast<void>(encode_luks1(first.header));
  }
  check_fits(*device, first);
  const std::unique_ptr<DeviceLock> lock = device->lock_metadata();
  wipe_old_magic(*device);
  wipe_ranges(*device, first.obsolete);
  write_areas(*device, first.new_areas);
  write_header(*device, first.header, Luks2Copy::kSecondary);
  HeaderFile file = open(std::move(device));
  if (file.header_ != first.header) {
    throw Error(Code::kIo,
                fmt::format("the new header of '{}' reads back differently", file.device_->name()));
  }
  return file;
}

// What a change must not touch although it could be read.
void HeaderFile::check_change_allowed(const HeaderChange& change) const {
  Header same = change.header;
  same.sequence_id = header_.sequence_id;
  for (const std::string& requirement : unsupported_requirements(header_)) {
    // Writing a damaged copy anew changes nothing that a requirement could be about.
    if (same == header_) break;
    throw Error(
        Code::kUnsupported,
        fmt::format("cannot change the header of '{}': it requires '{}', which this program "
                    "does not support",
                    device_->name(), printable(requirement)));
  }
  if (report_.foreign_start && !change.overwrite_foreign) {
    throw Error(
        Code::kUnsafe,
        fmt::format("the start of '{}' holds other data than LUKS: only the second copy of "
                    "an old header is left, and a change would overwrite the first {} bytes",
                    device_->name(), header_.metadata_size_bytes),
        "if it is a damaged volume and nothing else: lukskeep header repair");
  }
}

void HeaderFile::write_both_anew() {
  Header same = header_;
  ++same.sequence_id;
  write_header(*device_, same,
               report_.secondary == CopyState::kGood ? Luks2Copy::kPrimary : Luks2Copy::kSecondary);
  HeaderFile written = open(device_);
  if (written.header_ != same || !written.report_.problems.empty()) {
    throw Error(Code::kIo,
                fmt::format("the mended header of '{}' reads back differently", device_->name()));
  }
  header_ = std::move(written.header_);
  report_ = std::move(written.report_);
}

void HeaderFile::commit(HeaderChange change) {
  if (!device_->writable()) {
    throw Error(Code::kReadOnly, fmt::format("'{}' cannot be written", device_->name()));
  }
  const std::unique_ptr<DeviceLock> lock = device_->lock_metadata();
  HeaderFile present = open(device_);
  if (present.header_ != header_) {
    throw Error(Code::kConflict,
                fmt::format("somebody else changed the header of '{}' meanwhile", device_->name()),
                "look at it (lukskeep info) and try again");
  }
  // It may have got worse since it was read.
  report_ = std::move(present.report_);
  check_change_allowed(change);
  const bool moves = !same_layout(header_, change.header);
  // A copy that goes to another place may overwrite one that is there: both must be good by then.
  if (moves && !report_.problems.empty()) write_both_anew();
  if (header_.sequence_id == UINT64_MAX) {
    throw Error(Code::kDamaged,
                fmt::format("the sequence id of '{}' is at its end", device_->name()));
  }
  // Throws here, before the first write, if the new header breaks a rule or does not fit.
  if (change.header.version == Version::kLuks2) {
    change.header.sequence_id = header_.sequence_id + 1;
    static_cast<void>(encode_luks2(change.header, Luks2Copy::kPrimary, Bytes(kLuks2SaltBytes)));
  } else {
    static_cast<void>(encode_luks1(change.header));
  }
  check_fits(*device_, change);
  check_areas_free(header_, change.new_areas);
  if (moves) check_metadata_free(header_, change.header);

  write_areas(*device_, change.new_areas);
  // Where the layout changes, the second copy is at a place of its own and found without the first.
  const Luks2Copy worse =
      report_.secondary == CopyState::kGood && !moves ? Luks2Copy::kPrimary : Luks2Copy::kSecondary;
  write_header(*device_, change.header, worse);
  HeaderFile written = open(device_);
  if (written.header_ != change.header || !written.report_.problems.empty()) {
    throw Error(Code::kIo,
                fmt::format("the changed header of '{}' reads back differently", device_->name()),
                "nothing obsolete was wiped; the storage does not keep what is written to it");
  }
  header_ = std::move(written.header_);
  report_ = std::move(written.report_);
  wipe_ranges(*device_, change.obsolete);
}

}  // namespace lukskeep::luks
