#include "luks/header_check.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "luks/crypt_device.h"
#include "luks/foreign_signature.h"
#include "luks/guess_rate.h"
#include "luks/key_material_check.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"
#include "storage/request.h"
#include "storage/window_device.h"

namespace lukskeep::luks {
namespace {

constexpr std::string_view kRestore =
    "restore the header from a backup or the archive (lukskeep header restore)";
// Far enough for every signature that is looked for.
constexpr std::uint64_t kSignatureBytes = 128 * limits::kKiB;
constexpr std::uint64_t kPageBytes = 4096;

void sort_findings(std::vector<Finding>& findings) {
  std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    if (a.severity != b.severity) return a.severity > b.severity;
    return a.offset_bytes.value_or(UINT64_MAX) < b.offset_bytes.value_or(UINT64_MAX);
  });
}

class Checker {
 public:
  Checker(const HeaderFile& file, const CheckOptions& options)
      : file_(file),
        header_(file.header()),
        device_(*file.device()),
        cancel_(options.cancel),
        // Without another device the payload is behind the header; an offset of 0 there belongs to
        // a detached header.
        payload_(options.payload != nullptr || payload_offset_bytes(header_) == 0 ? options.payload
                                                                                  : file.device()),
        attached_(payload_ == file.device()) {}

  HeaderCheck check() {
    check_copies();
    check_extent();
    lay_out();
    for (const auto& [number, keyslot] : header_.keyslots) check_area(number, keyslot);
    check_signatures();
    check_payload();
    std::ranges::move(check_settings(header_, payload_size()),
                      std::back_inserter(result_.findings));
    sort_findings(result_.findings);
    return std::move(result_);
  }

 private:
  bool luks1() const { return header_.version == Version::kLuks1; }
  std::uint64_t header_place_bytes() const;
  std::optional<std::uint64_t> payload_size() const;

  void add(Finding finding) { result_.findings.push_back(std::move(finding)); }
  void check_copies();
  void check_copies_agree();
  void check_extent();
  void lay_out();
  std::vector<LayoutPart> parts() const;
  void check_area(int number, const Keyslot& keyslot);
  void add_ranges(int number, const std::vector<BadRange>& ranges);
  bool in_use(std::uint64_t offset_bytes, std::uint64_t size_bytes) const;
  void check_signatures();
  void check_payload();
  void check_payload_place();
  void check_payload_segments();
  void check_payload_signatures();

  const HeaderFile& file_;
  const Header& header_;
  const Device& device_;
  const CancelToken* cancel_;
  std::shared_ptr<Device> payload_;  // null: not known
  bool attached_;
  HeaderCheck result_;
};

// What the header's device has before the payload, or as a whole.
std::uint64_t Checker::header_place_bytes() const {
  return attached_ ? payload_offset_bytes(header_)
                   : std::max(header_size_bytes(header_), device_.size_bytes());
}

std::optional<std::uint64_t> Checker::payload_size() const {
  if (payload_ == nullptr) return {};
  const std::uint64_t offset = payload_offset_bytes(header_);
  if (payload_->size_bytes() <= offset) return {};
  return payload_->size_bytes() - offset;
}

void Checker::check_copies() {
  const ReadReport& report = file_.report();
  if (luks1()) return;
  if (report.problems.empty()) return check_copies_agree();
  // One of the two was read, so there is one that was not, or is old.
  const bool primary = report.primary != CopyState::kGood;
  const CopyState state = primary ? report.primary : report.secondary;
  const bool stale = state == CopyState::kStale;
  add({.severity = stale ? Severity::kWarning : Severity::kError,
       .code = fmt::format("copy-{}", copy_state_name(state)),
       .object = primary ? "primary header" : "secondary header",
       .offset_bytes = primary ? 0 : header_.metadata_size_bytes,
       .size_bytes = header_.metadata_size_bytes,
       .problem = report.problems.front(),
       .advice = report.foreign_start
                     ? "find out what wrote there; if it is a damaged volume and nothing else: "
                       "lukskeep header repair"
                     : "lukskeep header repair"});
}

