// VDI of VirtualBox (VDICore.h), and ploop, which is Parallels' expanding image
// (QEMU: docs/interop/parallels.txt).
#include <fmt/format.h>

#include "base/limits.h"
#include "image/probe.h"

namespace lukskeep::image {
namespace {

constexpr std::uint32_t kVdiMark = 0xbeda107f;
constexpr std::size_t kVdiMarkOffset = 0x40;
constexpr std::size_t kVdiHeaderBytes = 0x200;
constexpr std::uint32_t kVdiVersion = 0x00010001;

// The table must be in the file, entries cover the disk.
struct BlockTable {
  std::uint64_t offset = 0;
  std::uint64_t entries = 0;
  std::uint64_t block_bytes = 0;
  std::uint64_t disk_bytes = 0;

  ByteRange range() const { return {offset, entries * 4}; }
  bool covers() const {
    return block_bytes != 0 &&
           disk_bytes / block_bytes + (disk_bytes % block_bytes != 0 ? 1 : 0) <= entries;
  }
};

class VdiProbe final : public Probe {
 public:
  void head(ByteView head) override;
  void finish(const StreamEnd& end) override;

 private:
  void check_blocks(ByteView head);

  BlockTable table_;
};

void VdiProbe::head(ByteView head) {
  if (head.size() < kVdiMarkOffset + 4 ||
      load_le<std::uint32_t>(&head[kVdiMarkOffset]) != kVdiMark) {
    return;
  }
  match_.format = "vdi";
  if (head.size() < kVdiHeaderBytes) return add("vdi-header", "the file ends within the header");
  const auto u32 = [&](std::size_t at) { return load_le<std::uint32_t>(&head[at]); };
  if (u32(0x44) != kVdiVersion) {
    add("vdi-header", fmt::format("version {:#x} is not 1.1", u32(0x44)));
  }
  const std::uint32_t type = u32(0x4c);
  match_.variant = type == 1 ? "dynamic" : type == 2 ? "static" : fmt::format("type {}", type);
  const bool parent = !all_zero(head.subspan(0x1a8, 16)) || !all_zero(head.subspan(0x1b8, 16));
  if (parent || type == 3 || type == 4) {
    add("vdi-parent", "it holds what differs from another file");
  } else if (type != 1 && type != 2) {
    add("vdi-header", fmt::format("image type {} is not known", type));
  }
  check_blocks(head);
}

void VdiProbe::check_blocks(ByteView head) {
  const auto u32 = [&](std::size_t at) { return load_le<std::uint32_t>(&head[at]); };
  table_ = {.offset = u32(0x154),
            .entries = u32(0x180),
            .block_bytes = u32(0x178),
            .disk_bytes = load_le<std::uint64_t>(&head[0x170])};
  match_.virtual_size_bytes = table_.disk_bytes;
  if (u32(0x168) != 512) add("vdi-header", fmt::format("sectors of {} bytes", u32(0x168)));
  if (table_.block_bytes != limits::kMiB || u32(0x17c) != 0) {
    add("vdi-header", fmt::format("blocks of {} bytes and {} more are not those of 1 MiB",
                                  table_.block_bytes, u32(0x17c)));
  }
  if (table_.offset % 512 != 0 || u32(0x158) % 512 != 0 || table_.offset < kVdiHeaderBytes) {
    add("vdi-header", "the block table or the data starts within a sector, or in the header");
  }
  if (!table_.covers() || u32(0x184) > table_.entries) {
    add("vdi-tables", fmt::format("{} blocks, of which {} are in the file, do not make a disk of "
                                  "{} bytes",
                                  table_.entries, u32(0x184), table_.disk_bytes));
  }
}

void VdiProbe::finish(const StreamEnd& end) {
  if (!matched() || fits(table_.range(), end.size_bytes)) return;
  add("vdi-tables", fmt::format("the block table of {} bytes at byte {} is not in the file",
                                table_.range().size_bytes, table_.offset));
}

class PloopProbe final : public Probe {
 public:
  void head(ByteView head) override;
  void finish(const StreamEnd& end) override;

 private:
  static constexpr std::size_t kHeaderBytes = 64;
  BlockTable table_;
};

void PloopProbe::head(ByteView head) {
  const bool first = has_mark(head, 0, "WithoutFreeSpace");
  if (!first && !has_mark(head, 0, "WithouFreSpacExt")) return;
  match_.format = "ploop";
  if (head.size() < kHeaderBytes) return add("ploop-header", "the file ends within the header");
  const auto u32 = [&](std::size_t at) { return load_le<std::uint32_t>(&head[at]); };
  if (u32(16) != 2) add("ploop-header", fmt::format("version {} is not 2", u32(16)));
  const std::uint64_t sectors = first ? u32(36) : load_le<std::uint64_t>(&head[36]);
  if (sectors > static_cast<std::uint64_t>(INT64_MAX) / 512) {
    return add("ploop-header", fmt::format("a disk of {} sectors is larger than any", sectors));
  }
  table_ = {.offset = kHeaderBytes,
            .entries = u32(32),
            .block_bytes = std::uint64_t{u32(28)} * 512,
            .disk_bytes = sectors * 512};
  match_.virtual_size_bytes = table_.disk_bytes;
  if (!table_.covers()) {
    add("ploop-tables", fmt::format("{} blocks of {} bytes do not make a disk of {}",
                                    table_.entries, table_.block_bytes, table_.disk_bytes));
  }
}

void PloopProbe::finish(const StreamEnd& end) {
  if (!matched() || fits(table_.range(), end.size_bytes)) return;
  add("ploop-tables",
      fmt::format("the block table of {} bytes is not in the file", table_.range().size_bytes));
}

}  // namespace

std::unique_ptr<Probe> make_vdi_probe() { return std::make_unique<VdiProbe>(); }
std::unique_ptr<Probe> make_ploop_probe() { return std::make_unique<PloopProbe>(); }

}  // namespace lukskeep::image
