// The header on its device: finding it, reading both copies, and the one way to change it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/header.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::luks {

enum class CopyState : std::uint8_t { kGood, kDamaged, kAbsent, kStale };

// "good", "damaged", "absent", "stale".
std::string_view copy_state_name(CopyState state) noexcept;

// What reading found besides the header itself. Reading never writes.
struct ReadReport {
  CopyState primary = CopyState::kGood;
  CopyState secondary = CopyState::kGood;    // LUKS1: kAbsent
  std::uint64_t secondary_offset_bytes = 0;  // LUKS1: 0
  std::vector<std::string> problems;         // one sentence each; empty if all is well
  // LUKS2: only the secondary was found, and the first block holds other data: a partition table or
  // file system that was made since, or noise.
  bool foreign_start = false;
};

// A range of the header device that a transaction writes before its commit …
struct AreaWrite {
  std::uint64_t offset_bytes = 0;
  Bytes material;  // encrypted
};
// … or wipes after it.
struct AreaRange {
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
};

struct HeaderChange {
  Header header;                     // sequence_id is set by commit
  std::vector<AreaWrite> new_areas;  // must not touch areas that the present header uses
  std::vector<AreaRange> obsolete;   // overwritten with random bytes when all is durable
  bool overwrite_foreign = false;    // see ReadReport::foreign_start: somebody said that it may go
};

class HeaderFile {
 public:
  // Reads and validates. LUKS2: both copies, the better one wins (higher sequence id among the
  // good), the secondary found by scan where the primary is gone. Throws Error: kNotLuks, or
  // kDamaged with what is wrong with each copy.
  static HeaderFile open(std::shared_ptr<Device> device);

  // Writes `first.header` with its areas to a device whose old contents do not matter: every old
  // copy and keyslot area is overwritten (with `first.obsolete` naming what to randomise), and the
  // header becomes valid last. Used by create.
  static HeaderFile create(std::shared_ptr<Device> device, HeaderChange first);

  const Header& header() const noexcept { return header_; }
  const ReadReport& report() const noexcept { return report_; }
  const std::shared_ptr<Device>& device() const noexcept { return device_; }

  // The one transaction of LuksKeep. Order: lock as cryptsetup does, re-read and compare (kConflict
  // if somebody changed the header meanwhile), validate, new areas, flush, the copy that is not the
  // better one, flush, the other, flush, read back and compare, wipe what is obsolete, flush. A
  // power cut between any two writes leaves a volume that opens with the old or the new keys.
  // Afterwards header() is the new one. A header whose copies differ in state leaves with two good
  // ones. A header of another version or metadata size takes the other's place; the keyslots of the
  // present one must be out of the way, in an earlier commit. Throws Error: kUnsupported (the
  // volume requires what this program does not know), kUnsafe (ReadReport::foreign_start),
  // kConflict, kReadOnly, kInvalidArgument, kNoSpace (JSON area full), kIo.
  void commit(HeaderChange change);

 private:
  HeaderFile(std::shared_ptr<Device> device, Header header, ReadReport report);
  void check_change_allowed(const HeaderChange& change) const;
  void write_both_anew();

  std::shared_ptr<Device> device_;
  Header header_;
  ReadReport report_;
};

}  // namespace lukskeep::luks