// Same sequence id, other contents: no program writes that.
void Checker::check_copies_agree() {
  const std::uint64_t size = header_.metadata_size_bytes;
  Bytes bytes(size);
  try {
    device_.read(size, bytes);
    if (decode_luks2(bytes, size, "secondary LUKS2 header") == header_) return;
  } catch (const Error& error) {
    if (storage::ends_everything(error)) throw;
  }
  add({.severity = Severity::kWarning,
       .code = "copies-differ",
       .object = "secondary header",
       .offset_bytes = size,
       .size_bytes = size,
       .problem = fmt::format("it differs from the primary, with the same sequence id {}",
                              header_.sequence_id),
       .advice = "somebody may have forged one of them: compare both with a backup before you "
                 "trust the primary, which programs use"});
}

void Checker::check_extent() {
  const std::uint64_t end = header_end_bytes(header_);
  if (device_.size_bytes() >= end) return;
  add({.severity = Severity::kWarning,
       .code = "header-cut",
       .object = "header",
       .offset_bytes = device_.size_bytes(),
       .size_bytes = end - device_.size_bytes(),
       .problem = fmt::format("its areas end at byte {}, but '{}' ends at byte {}", end,
                              device_.name(), device_.size_bytes()),
       .advice = "new passphrases find no room there: the device or file was cut"});
}

// The parts that the header names, by offset.
std::vector<LayoutPart> Checker::parts() const {
  std::vector<LayoutPart> parts;
  const auto put = [&](std::uint64_t offset, std::uint64_t size, std::string name) {
    parts.push_back({.offset_bytes = offset, .size_bytes = size, .name = std::move(name)});
  };
  if (luks1()) {
    put(0, kLuks1HeaderBytes, "header");
    for (int number = 0; number < kLuks1KeyslotCount; ++number) {
      if (header_.keyslots.contains(number)) continue;
      const Luks1Slot& slot = header_.luks1_slots.at(static_cast<std::size_t>(number));
      put(std::uint64_t{slot.material_offset_sectors} * 512,
          material_bytes(header_.luks1_key_size_bytes, slot.stripes),
          fmt::format("keyslot {}, not in use", number));
    }
  } else {
    put(0, header_.metadata_size_bytes, "primary");
    put(header_.metadata_size_bytes, header_.metadata_size_bytes, "secondary");
  }
  for (const auto& [number, keyslot] : header_.keyslots) {
    put(keyslot.area.offset_bytes, keyslot.area.size_bytes, fmt::format("keyslot {}", number));
  }
  const auto payload = payload_size();
  if (attached_ && payload) put(payload_offset_bytes(header_), *payload, "payload");
  std::sort(parts.begin(), parts.end(), [](const LayoutPart& a, const LayoutPart& b) {
    return a.offset_bytes < b.offset_bytes;
  });
  return parts;
}

// The codecs let nothing overlap, so between two parts there is a gap or nothing.
void Checker::lay_out() {
  std::uint64_t at = 0;
  const auto fill = [&](std::uint64_t end) {
    if (end <= at) return;
    result_.layout.push_back({.offset_bytes = at, .size_bytes = end - at, .name = "unused"});
  };
  for (LayoutPart& part : parts()) {
    fill(part.offset_bytes);
    at = part.offset_bytes + part.size_bytes;
    result_.layout.push_back(std::move(part));
  }
  fill(attached_ ? std::min(header_place_bytes(), device_.size_bytes()) : device_.size_bytes());
}

void Checker::check_area(int number, const Keyslot& keyslot) {
  const KeyslotArea& area = keyslot.area;
  const bool key = keyslot.type == Keyslot::Type::kLuks2;
  // Behind the material an area is filled with anything.
  const std::uint64_t size =
      key ? std::uint64_t{keyslot.key_size_bytes} * keyslot.af.stripes : area.size_bytes;
  KeyslotCheck tested{.keyslot = number};
  if (device_.size_bytes() < area.offset_bytes || device_.size_bytes() - area.offset_bytes < size) {
    add({.severity = Severity::kError,
         .code = "keyslot-outside",
         .object = fmt::format("keyslot {}", number),
         .offset_bytes = area.offset_bytes,
         .size_bytes = size,
         .problem = fmt::format("its area ends at byte {}, but '{}' ends at byte {}",
                                area.offset_bytes + size, device_.name(), device_.size_bytes()),
         .advice = std::string(kRestore)});
  } else if (key) {
    const MaterialCheck material =
        check_material(device_, {.offset_bytes = area.offset_bytes, .size_bytes = size}, cancel_);
    tested.blocks = material.blocks;
    tested.bad_blocks = material.bad_blocks;
    add_ranges(number, material.ranges);
  }
  if (!key) return;
  tested.guesses_per_second = guesses_per_second(keyslot.kdf, area.key_size_bytes);
  result_.keyslots.push_back(tested);
}

