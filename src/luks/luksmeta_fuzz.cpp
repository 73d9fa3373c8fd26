// Any bytes: decode_luksmeta refuses them with an Error, or gives a table that is encoded and
// decoded to itself and whose records lie in the gap.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include <lukskeep/error.h>

#include "luks/luksmeta.h"

namespace {

using namespace lukskeep;

constexpr std::uint64_t kGapBytes = 28672;

void check(ByteView bytes) {
  std::optional<luks::LuksmetaTable> table;
  try {
    table = luks::decode_luksmeta(bytes, kGapBytes, "input");
  } catch (const Error&) {
    return;
  }
  if (!table) return;
  // Not within the try: an Error from here is a finding.
  if (luks::decode_luksmeta(luks::encode_luksmeta(*table), kGapBytes, "again") != table) {
    std::abort();
  }
  if (luks::luksmeta_end_bytes(*table) > kGapBytes) std::abort();
  const auto room = luks::find_luksmeta_room(*table, kGapBytes, bytes.size());
  if (room && *room + bytes.size() > kGapBytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  check(input);
  // The same as the records of a table whose checksum is right.
  constexpr std::size_t kSlotsOffset = 16;
  Bytes table = luks::encode_luksmeta({});
  std::copy_n(input.begin(), std::min(input.size(), table.size() - kSlotsOffset),
              table.begin() + kSlotsOffset);
  constexpr std::size_t kChecksumOffset = 12;
  store_be<std::uint32_t>(table.data() + kChecksumOffset, 0);
  store_be(table.data() + kChecksumOffset, luks::crc32c(table));
  check(table);
  return 0;
}
