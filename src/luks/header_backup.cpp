#include "luks/header_backup.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"

namespace lukskeep::luks {
namespace {

std::string version_name(const Header& header) {
  return header.version == Version::kLuks1 ? "LUKS1" : "LUKS2";
}

Bytes read_header_bytes(const HeaderFile& file, std::string_view what) {
  const std::uint64_t size = header_size_bytes(file.header());
  const Device& device = *file.device();
  if (device.size_bytes() < size) {
    throw Error(Code::kTooSmall, fmt::format("{} '{}' has {} bytes, its header has {}", what,
                                             device.name(), device.size_bytes(), size));
  }
  Bytes bytes(size);
  device.read(0, bytes);
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
  if (!shares_digest(backup, present)) {
    objections.push_back("the backup holds another volume key: the payload would be unreadable");
  }
  note_differences(backup.keyslots, present.keyslots, "keyslots", plan.notes);
  note_differences(backup.tokens, present.tokens, "tokens", plan.notes);
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

RestorePlan plan_restore(std::shared_ptr<Device> backup, std::shared_ptr<Device> target) {
  const HeaderFile source = HeaderFile::open(std::move(backup));
  const Bytes bytes = read_header_bytes(source, "the backup");
  if (target->size_bytes() < bytes.size()) {
    throw Error(Code::kTooSmall, fmt::format("'{}' has {} bytes, the header in the backup has {}",
                                             target->name(), target->size_bytes(), bytes.size()));
  }
  RestorePlan plan{.from_backup = source.header(), .present = {}, .objections = {}, .notes = {}};
  for (const std::string& problem : source.report().problems) {
    plan.objections.push_back(fmt::format("the backup is damaged: {}", problem));
  }
  try {
    plan.present = HeaderFile::open(target).header();
    compare(plan.from_backup, *plan.present, plan);
  } catch (const Error& error) {
    if (error.code() != Code::kNotLuks && error.code() != Code::kDamaged &&
        error.code() != Code::kUnsupported) {
      throw;
    }
    plan.notes.push_back(fmt::format("the target's own header is unusable: {}", error.message()));
    const std::uint64_t payload = payload_offset_bytes(plan.from_backup);
    if (payload != 0 && target->size_bytes() <= payload) {
      plan.objections.push_back(fmt::format("the target ends at byte {}, before its payload at {}",
                                            target->size_bytes(), payload));
    }
  }
  return plan;
}

void restore_header(std::shared_ptr<Device> backup, std::shared_ptr<Device> target) {
  const HeaderFile source = HeaderFile::open(std::move(backup));
  const Bytes bytes = read_header_bytes(source, "the backup");
  const Header& header = source.header();
  const std::uint64_t metadata =
      header.version == Version::kLuks1 ? kLuks1HeaderBytes : 2 * header.metadata_size_bytes;
  target->write(metadata, ByteView(bytes).subspan(metadata));
  target->flush();
  target->write(0, ByteView(bytes).first(metadata));
  target->flush();
  Bytes check(bytes.size());
  target->read(0, check);
  if (check != bytes || HeaderFile::open(target).header() != header) {
    throw Error(Code::kIo,
                fmt::format("the restored header of '{}' reads back differently", target->name()),
                "try again: the backup is unharmed");
  }
}

}  // namespace lukskeep::luks