void Checker::add_ranges(int number, const std::vector<BadRange>& ranges) {
  const std::string advice = fmt::format(
      "its passphrase opens nothing any more. If another keyslot opens: lukskeep key "
      "remove VOLUME --slot {}, and add the passphrase anew. Else {}",
      number, kRestore);
  for (std::size_t i = 0; i < std::min(ranges.size(), limits::kCheckRangesMax); ++i) {
    const BadRange& range = ranges[i];
    std::string problem =
        range.unreadable ? fmt::format("its key material cannot be read: {}", range.is)
                         : fmt::format("its key material is overwritten or damaged: {}", range.is);
    if (i + 1 == limits::kCheckRangesMax && ranges.size() > limits::kCheckRangesMax) {
      problem += fmt::format(" (and in {} more places)", ranges.size() - limits::kCheckRangesMax);
    }
    add({.severity = Severity::kError,
         .code = range.unreadable ? "keyslot-unreadable" : "keyslot-not-random",
         .object = fmt::format("keyslot {}", number),
         .offset_bytes = range.offset_bytes,
         .size_bytes = range.size_bytes,
         .problem = std::move(problem),
         .advice = advice});
  }
}

// Whether something that the volume needs stands in that range.
bool Checker::in_use(std::uint64_t offset_bytes, std::uint64_t size_bytes) const {
  return std::ranges::any_of(result_.layout, [&](const LayoutPart& part) {
    return part.offset_bytes < offset_bytes + size_bytes &&
           offset_bytes < part.offset_bytes + part.size_bytes && part.name != "unused" &&
           !part.name.ends_with("not in use");
  });
}

void Checker::check_signatures() {
  for (const ForeignSignature& found : find_foreign_signatures(device_, header_place_bytes())) {
    const bool harm = in_use(found.offset_bytes, found.size_bytes);
    add({.severity = harm ? Severity::kError : Severity::kWarning,
         .code = "foreign-signature",
         .object = "header",
         .offset_bytes = found.offset_bytes,
         .size_bytes = found.size_bytes,
         .problem = fmt::format("the mark of {} stands {}", found.name,
                                harm ? "over a part that is in use" : "in an unused part"),
         .advice = harm ? std::string(kRestore)
                        : "something wrote there, or left it; tools may take the device for that "
                          "and overwrite the volume"});
  }
  const std::uint64_t expected = luks1() ? 0 : header_.metadata_size_bytes;
  for (const ForeignSignature& found : find_old_luks2_copies(device_, expected)) {
    add({.severity = Severity::kWarning,
         .code = "old-header-copy",
         .object = "header",
         .offset_bytes = found.offset_bytes,
         .size_bytes = found.size_bytes,
         .problem = fmt::format("{} stands there: if the present header is lost, programs may take "
                                "that one instead",
                                found.name),
         .advice = "if nothing is in use there, overwrite its first 4096 bytes with zeroes"});
  }
}

void Checker::check_payload() {
  if (payload_ == nullptr) {
    return add({.severity = Severity::kNote,
                .code = "payload-elsewhere",
                .object = "payload",
                .offset_bytes = {},
                .size_bytes = 0,
                .problem = "the header is detached: its payload was not looked at",
                .advice = "name both: lukskeep header check PAYLOAD --header FILE"});
  }
  check_payload_place();
  if (!payload_size()) return;
  check_payload_segments();
  check_payload_signatures();
  if (has_backup_gpt(*payload_)) {
    const std::uint64_t offset = payload_->size_bytes() - 512;
    add({.severity = Severity::kWarning,
         .code = "backup-gpt",
         .object = "payload",
         .offset_bytes = offset,
         .size_bytes = 512,
         .problem = "the backup of a GPT partition table stands at the end of the device: a tool "
                    "that repairs the table from it overwrites the start, which is the header",
         .advice =
             fmt::format("it was there before the volume: wipefs --offset {} removes it", offset)});
  }
}

