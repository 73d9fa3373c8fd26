// VHD (Microsoft: "Virtual Hard Disk Image Format Specification" 1.0), also called VPC.
#include <algorithm>

#include <fmt/format.h>

#include "base/limits.h"
#include "image/probe.h"

namespace lukskeep::image {
namespace {

constexpr std::string_view kMark = "conectix";
constexpr std::string_view kDynamicMark = "cxsparse";
constexpr std::size_t kFooterBytes = 512;
constexpr std::size_t kDynamicBytes = 1024;
constexpr std::size_t kFooterChecksum = 64;
constexpr std::size_t kDynamicChecksum = 36;
constexpr std::uint32_t kVersion = 0x00010000;
constexpr std::uint64_t kSizeMax = std::uint64_t{2040} * limits::kGiB;

enum DiskType : std::uint32_t { kFixed = 2, kDynamic = 3, kDifferencing = 4 };

// One's complement of the sum of all bytes but the checksum's own.
std::uint32_t checksum(ByteView bytes, std::size_t at) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i < at || i >= at + 4) sum += std::to_integer<std::uint32_t>(bytes[i]);
  }
  return ~sum;
}

struct Footer {
  std::uint32_t version = 0;
  std::uint64_t dynamic_offset = 0;
  std::uint64_t size = 0;
  std::uint32_t type = 0;
  bool checksum_good = false;
};

Footer read_footer(ByteView bytes) {
  return {.version = load_be<std::uint32_t>(&bytes[12]),
          .dynamic_offset = load_be<std::uint64_t>(&bytes[16]),
          .size = load_be<std::uint64_t>(&bytes[48]),
          .type = load_be<std::uint32_t>(&bytes[60]),
          .checksum_good =
              load_be<std::uint32_t>(&bytes[kFooterChecksum]) == checksum(bytes, kFooterChecksum)};
}

class VhdProbe final : public Probe {
 public:
  void head(ByteView head) override;
  void got(int tag, ByteView bytes) override;
  void finish(const StreamEnd& end) override;

 private:
  void check_footer(const Footer& footer);
  void check_copy(const StreamEnd& end);

  Bytes first_;  // the copy of the footer at the start
  Footer footer_;
  std::uint64_t table_offset_ = 0;
  std::uint64_t table_bytes_ = 0;
};

void VhdProbe::check_footer(const Footer& footer) {
  match_.format = "vhd";
  match_.virtual_size_bytes = footer.size;
  if (!footer.checksum_good) add("vhd-header", "the checksum of the footer is wrong");
  if (footer.version != kVersion) {
    add("vhd-header", fmt::format("version {:#x} is not 1.0", footer.version));
  }
  if (footer.size > kSizeMax || footer.size % 512 != 0) {
    add("vhd-header", fmt::format("a disk of {} bytes is not possible", footer.size));
  }
  switch (footer.type) {
    case kFixed:
      match_.variant = "fixed";
      break;
    case kDynamic:
      match_.variant = "dynamic";
      break;
    case kDifferencing:
      match_.variant = "differencing";
      add("vhd-parent", "it holds what differs from another file");
      break;
    default:
      add("vhd-header", fmt::format("disk type {} is not known", footer.type));
  }
}

void VhdProbe::head(ByteView head) {
  if (!has_mark(head, 0, kMark)) return;
  match_.format = "vhd";
  if (head.size() < kFooterBytes) return add("vhd-header", "the file ends within the header");
  first_.assign(head.begin(), head.begin() + kFooterBytes);
  footer_ = read_footer(first_);
  check_footer(footer_);
  if (footer_.type == kFixed) {
    return add("vhd-header", "a fixed disk starts with its contents, not with a footer");
  }
  want(0, {footer_.dynamic_offset, kDynamicBytes});
}

void VhdProbe::got(int /*tag*/, ByteView bytes) {
  if (bytes.size() < kDynamicBytes || !has_mark(bytes, 0, kDynamicMark)) {
    return add("vhd-header", fmt::format("there is no header of a dynamic disk at byte {}",
                                         footer_.dynamic_offset));
  }
  if (load_be<std::uint32_t>(&bytes[kDynamicChecksum]) != checksum(bytes, kDynamicChecksum)) {
    add("vhd-header", "the checksum of the dynamic disk's header is wrong");
  }
  table_offset_ = load_be<std::uint64_t>(&bytes[16]);
  const std::uint64_t entries = load_be<std::uint32_t>(&bytes[28]);
  const std::uint64_t block_bytes = load_be<std::uint32_t>(&bytes[32]);
  table_bytes_ = entries * 4;
  if (!is_power_of_two(block_bytes) || block_bytes < 512) {
    add("vhd-tables", fmt::format("blocks of {} bytes are no power of two", block_bytes));
  } else if (entries * block_bytes < footer_.size) {
    add("vhd-tables",
        fmt::format("{} blocks of {} bytes do not cover the disk", entries, block_bytes));
  }
  // The parent's name and where to look for it, whatever the type says.
  const bool has_parent = !all_zero(bytes.subspan(40, 16)) || !all_zero(bytes.subspan(64, 512)) ||
                          !all_zero(bytes.subspan(576, 192));
  if (has_parent && footer_.type != kDifferencing) {
    add("vhd-parent", "it names a parent, though it is no differencing disk");
  }
}

// The footer proper, of which the start has a copy.
void VhdProbe::check_copy(const StreamEnd& end) {
  if (end.tail.size() < kFooterBytes || end.size_bytes < 2 * kFooterBytes) {
    return add("vhd-footer", "the file ends before its footer");
  }
  const ByteView last = end.tail.last(kFooterBytes);
  if (!has_mark(last, 0, kMark)) {
    add("vhd-footer", "there is no footer at the end of the file");
  } else if (!std::equal(last.begin(), last.end(), first_.begin())) {
    add("vhd-footer", "the footer is not what the copy at the start says");
  }
  if (!fits({table_offset_, table_bytes_}, end.size_bytes)) {
    add("vhd-tables", fmt::format("the table of {} bytes at byte {} is not in the file",
                                  table_bytes_, table_offset_));
  }
}

void VhdProbe::finish(const StreamEnd& end) {
  if (matched()) {
    if (!first_.empty()) check_copy(end);
    return;
  }
  // Virtual PC before 2004 wrote 511 bytes.
  for (const std::size_t size : {kFooterBytes, kFooterBytes - 1}) {
    if (end.tail.size() < size || !has_mark(end.tail, end.tail.size() - size, kMark)) continue;
    Bytes bytes(kFooterBytes);
    std::copy_n(end.tail.end() - static_cast<std::ptrdiff_t>(size), size, bytes.begin());
    const Footer footer = read_footer(bytes);
    check_footer(footer);
    match_.is_wrapper = footer.type == kFixed;
    if (footer.type != kFixed) {
      add("vhd-header", "the copy of the footer at the start is not there");
    } else if (footer.size > end.size_bytes - size) {
      add("vhd-footer",
          fmt::format("a disk of {} bytes is not in the file of {}", footer.size, end.size_bytes));
    }
    return;
  }
}

}  // namespace

std::unique_ptr<Probe> make_vhd_probe() { return std::make_unique<VhdProbe>(); }

}  // namespace lukskeep::image
