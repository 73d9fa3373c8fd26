#include "luks/header_backup.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/random.h"
#include "luks/crypt_device.h"
#include "luks/keyslots.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/luks1_fields.h"
#include "luks/luks1_gap.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks {
namespace {

std::string version_name(const Header& header) {
  return header.version == Version::kLuks1 ? "LUKS1" : "LUKS2";
}

// In the size of a backup. What lies between the header's end and that is no part of it; the
// records behind a LUKS1 header are.
Bytes read_header_bytes(const HeaderFile& file, std::string_view what) {
  const std::uint64_t end = header_end_bytes(file.header());
  const Device& device = *file.device();
  if (device.size_bytes() < end) {
    throw Error(Code::kTooSmall, fmt::format("{} '{}' has {} bytes, its header has {}", what,
                                             device.name(), device.size_bytes(), end));
  }
  if (end > limits::kSnapshotHeaderBytesMax) {
    throw Error(Code::kUnsupported,
                fmt::format("{} '{}' has a header of {} bytes, more than any program writes", what,
                            device.name(), end));
  }
  const std::uint64_t size = header_size_bytes(file.header());
  Bytes bytes(header_copy_bytes(file));
  device.read(0, MutableBytes(bytes).first(end));
  if (bytes.size() > size) device.read(size, MutableBytes(bytes).subspan(size));
  return bytes;
}

template <typename Map>
std::string list_ids(const Map& have, const Map& lack) {
  std::string ids;
  for (const auto& [id, value] : have) {
    if (!lack.contains(id)) ids += fmt::format("{}{}", ids.empty() ? "" : ", ", id);
  }
  return ids;
}

template <typename Map>
void note_differences(const Map& backup, const Map& present, std::string_view noun,
                      std::vector<std::string>& notes) {
  const std::string back = list_ids(backup, present);
  const std::string lost = list_ids(present, backup);
  if (!back.empty()) notes.push_back(fmt::format("{} {} come back", noun, back));
  if (!lost.empty()) notes.push_back(fmt::format("{} {} are lost", noun, lost));
  for (const auto& [id, value] : backup) {
    const auto other = present.find(id);
    if (other != present.end() && other->second != value) {
      notes.push_back(fmt::format("{} {} changes", noun, id));
    }
  }
}

// A volume key is known by its digests; headers of one volume share at least one.
bool shares_digest(const Header& a, const Header& b) {
  return std::any_of(a.digests.begin(), a.digests.end(), [&](const auto& mine) {
    return std::any_of(b.digests.begin(), b.digests.end(), [&](const auto& theirs) {
      return mine.second.digest == theirs.second.digest && mine.second.salt == theirs.second.salt;
    });
  });
}

void note_changes(RestorePlan& plan) {
  plan.notes.clear();
  if (!plan.present) return;
  note_differences(plan.from_backup.keyslots, plan.present->keyslots, "keyslots", plan.notes);
  note_differences(plan.from_backup.tokens, plan.present->tokens, "tokens", plan.notes);
}

void compare_geometry(const Header& backup, const Header& present, RestorePlan& plan) {
  const auto object = [&](RestoreRisk risk, std::string text) {
    plan.objections.push_back({.risk = risk, .text = std::move(text)});
  };
  if (backup.version != present.version) {
    object(RestoreRisk::kVersion, fmt::format("the backup is {}, the volume {}",
                                              version_name(backup), version_name(present)));
  }
  if (backup.uuid != present.uuid) {
    object(RestoreRisk::kUuid, fmt::format("the backup is of volume {}, the target is {}",
                                           printable(backup.uuid), printable(present.uuid)));
  }
  if (payload_offset_bytes(backup) != payload_offset_bytes(present)) {
    object(RestoreRisk::kOffsets,
           fmt::format("the backup puts the payload at byte {}, the volume at {}",
                       payload_offset_bytes(backup), payload_offset_bytes(present)));
  }
  if (header_size_bytes(backup) != header_size_bytes(present) ||
      backup.metadata_size_bytes != present.metadata_size_bytes) {
    object(RestoreRisk::kMetadataSize,
           fmt::format("the backup's header has {} bytes with metadata of {}, the volume's {} "
                       "with {}",
                       header_size_bytes(backup), backup.metadata_size_bytes,
                       header_size_bytes(present), present.metadata_size_bytes));
  }
  if (backup.segments != present.segments) {
    object(RestoreRisk::kCipher,
           "the backup describes the payload otherwise (cipher, sector size or extent): it would "
           "be unreadable");
  }
  if (backup.config.requirements != present.config.requirements) {
    object(RestoreRisk::kRequirements,
           "the requirements differ: one of the two is of a re-encryption");
  }
}

void compare_keys(const Header& backup, const Header& present, RestorePlan& plan) {
  const auto object = [&](RestoreRisk risk, std::string text) {
    plan.objections.push_back({.risk = risk, .text = std::move(text)});
  };
  if (backup.version == present.version && backup.sequence_id < present.sequence_id) {
    object(RestoreRisk::kOlder,
           fmt::format("the backup is older than the header that is there (sequence id {} against "
                       "{}): passphrases removed since then would open the volume again",
                       backup.sequence_id, present.sequence_id));
  }
  // LUKS1 does not count its changes: any difference may be one that was made since.
  if (backup.version == Version::kLuks1 && present.version == Version::kLuks1 &&
      backup.keyslots != present.keyslots) {
    object(RestoreRisk::kOlder,
           "the keyslots differ: if the backup is the older one, passphrases removed since then "
           "would open the volume again, and those added since would be lost");
  }
  if (!shares_digest(backup, present)) {
    object(RestoreRisk::kVolumeKey,
           "the backup holds another volume key: the payload would be unreadable");
  }
  for (const auto& back : backup.keyslots) {
    const bool there = std::ranges::any_of(
        present.keyslots, [&](const auto& entry) { return same_key(entry.second, back.second); });
    if (!there) plan.revived.insert(back.first);
  }
  note_changes(plan);
}

// Whether a header at the start of `bytes`, or a second copy in them, has `uuid` in its place
// (LUKS1 §2.1 and LUKS2 §2.2: the same offset in all of them).
bool names_uuid(ByteView bytes, std::string_view uuid) {
  constexpr std::size_t kUuidOffset = 168;
  const auto at = [&](std::uint64_t copy) {
    return bytes.size() >= copy + kUuidOffset + uuid.size() && !uuid.empty() &&
           as_string_view(bytes.subspan(copy + kUuidOffset, uuid.size())) == uuid;
  };
  return at(0) || std::any_of(kLuks2MetadataSizes.begin(), kLuks2MetadataSizes.end(), at);
}

// Bytes of `bytes` at `offset`, or nothing where they end before.
ByteView part(ByteView bytes, std::uint64_t offset, std::uint64_t size) {
  if (bytes.size() < offset || bytes.size() - offset < size) return {};
  return bytes.subspan(offset, size);
}

// Whether a LUKS1 header that cannot be read as a whole has an active keyslot that is none of the
// backup's: its salt says so (LUKS1 §3.1).
bool has_other_luks1_key(ByteView wreck, const Header& backup) {
  using namespace luks1;
  if (part(wreck, 0, kLuks1HeaderBytes).empty()) return false;
  for (std::size_t i = 0; i < kLuks1KeyslotCount; ++i) {
    const ByteView slot = wreck.subspan(kKeyslotsOffset + i * kKeyslotBytes, kKeyslotBytes);
    const ByteView salt = slot.subspan(kSlotSaltOffset, kSaltBytes);
    const bool known = std::ranges::any_of(backup.keyslots, [&](const auto& entry) {
      return std::ranges::equal(entry.second.kdf.salt, salt);
    });
    if (load_be<std::uint32_t>(slot.data()) == kSlotActive && !known) return true;
  }
  return false;
}

// Absent if too little is left of the copy to say anything.
std::optional<Luks2Prefix> readable_prefix(ByteView head, std::uint64_t at) {
  try {
    return decode_luks2_prefix(head, at, "what is left of the header");
  } catch (const Error&) {
    return std::nullopt;
  }
}

// The highest sequence id that a copy of a wreck says, 0 if there is none.
std::uint64_t latest_sequence_id(ByteView wreck) {
  std::uint64_t latest = 0;
  const auto look = [&](std::uint64_t at) {
    const ByteView head = part(wreck, at, kLuks2BinaryHeaderBytes);
    if (head.empty()) return;
    if (const auto prefix = readable_prefix(head, at)) {
      latest = std::max(latest, prefix->sequence_id);
    }
  };
  look(0);
  for (const std::uint64_t at : kLuks2MetadataSizes) look(at);
  return latest;
}

// What is left of a header may tell that more was changed than the backup knows of.
void object_to_lost_changes(RestorePlan& plan) {
  const Header& backup = plan.from_backup;
  const std::uint64_t latest = latest_sequence_id(plan.replaced);
  if (backup.version == Version::kLuks2 && latest > backup.sequence_id) {
    plan.objections.push_back(
        {.risk = RestoreRisk::kOlder,
         .text = fmt::format(
             "what is left of the header has sequence id {}, the backup {}: what was changed since "
             "(passphrases added, changed or removed) would be undone",
             latest, backup.sequence_id)});
  }
  if (backup.version == Version::kLuks1 && has_other_luks1_key(plan.replaced, backup)) {
    plan.objections.push_back(
        {.risk = RestoreRisk::kOlder,
         .text = "what is left of the header has a keyslot that the backup does not have: its "
                 "passphrase would be lost"});
  }
}

// A target whose header cannot be read: damaged, or never one of LUKS.
void object_to_foreign_data(const Error& error, const Device& target, RestorePlan& plan) {
  const auto object = [&](RestoreRisk risk, std::string text) {
    plan.objections.push_back({.risk = risk, .text = std::move(text)});
  };
  plan.notes.push_back(fmt::format("the target's own header is unusable: {}", error.message()));
  if (error.code() != Code::kNotLuks && !names_uuid(plan.replaced, plan.from_backup.uuid)) {
    object(RestoreRisk::kUuid,
           fmt::format("the header of '{}' cannot be read, and nothing in it says that it is of "
                       "volume {}, as the backup is",
                       target.name(), printable(plan.from_backup.uuid)));
  }
  if (error.code() == Code::kNotLuks && !all_zero(plan.replaced)) {
    object(RestoreRisk::kForeign,
           fmt::format("'{}' has no LUKS header but holds other data in its first {} bytes, which "
                       "would be overwritten",
                       target.name(), plan.replaced.size()));
  }
  if (error.code() != Code::kNotLuks) object_to_lost_changes(plan);
  const std::uint64_t payload = payload_offset_bytes(plan.from_backup);
  if (payload != 0 && target.size_bytes() <= payload) {
    object(RestoreRisk::kSize, fmt::format("the target ends at byte {}, before its payload at {}",
                                           target.size_bytes(), payload));
  }
}

// Writes what differs between the plan's bytes and the present ones, block by block, once.
class Rewrite {
 public:
  Rewrite(const RestorePlan& plan, Device& target)
      : bytes_(plan.bytes), present_(plan.replaced), target_(target) {}