void Checker::check_payload_place() {
  const std::uint64_t offset = payload_offset_bytes(header_);
  const std::uint64_t size = payload_->size_bytes();
  if (offset % kPageBytes != 0) {
    add({.severity = Severity::kNote,
         .code = "payload-unaligned",
         .object = "payload",
         .offset_bytes = offset,
         .size_bytes = 0,
         .problem = fmt::format("it starts at byte {}, no multiple of 4096: slower on disks with "
                                "sectors of 4096 bytes",
                                offset),
         .advice = {}});
  }
  if (size > offset) return;
  // A file of just the header is what backups are.
  const bool backup = attached_ && size == header_size_bytes(header_);
  add({.severity = backup ? Severity::kNote : Severity::kError,
       .code = backup ? "header-only" : "payload-outside",
       .object = "payload",
       .offset_bytes = offset,
       .size_bytes = 0,
       .problem = fmt::format("it starts at byte {}, but '{}' ends at byte {}{}", offset,
                              payload_->name(), size, backup ? ": a backup of a header" : ""),
       .advice = backup ? "" : "the device was cut, or it is not the one that the header is for"});
}

void Checker::check_payload_segments() {
  const std::uint64_t device_size = payload_->size_bytes();
  for (const auto& [number, segment] : header_.segments) {
    if (std::ranges::any_of(segment.flags,
                            [](const std::string& flag) { return flag.starts_with("backup-"); })) {
      continue;
    }
    const std::string object = fmt::format("segment {}", number);
    const std::uint64_t offset = segment.offset_bytes;
    if (offset > device_size ||
        (segment.size_bytes && *segment.size_bytes > device_size - offset)) {
      add({.severity = Severity::kError,
           .code = "segment-outside",
           .object = object,
           .offset_bytes = offset,
           .size_bytes = segment.size_bytes.value_or(0),
           .problem = fmt::format("it reaches beyond the end of '{}' at byte {}", payload_->name(),
                                  device_size),
           .advice = "the device was cut, or it is not the one that the header is for"});
      continue;
    }
    if (segment.type != Segment::Type::kCrypt || segment.size_bytes) continue;
    const std::uint64_t rest = (device_size - offset) % segment.sector_size_bytes;
    if (rest == 0) continue;
    add({.severity = segment.sector_size_bytes > 512 ? Severity::kWarning : Severity::kNote,
         .code = "payload-size-odd",
         .object = "payload",
         .offset_bytes = device_size - rest,
         .size_bytes = rest,
         .problem = fmt::format("the last {} bytes are no whole sector of {} bytes", rest,
                                segment.sector_size_bytes),
         .advice = segment.sector_size_bytes > 512
                       ? "the kernel does not map a device of such a size: grow or cut it"
                       : "nothing reads them; a copy may have been cut"});
  }
}

// Encrypted, the payload shows no marks.
void Checker::check_payload_signatures() {
  const bool plain = std::ranges::any_of(header_.segments, [](const auto& entry) {
    return entry.second.type != Segment::Type::kCrypt ||
           entry.second.encryption.starts_with("cipher_null");
  });
  if (plain) return;
  const std::uint64_t start = payload_offset_bytes(header_);
  const auto window = storage::make_window(payload_, {.offset_bytes = start, .size_bytes = {}});
  for (const ForeignSignature& found : find_foreign_signatures(*window, kSignatureBytes)) {
    add({.severity = Severity::kError,
         .code = "payload-not-encrypted",
         .object = "payload",
         .offset_bytes = start + found.offset_bytes,
         .size_bytes = found.size_bytes,
         .problem = fmt::format("the mark of {} stands in it, readable without a key: the payload "
                                "was overwritten, or is not what this header is for",
                                found.name),
         .advice = "find out what wrote there before you write more"});
  }
}

}  // namespace

std::string_view severity_name(Severity severity) noexcept {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      break;
  }
  return "error";
}

HeaderCheck check_header(const HeaderFile& file, const CheckOptions& options) {
  return Checker(file, options).check();
}

HeaderCheck check_broken_header(const Device& device, const Error& why) {
  HeaderCheck result;
  result.findings.push_back({.severity = Severity::kError,
                             .code = "header-unusable",
                             .object = "header",
                             .offset_bytes = 0,
                             .size_bytes = 0,
                             .problem = why.message(),
                             .advice = std::string(kRestore)});
  for (const ForeignSignature& found : find_foreign_signatures(device, kSignatureBytes)) {
    result.findings.push_back({.severity = Severity::kError,
                               .code = "foreign-signature",
                               .object = "header",
                               .offset_bytes = found.offset_bytes,
                               .size_bytes = found.size_bytes,
                               .problem = fmt::format("the mark of {} stands there", found.name),
                               .advice = std::string(kRestore)});
  }
  sort_findings(result.findings);
  return result;
}

}  // namespace lukskeep::luks
