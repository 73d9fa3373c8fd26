#include "luks/luksmeta.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "luks/layout.h"

namespace lukskeep::luks {
namespace {

constexpr std::string_view kMagic = "LUKSMETA";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kVersionOffset = 8;
constexpr std::size_t kChecksumOffset = 12;
constexpr std::size_t kSlotsOffset = 16;
constexpr std::size_t kSlotBytes = 32;
constexpr std::size_t kTypeBytes = 16;

static_assert(kSlotsOffset + kLuks1KeyslotCount * kSlotBytes == kLuksmetaTableBytes);

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  constexpr std::uint32_t kReflectedPolynomial = 0x82f63b78;
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? kReflectedPolynomial : 0);
    }
    table.at(i) = crc;
  }
  return table;
}

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

Range range_of(const LuksmetaSlot& slot) {
  return {slot.offset_bytes,
          slot.offset_bytes +
              round_up(std::max<std::uint64_t>(slot.size_bytes, 1), kLuksmetaBlockBytes)};
}

std::vector<Range> used_ranges(const LuksmetaTable& table) {
  std::vector<Range> ranges;
  for (const LuksmetaSlot& slot : table.slots) {
    if (slot.used()) ranges.push_back(range_of(slot));
  }
  std::ranges::sort(ranges, {}, &Range::begin);
  return ranges;
}

LuksmetaSlot decode_slot(const std::byte* p) {
  LuksmetaSlot slot;
  std::copy_n(p, kTypeBytes, slot.type.begin());
  slot.offset_bytes = load_be<std::uint32_t>(p + kTypeBytes);
  slot.size_bytes = load_be<std::uint32_t>(p + kTypeBytes + 4);
  slot.checksum = load_be<std::uint32_t>(p + kTypeBytes + 8);
  slot.reserved = load_be<std::uint32_t>(p + kTypeBytes + 12);
  return slot;
}

void check_ranges(const LuksmetaTable& table, std::uint64_t gap_bytes, std::string_view what) {
  const auto fail = [&](const std::string& problem) {
    throw Error(Code::kDamaged, fmt::format("{}: {}", what, problem),
                "its bindings are lost; 'lukskeep bind --reset-luksmeta' makes a new table");
  };
  for (std::size_t i = 0; i < table.slots.size(); ++i) {
    const LuksmetaSlot& slot = table.slots.at(i);
    if (!slot.used()) continue;
    if (slot.offset_bytes % kLuksmetaBlockBytes != 0 || slot.offset_bytes == 0 ||
        slot.offset_bytes > gap_bytes || gap_bytes - slot.offset_bytes < slot.size_bytes) {
      fail(fmt::format("record {} is said to have {} bytes at {}, in a gap of {}", i,
                       slot.size_bytes, slot.offset_bytes, gap_bytes));
    }
  }
  const std::vector<Range> ranges = used_ranges(table);
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[i - 1].end) fail("two of its records touch each other");
  }
}

}  // namespace

std::uint32_t crc32c(ByteView bytes) noexcept {
  static constexpr std::array<std::uint32_t, 256> kTable = make_crc_table();
  std::uint32_t crc = 0xffffffff;
  for (const std::byte byte : bytes) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint32_t>(byte)) & 0xff];  // NOLINT
  }
  return crc ^ 0xffffffff;
}

std::optional<LuksmetaGap> luksmeta_gap(const Header& header) {
  if (header.version != Version::kLuks1 || header.segments.empty()) return std::nullopt;
  const std::uint64_t begin = header_size_bytes(header);
  const std::uint64_t payload = header.segments.begin()->second.offset_bytes;
  const std::uint64_t end = payload - payload % kLuksmetaBlockBytes;
  if (end < begin + 2 * kLuksmetaBlockBytes) return std::nullopt;
  // Offsets of records have 32 bits.
  return LuksmetaGap{.offset_bytes = begin,
                     .size_bytes = std::min(end - begin, limits::kLuksmetaGapBytesMax)};
}

bool has_luksmeta_magic(ByteView bytes) noexcept {
  return bytes.size() >= kMagic.size() && as_string_view(bytes.first(kMagic.size())) == kMagic;
}

std::optional<LuksmetaTable> decode_luksmeta(ByteView bytes, std::uint64_t gap_bytes,
                                             std::string_view what) {
  if (!has_luksmeta_magic(bytes)) return std::nullopt;
  if (bytes.size() < kLuksmetaTableBytes) {
    throw Error(Code::kDamaged, fmt::format("{}: it is cut", what));
  }
  const auto version = load_be<std::uint32_t>(bytes.data() + kVersionOffset);
  if (version != kVersion) {
    throw Error(Code::kUnsupported,
                fmt::format("{}: it has version {}, known is 1", what, version));
  }
  Bytes plain(bytes.begin(), bytes.begin() + kLuksmetaTableBytes);
  store_be<std::uint32_t>(plain.data() + kChecksumOffset, 0);
  if (load_be<std::uint32_t>(bytes.data() + kChecksumOffset) != crc32c(plain)) {
    throw Error(Code::kDamaged, fmt::format("{}: its checksum is wrong", what),
                "its bindings are lost; 'lukskeep bind --reset-luksmeta' makes a new table");
  }
  LuksmetaTable table;
  for (std::size_t i = 0; i < table.slots.size(); ++i) {
    table.slots.at(i) = decode_slot(bytes.data() + kSlotsOffset + i * kSlotBytes);
  }
  check_ranges(table, gap_bytes, what);
  return table;
}

Bytes encode_luksmeta(const LuksmetaTable& table) {
  Bytes bytes(kLuksmetaTableBytes);
  std::ranges::copy(as_byte_view(kMagic), bytes.begin());
  store_be(bytes.data() + kVersionOffset, kVersion);
  for (std::size_t i = 0; i < table.slots.size(); ++i) {
    const LuksmetaSlot& slot = table.slots.at(i);
    std::byte* p = bytes.data() + kSlotsOffset + i * kSlotBytes;
    std::ranges::copy(slot.type, p);
    store_be(p + kTypeBytes, slot.offset_bytes);
    store_be(p + kTypeBytes + 4, slot.size_bytes);
    store_be(p + kTypeBytes + 8, slot.checksum);
    store_be(p + kTypeBytes + 12, slot.reserved);
  }
  store_be(bytes.data() + kChecksumOffset, crc32c(bytes));
  return bytes;
}

std::uint64_t luksmeta_end_bytes(const LuksmetaTable& table) {
  const std::vector<Range> ranges = used_ranges(table);
  return ranges.empty() ? kLuksmetaBlockBytes : ranges.back().end;
}

std::optional<std::uint32_t> find_luksmeta_room(const LuksmetaTable& table, std::uint64_t gap_bytes,
                                                std::uint64_t size_bytes) {
  const std::uint64_t size = round_up(std::max<std::uint64_t>(size_bytes, 1), kLuksmetaBlockBytes);
  std::uint64_t at = kLuksmetaBlockBytes;
  for (const Range& range : used_ranges(table)) {
    if (range.begin >= at && range.begin - at >= size) break;
    at = std::max(at, range.end);
  }
  if (at > gap_bytes || gap_bytes - at < size) return std::nullopt;
  return static_cast<std::uint32_t>(at);
}

}  // namespace lukskeep::luks