  void range(const AreaRange& range) {
    const std::uint64_t end =
        std::min<std::uint64_t>(range.offset_bytes + range.size_bytes, bytes_.size());
    std::uint64_t run_start = range.offset_bytes;
    for (std::uint64_t at = range.offset_bytes; at < end;) {
      const std::uint64_t next = std::min(at - at % kBlockBytes + kBlockBytes, end);
      if (same(at, next)) {
        write(run_start, at);
        run_start = next;
      }
      at = next;
    }
    if (run_start < end) write(run_start, end);
  }

 private:
  static constexpr std::uint64_t kBlockBytes = 4096;

  bool same(std::uint64_t start, std::uint64_t end) const {
    return std::ranges::equal(bytes_.subspan(start, end - start),
                              ByteView(present_).subspan(start, end - start));
  }

  void write(std::uint64_t start, std::uint64_t end) {
    if (start == end) return;
    const ByteView data = bytes_.subspan(start, end - start);
    target_.write(start, data);
    std::ranges::copy(data, present_.begin() + static_cast<std::ptrdiff_t>(start));
  }

  const ByteView bytes_;
  Bytes present_;
  Device& target_;
};

// In the order in which they are written: the copy that is worth less goes first.
std::vector<AreaRange> metadata_copies(const RestorePlan& plan) {
  if (plan.from_backup.version == Version::kLuks1) return {{0, kLuks1HeaderBytes}};
  const std::uint64_t size = plan.from_backup.metadata_size_bytes;
  std::vector<AreaRange> copies = {{0, size}, {size, size}};
  if (plan.secondary_first) std::swap(copies[0], copies[1]);
  return copies;
}

}  // namespace

