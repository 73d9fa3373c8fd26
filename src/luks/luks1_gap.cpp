#include "luks/luks1_gap.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "luks/layout.h"

namespace lukskeep::luks {
namespace {

constexpr std::size_t kSectorBytes = 512;
static_assert(kLuksmetaTableBytes <= kSectorBytes);

std::string table_name(const Device& device) {
  return fmt::format("the luksmeta table of '{}'", device.name());
}

Bytes read_bytes(const Device& device, std::uint64_t offset_bytes, std::uint64_t size_bytes) {
  Bytes bytes(size_bytes);
  device.read(offset_bytes, bytes);
  return bytes;
}

}  // namespace

Luks1Gap::Luks1Gap(std::shared_ptr<Device> device, LuksmetaGap gap)
    : device_(std::move(device)),
      gap_(gap),
      sector_(read_bytes(*device_, gap.offset_bytes, kSectorBytes)) {}

std::optional<Luks1Gap> Luks1Gap::open_anew(const HeaderFile& file) {
  auto gap = luksmeta_gap(file.header());
  const std::uint64_t device_bytes = file.device()->size_bytes();
  if (!gap || device_bytes < gap->offset_bytes + 2 * kLuksmetaBlockBytes) return std::nullopt;
  const std::uint64_t have = device_bytes - gap->offset_bytes;
  gap->size_bytes = std::min(gap->size_bytes, have - have % kLuksmetaBlockBytes);
  return Luks1Gap(file.device(), *gap);
}

std::optional<Luks1Gap> Luks1Gap::open(const HeaderFile& file) {
  std::optional<Luks1Gap> found = open_anew(file);
  if (!found) return std::nullopt;
  const auto table =
      decode_luksmeta(found->sector_, found->gap_.size_bytes, table_name(*file.device()));
  found->initialised_ = table.has_value();
  if (table) found->table_ = *table;
  return found;
}

Bytes Luks1Gap::load(int slot) const {
  const LuksmetaSlot& record = table_.slots.at(static_cast<std::size_t>(slot));
  Bytes data = read_bytes(*device_, gap_.offset_bytes + record.offset_bytes, record.size_bytes);
  if (crc32c(data) != record.checksum) {
    throw Error(Code::kDamaged,
                fmt::format("{}: the data of record {} is damaged", table_name(*device_), slot));
  }
  return data;
}

bool Luks1Gap::has_room(std::uint64_t size_bytes) const {
  return find_luksmeta_room(table_, gap_.size_bytes, size_bytes).has_value();
}

void Luks1Gap::save(const Record& record) {
  const auto offset = find_luksmeta_room(table_, gap_.size_bytes, record.data.size());
  if (!offset) {
    throw Error(
        Code::kNoSpace,
        fmt::format("{} has no room for another {} bytes: the gap before the payload has {}",
                    table_name(*device_), record.data.size(), gap_.size_bytes),
        "remove a binding that is no longer needed, or make the header LUKS2");
  }
  LuksmetaTable changed = table_;
  changed.slots.at(static_cast<std::size_t>(record.slot)) = {
      .type = record.type,
      .offset_bytes = *offset,
      .size_bytes = static_cast<std::uint32_t>(record.data.size()),
      .checksum = crc32c(record.data),
      .reserved = record.reserved};
  commit(changed, *offset, record.data);
}

void Luks1Gap::move(int from, int to, std::uint32_t reserved) {
  LuksmetaTable changed = table_;
  LuksmetaSlot& source = changed.slots.at(static_cast<std::size_t>(from));
  changed.slots.at(static_cast<std::size_t>(to)) = std::exchange(source, {});
  changed.slots.at(static_cast<std::size_t>(to)).reserved = reserved;
  commit(changed, 0, {});
}

void Luks1Gap::mark(int slot, std::uint32_t reserved) {
  LuksmetaTable changed = table_;
  changed.slots.at(static_cast<std::size_t>(slot)).reserved = reserved;
  commit(changed, 0, {});
}

void Luks1Gap::wipe(int slot) {
  LuksmetaTable changed = table_;
  changed.slots.at(static_cast<std::size_t>(slot)) = {};
  commit(changed, 0, {});
}

void Luks1Gap::commit(const LuksmetaTable& changed, std::uint32_t data_offset_bytes,
                      ByteView data) {
  if (!device_->writable()) {
    throw Error(Code::kReadOnly, fmt::format("'{}' cannot be written", device_->name()));
  }
  const std::unique_ptr<DeviceLock> lock = device_->lock_metadata();
  if (read_bytes(*device_, gap_.offset_bytes, kSectorBytes) != sector_) {
    throw Error(Code::kConflict,
                fmt::format("somebody else changed {} meanwhile", table_name(*device_)),
                "look at it (lukskeep bindings) and try again");
  }
  if (!data.empty()) {
    // Whole blocks, as luksmeta leaves them: what was there before does not show behind the data.
    Bytes blocks(round_up(data.size(), kLuksmetaBlockBytes));
    std::ranges::copy(data, blocks.begin());
    device_->write(gap_.offset_bytes + data_offset_bytes, blocks);
    device_->flush();
  }
  Bytes sector = initialised_ ? sector_ : Bytes(kSectorBytes);
  std::ranges::copy(encode_luksmeta(changed), sector.begin());
  device_->write(gap_.offset_bytes, sector);
  device_->flush();
  if (read_bytes(*device_, gap_.offset_bytes, kSectorBytes) != sector) {
    throw Error(Code::kIo, fmt::format("{} reads back differently", table_name(*device_)),
                "the storage does not keep what is written to it");
  }
  const LuksmetaTable before = std::exchange(table_, changed);
  sector_ = std::move(sector);
  initialised_ = true;
  overwrite_abandoned(before);
}

void Luks1Gap::overwrite_abandoned(const LuksmetaTable& before) const {
  bool any = false;
  for (const LuksmetaSlot& old : before.slots) {
    const bool kept =
        !old.used() || std::ranges::any_of(table_.slots, [&](const LuksmetaSlot& slot) {
          return slot.used() && slot.offset_bytes == old.offset_bytes;
        });
    if (kept) continue;
    device_->write_zeroes(gap_.offset_bytes + old.offset_bytes,
                          round_up(old.size_bytes, kLuksmetaBlockBytes), ZeroMode::kAllocate);
    any = true;
  }
  if (any) device_->flush();
}

std::uint64_t header_copy_bytes(const HeaderFile& file) {
  const std::uint64_t size = header_size_bytes(file.header());
  const auto whole = Luks1Gap::open_anew(file);
  if (!whole) return size;
  try {
    const LuksmetaTable table = Luks1Gap::open(file)->table();
    const bool any = std::ranges::any_of(table.slots, &LuksmetaSlot::used);
    return any ? size + luksmeta_end_bytes(table) : size;
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
    return size + whole->gap().size_bytes;
  }
}

}  // namespace lukskeep::luks
