// Any bytes as an image: refused with an Error, or a header that is encoded and decoded to itself,
// and whose disk, as far as it is small, can be read and mapped without more than errors. Bounded
// by the tables being bounded.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include <lukskeep/error.h>

#include "storage/memory_device.h"
#include "storage/qcow2.h"
#include "storage/qcow2_format.h"

namespace {

using namespace lukskeep;

constexpr std::uint64_t kReadBytesMax = 1 << 20;

void check_header(ByteView bytes) {
  storage::qcow2::Header header;
  try {
    header = storage::qcow2::decode_header(bytes, bytes.size(), "input");
  } catch (const Error&) {
    return;
  }
  Bytes again;
  try {
    again = storage::qcow2::encode_header(header);
  } catch (const Error&) {
    return;  // The names that were there may not fit beside what we write.
  }
  if (storage::qcow2::decode_header(again, bytes.size(), "again") != header) std::abort();
}

void read_some(Bytes bytes, bool writable) {
  try {
    auto file = std::make_shared<storage::MemoryDevice>(std::move(bytes));
    auto base = std::make_shared<storage::MemoryDevice>(Bytes(1000), false);
    const auto device = storage::open_qcow2_on(
        {.file = file, .backing = base, .data_file = base, .writable = writable});
    Bytes out(std::min(device->size_bytes(), kReadBytesMax));
    (void)device->extents(0, out.size());
    device->read(0, out);
    if (writable && !out.empty()) {
      device->write(out.size() / 2,
                    ByteView(out).first(std::min<std::size_t>(out.size() / 2, 5000)));
      device->write_zeroes(0, out.size(), ZeroMode::kPunch);
      device->flush();
    }
  } catch (const Error&) {
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  const Bytes bytes(begin, begin + size);
  check_header(bytes);
  read_some(bytes, false);
  read_some(bytes, true);
  try {
    (void)storage::qcow2::decode_snapshots(bytes, 1000, 16, "input");
  } catch (const Error&) {
  }
  try {
    (void)storage::qcow2::decode_bitmaps(bytes, 1000, 16, "input");
  } catch (const Error&) {
  }
  return 0;
}
