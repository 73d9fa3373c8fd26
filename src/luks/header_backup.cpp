#include "luks/header_backup.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"

namespace lukskeep::luks {
namespace {

std::string version_name(const Header& header) {
  return header.version == Version::kLuks1 ? "LUKS1" : "LUKS2";
}

// In the size of a backup. What lies between the header's end and that is no part of it.
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
  Bytes bytes(header_size_bytes(file.header()));
  device.read(0, MutableBytes(bytes).first(end));
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

void compare(const Header& backup, const Header& present, RestorePlan& plan) {
  auto& objections = plan.objections;
  if (backup.version != present.version) {
    objections.push_back(fmt::format("the backup is {}, the volume {}", version_name(backup),
                                     version_name(present)));
  }
  if (backup.uuid != present.uuid) {
    objections.push_back(fmt::format("the backup is of volume {}, the target is {}",
                                     printable(backup.uuid), printable(present.uuid)));
  }
  if (payload_offset_bytes(backup) != payload_offset_bytes(present)) {
    objections.push_back(fmt::format("the backup puts the payload at byte {}, the volume at {}",
                                     payload_offset_bytes(backup), payload_offset_bytes(present)));
  }
  if (header_size_bytes(backup) != header_size_bytes(present)) {
    objections.push_back(fmt::format("the backup's header has {} bytes, the volume's {}",
                                     header_size_bytes(backup), header_size_bytes(present)));
  }
  if (backup.version == present.version && backup.sequence_id < present.sequence_id) {
    objections.push_back(fmt::format(
        "the backup is older than the header that is there (sequence id {} against {}): "
        "passphrases removed since then would open the volume again",
        backup.sequence_id, present.sequence_id));
  }
  // LUKS1 does not count its changes: any difference may be one that was made since.
  if (backup.version == Version::kLuks1 && present.version == Version::kLuks1 &&
      backup.keyslots != present.keyslots) {
    objections.emplace_back(
        "the keyslots differ: if the backup is the older one, passphrases removed since then would "
        "open the volume again, and those added since would be lost");
  }
  if (backup.segments != present.segments) {
    objections.emplace_back(
        "the backup describes the payload otherwise (cipher, sector size or extent): it would be "
        "unreadable");
  }
  if (backup.config.requirements != present.config.requirements) {
    objections.emplace_back("the requirements differ: one of the two is of a re-encryption");
  }
  if (!shares_digest(backup, present)) {
    objections.emplace_back("the backup holds another volume key: the payload would be unreadable");
  }
  note_differences(backup.keyslots, present.keyslots, "keyslots", plan.notes);
  note_differences(backup.tokens, present.tokens, "tokens", plan.notes);
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

// A target whose header cannot be read: damaged, or never one of LUKS.
void object_to_foreign_data(const Error& error, const Device& target, RestorePlan& plan) {
  plan.notes.push_back(fmt::format("the target's own header is unusable: {}", error.message()));
  if (error.code() != Code::kNotLuks && !names_uuid(plan.replaced, plan.from_backup.uuid)) {
    plan.objections.push_back(fmt::format(
        "the header of '{}' cannot be read, and nothing in it says that it is of volume "
        "{}, as the backup is",
        target.name(), printable(plan.from_backup.uuid)));
  }
  if (error.code() == Code::kNotLuks && !all_zero(plan.replaced)) {
    plan.objections.push_back(
        fmt::format("'{}' has no LUKS header but holds other data in its first {} bytes, which "
                    "would be overwritten",
                    target.name(), plan.replaced.size()));
  }
  const std::uint64_t payload = payload_offset_bytes(plan.from_backup);
  if (payload != 0 && target.size_bytes() <= payload) {
    plan.objections.push_back(fmt::format("the target ends at byte {}, before its payload at {}",
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
                   .bytes = read_header_bytes(source, "the backup"),
                   .replaced = {}};
  plan.bytes.resize(header_end_bytes(plan.from_backup));
  if (target->size_bytes() < plan.bytes.size()) {
    throw Error(Code::kTooSmall,
                fmt::format("'{}' has {} bytes, the header in the backup has {}", target->name(),
                            target->size_bytes(), plan.bytes.size()));
  }
  plan.replaced.resize(plan.bytes.size());
  target->read(0, plan.replaced);
  for (const std::string& problem : source.report().problems) {
    plan.objections.push_back(fmt::format("the backup is damaged: {}", problem));
  }
  try {
    const HeaderFile file = HeaderFile::open(target);
    plan.present = file.header();
    plan.secondary_first = file.report().primary == CopyState::kGood;
    if (file.report().foreign_start) {
      plan.objections.push_back(fmt::format(
          "the start of '{}' holds other data, which would be overwritten: only the second "
          "copy of an old header is left",
          target->name()));
    }
    compare(plan.from_backup, *plan.present, plan);
  } catch (const Error& error) {
    if (error.code() != Code::kNotLuks && error.code() != Code::kDamaged &&
        error.code() != Code::kUnsupported) {
      throw;
    }
    object_to_foreign_data(error, *target, plan);
  }
  return plan;
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
