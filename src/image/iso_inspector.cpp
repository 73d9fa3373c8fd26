// ISO 9660 (ECMA-119) and UDF (ECMA-167): the volume descriptors from sector 16 on.
#include <algorithm>

#include <fmt/format.h>

#include "image/probe.h"

namespace lukskeep::image {
namespace {

constexpr std::uint64_t kSectorBytes = 2048;
constexpr std::uint64_t kFirstSector = 16;
constexpr unsigned kDescriptorsMax = 64;

class IsoProbe final : public Probe {
 public:
  void head(ByteView head) override;
  void finish(const StreamEnd& end) override;

 private:
  void read_primary(ByteView sector);

  bool udf_ = false;
  bool iso9660_ = false;
  bool terminated_ = false;
};

void IsoProbe::head(ByteView head) {
  for (unsigned i = 0; i < kDescriptorsMax; ++i) {
    const std::uint64_t at = (kFirstSector + i) * kSectorBytes;
    const bool iso = has_mark(head, at + 1, "CD001");
    const bool udf = has_mark(head, at + 1, "NSR02") || has_mark(head, at + 1, "NSR03");
    const bool other = has_mark(head, at + 1, "BEA01") || has_mark(head, at + 1, "TEA01") ||
                       has_mark(head, at + 1, "BOOT2") || has_mark(head, at + 1, "CDW02");
    if (!iso && !udf && !other) break;
    if (iso || udf) match_.format = "iso";
    udf_ = udf_ || udf;
    if (!iso) continue;
    if (!fits({at, kSectorBytes}, head.size())) {
      add("iso-truncated", "the file ends within the volume descriptors");
      break;
    }
    const auto type = std::to_integer<unsigned>(head[at]);
    if (type == 1) {
      if (!iso9660_) read_primary(head.subspan(at, kSectorBytes));
      iso9660_ = true;
    }
    if (type == 255) terminated_ = true;
  }
  if (!matched()) return;
  match_.variant = iso9660_ ? udf_ ? "iso9660 and udf" : "iso9660" : "udf";
  if (!udf_ && !iso9660_) {
    match_.variant = "iso9660";
    add("iso-header", "there is no primary volume descriptor");
  }
  if (iso9660_ && !terminated_) add("iso-header", "the volume descriptors do not end");
}

void IsoProbe::read_primary(ByteView sector) {
  // Numbers stand there twice, in both byte orders.
  const std::uint64_t blocks = load_le<std::uint32_t>(&sector[80]);
  const std::uint64_t block_bytes = load_le<std::uint16_t>(&sector[128]);
  if (blocks != load_be<std::uint32_t>(&sector[84]) ||
      block_bytes != load_be<std::uint16_t>(&sector[130])) {
    add("iso-header", "sizes differ between the two byte orders");
  }
  if (block_bytes != 512 && block_bytes != 1024 && block_bytes != 2048) {
    return add("iso-header", fmt::format("blocks of {} bytes are not possible", block_bytes));
  }
  match_.virtual_size_bytes = blocks * block_bytes;
}

void IsoProbe::finish(const StreamEnd& end) {
  if (!matched()) return;
  if (!match_.virtual_size_bytes) match_.virtual_size_bytes = end.size_bytes;
  if (*match_.virtual_size_bytes > end.size_bytes) {
    add("iso-truncated", fmt::format("a volume of {} bytes is not in the file of {}",
                                     *match_.virtual_size_bytes, end.size_bytes));
  }
}

}  // namespace

std::unique_ptr<Probe> make_iso_probe() { return std::make_unique<IsoProbe>(); }

}  // namespace lukskeep::image