std::string_view risk_name(RestoreRisk risk) noexcept {
  constexpr std::array<std::string_view, kRestoreRiskCount> kNames = {
      "damaged", "version", "uuid",         "device",     "size",    "offsets", "metadata-size",
      "cipher",  "older",   "requirements", "volume-key", "payload", "foreign", "in-use"};
  return kNames.at(static_cast<std::size_t>(risk));
}

bool same_key(const Keyslot& a, const Keyslot& b) {
  return a.type_name == b.type_name && a.kdf == b.kdf && a.key_size_bytes == b.key_size_bytes;
}

Bytes backup_header(const HeaderFile& file, bool allow_damaged) {
  if (!file.report().problems.empty() && !allow_damaged) {
    throw Error(Code::kDamaged,
                fmt::format("the header of '{}' is damaged: {}", file.device()->name(),
                            fmt::join(file.report().problems, "; ")),
                "a backup would keep the damage; --yes makes one all the same");
  }
  return read_header_bytes(file, "the device");
}

RestorePlan plan_restore(std::shared_ptr<Device> backup, const std::shared_ptr<Device>& target) {
  const HeaderFile source = HeaderFile::open(std::move(backup));
  RestorePlan plan{.from_backup = source.header(),
                   .present = {},
                   .objections = {},
                   .notes = {},
                   .revived = {},
                   .bytes = read_header_bytes(source, "the backup"),
                   .replaced = {}};
  const bool records = plan.bytes.size() > header_size_bytes(plan.from_backup);
  if (!records) plan.bytes.resize(header_end_bytes(plan.from_backup));
  if (target->size_bytes() < plan.bytes.size()) {
    throw Error(Code::kTooSmall,
                fmt::format("'{}' has {} bytes, the header in the backup has {}", target->name(),
                            target->size_bytes(), plan.bytes.size()));
  }
  plan.replaced.resize(plan.bytes.size());
  target->read(0, plan.replaced);
  for (const std::string& problem : source.report().problems) {
    plan.objections.push_back(
        {.risk = RestoreRisk::kDamaged, .text = fmt::format("the backup is damaged: {}", problem)});
  }
  try {
    const HeaderFile file = HeaderFile::open(target);
    plan.present = file.header();
    plan.secondary_first = file.report().primary == CopyState::kGood;
    if (file.report().foreign_start) {
      plan.objections.push_back(
          {.risk = RestoreRisk::kForeign,
           .text = fmt::format("the start of '{}' holds other data, which would be overwritten: "
                               "only the second copy of an old header is left",
                               target->name())});
    }
    compare_geometry(plan.from_backup, *plan.present, plan);
    compare_keys(plan.from_backup, *plan.present, plan);
    if (!records && header_copy_bytes(file) > header_size_bytes(file.header())) {
      plan.notes.emplace_back(
          "the luksmeta records of the volume stay as they are: the backup has none");
    }
  } catch (const Error& error) {
    if (error.code() != Code::kNotLuks && error.code() != Code::kDamaged &&
        error.code() != Code::kUnsupported) {
      throw;
    }
    object_to_foreign_data(error, *target, plan);
  }
  return plan;
}

