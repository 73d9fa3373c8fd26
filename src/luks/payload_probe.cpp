#include "luks/payload_probe.h"

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace lukskeep::luks {
namespace {

struct Magic {
  std::string_view name;
  std::uint64_t offset_bytes;
  std::string_view bytes;
};

using namespace std::string_view_literals;

// Long ones first: what is named is what is most certain. Offsets as in util-linux's libblkid.
constexpr std::array kMagics = {
    Magic{"gpt", 512, "EFI PART"sv},
    Magic{"gpt", 4096, "EFI PART"sv},
    Magic{"btrfs", 0x10040, "_BHRfS_M"sv},
    Magic{"lvm2", 512, "LABELONE"sv},
    Magic{"swap", 4086, "SWAPSPACE2"sv},
    Magic{"ntfs", 3, "NTFS    "sv},
    Magic{"iso9660", 0x8001, "CD001"sv},
    Magic{"luks", 0, "LUKS\xba\xbe"sv},
    Magic{"xfs", 0, "XFSB"sv},
    Magic{"qcow2", 0, "QFI\xfb"sv},
    Magic{"ext", 0x438, "\x53\xef"sv},
    Magic{"mbr", 510, "\x55\xaa"sv},
};

}  // namespace

std::string probe_payload(const Device& plain) {
  for (const Magic& magic : kMagics) {
    if (plain.size_bytes() < magic.offset_bytes + magic.bytes.size()) continue;
    std::array<std::byte, 16> bytes{};
    const MutableBytes found = MutableBytes(bytes).first(magic.bytes.size());
    plain.read(magic.offset_bytes, found);
    if (as_string_view(found) == magic.bytes) return std::string(magic.name);
  }
  return {};
}

}  // namespace lukskeep::luks
