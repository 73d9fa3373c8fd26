// The records in the gap of a LUKS1 header, on its device: what the luksmeta tool and Clevis read,
// but written so that a power cut at any point leaves either the old records or the new ones.
//
// Data goes to free room first; then the table, which lies in one sector, makes it count; what no
// record names any more is overwritten last.
#pragma once

#include <cstdint>
#include <optional>

#include "luks/header_file.h"
#include "luks/luksmeta.h"

namespace lukskeep::luks {

class Luks1Gap {
 public:
  // Reads the table in the gap of `file`, whose device it shares; it does not matter to it what
  // becomes of the keyslots. Absent if there is no gap (see luksmeta_gap), or the device ends in
  // it. Throws Error{kDamaged, kUnsupported} as decode_luksmeta.
  static std::optional<Luks1Gap> open(const HeaderFile& file);
  // The same, but a table that cannot be read counts as none: for who will make a new one.
  static std::optional<Luks1Gap> open_anew(const HeaderFile& file);

  // Whether there is a table; without one all slots are free, and save() makes it.
  bool initialised() const noexcept { return initialised_; }
  const LuksmetaTable& table() const noexcept { return table_; }
  const LuksmetaGap& gap() const noexcept { return gap_; }

  // The data of a slot that is used. Throws Error{kDamaged} if its checksum is wrong.
  Bytes load(int slot) const;

  // Whether save() of so many bytes finds room, what the slot holds now staying where it is.
  bool has_room(std::uint64_t size_bytes) const;

  struct Record {
    int slot = 0;
    LuksmetaType type{};
    ByteView data;
    std::uint32_t reserved = 0;
  };
  // Each of these is durable when it returns, or throws Error: kNoSpace (save, before anything is
  // written), kConflict (somebody else changed the table meanwhile), kReadOnly, kIo.
  void save(const Record& record);
  // The record of `from`, with another `reserved`, in the place of that of `to`: one write.
  void move(int from, int to, std::uint32_t reserved);
  void mark(int slot, std::uint32_t reserved);
  void wipe(int slot);

 private:
  Luks1Gap(std::shared_ptr<Device> device, LuksmetaGap gap);
  // `data` is written to where `data_offset_bytes` says, before the table.
  void commit(const LuksmetaTable& changed, std::uint32_t data_offset_bytes, ByteView data);
  void overwrite_abandoned(const LuksmetaTable& before) const;

  std::shared_ptr<Device> device_;
  LuksmetaGap gap_;
  LuksmetaTable table_;
  bool initialised_ = false;
  Bytes sector_;  // the table's, as it was read
};

// Bytes from the start of the header device that a copy of the header has to have:
// header_size_bytes, and of LUKS1 the records behind it if there are any. A table that cannot be
// read counts with all of its gap.
std::uint64_t header_copy_bytes(const HeaderFile& file);

}  // namespace lukskeep::luks