void leave_out_keyslots(RestorePlan& plan, const std::set<int>& keyslots) {
  Header& header = plan.from_backup;
  for (const std::string& requirement : unsupported_requirements(header)) {
    throw Error(Code::kUnsupported,
                fmt::format("cannot leave keyslots out of a header that requires '{}'",
                            printable(requirement)));
  }
  for (const int id : keyslots) {
    const KeyslotArea& area = header.keyslots.at(id).area;
    const Bytes noise = crypto::random_bytes(area.size_bytes);
    std::ranges::copy(noise, plan.bytes.begin() + static_cast<std::ptrdiff_t>(area.offset_bytes));
    drop_keyslot(header, id);
  }
  note_changes(plan);
  const bool opens = std::ranges::any_of(
      header.keyslots, [&](const auto& entry) { return opens_segment(header, entry.first); });
  if (!opens) {
    throw Error(Code::kLastKeyslot,
                "without the keyslots that were removed since, the backup has none that opens the "
                "volume");
  }
  if (header.version == Version::kLuks1) {
    std::ranges::copy(encode_luks1(header), plan.bytes.begin());
    return;
  }
  const std::uint64_t present = plan.present ? plan.present->sequence_id : 0;
  header.sequence_id = std::max(header.sequence_id, present) + 1;
  for (const Luks2Copy copy : {Luks2Copy::kPrimary, Luks2Copy::kSecondary}) {
    const std::uint64_t at = copy == Luks2Copy::kPrimary ? 0 : header.metadata_size_bytes;
    std::ranges::copy(encode_luks2(header, copy, crypto::random_bytes(kLuks2SaltBytes)),
                      plan.bytes.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

void remove_header(const HeaderFile& file, ByteView copy) {
  Device& device = *file.device();
  const std::unique_ptr<DeviceLock> lock = device.lock_metadata();
  const std::uint64_t copied = header_copy_bytes(file);
  const bool records = copied > header_size_bytes(file.header());
  const std::uint64_t end = records ? copied : header_end_bytes(file.header());
  Bytes present(end);
  device.read(0, present);
  // A copy has nothing of what lies between the header and its records.
  if (records) {
    const auto at = [&](std::uint64_t offset) {
      return present.begin() + static_cast<std::ptrdiff_t>(offset);
    };
    std::fill(at(header_end_bytes(file.header())), at(header_size_bytes(file.header())),
              std::byte{0});
  }
  if (copy.size() < end || !std::ranges::equal(present, copy.first(end))) {
    throw Error(Code::kConflict,
                fmt::format("somebody else changed the header of '{}' meanwhile", device.name()),
                "nothing was removed; look at it (lukskeep info) and try again");
  }
  const std::uint64_t metadata = file.header().version == Version::kLuks1
                                     ? kLuks1HeaderBytes
                                     : 2 * file.header().metadata_size_bytes;
  device.write_zeroes(0, metadata, ZeroMode::kAllocate);
  device.flush();
  device.write_zeroes(metadata, end - metadata, ZeroMode::kAllocate);
  device.flush();
}

void restore_header(const RestorePlan& plan, Device& target) {
  const std::unique_ptr<DeviceLock> lock = target.lock_metadata();
  Bytes written(plan.replaced.size());
  target.read(0, written);
  if (written != plan.replaced) {
    throw Error(Code::kConflict,
                fmt::format("somebody else changed the header of '{}' meanwhile", target.name()),
                "look at it (lukskeep info) and try again");
  }
  Rewrite rewrite(plan, target);
  // What the backup's keyslots need, then the metadata that names it, then all the rest: until the
  // metadata changes, a keyslot of the present header that is elsewhere still opens.
  for (const auto& [id, keyslot] : plan.from_backup.keyslots) {
    rewrite.range({keyslot.area.offset_bytes, keyslot.area.size_bytes});
  }
  target.flush();
  for (const AreaRange& copy : metadata_copies(plan)) {
    rewrite.range(copy);
    target.flush();
  }
  rewrite.range({0, plan.bytes.size()});
  target.flush();
  target.read(0, written);
  if (written != plan.bytes) {
    throw Error(Code::kIo,
                fmt::format("the restored header of '{}' reads back differently", target.name()),
                "try again: the backup is unharmed");
  }
}

}  // namespace lukskeep::luks
