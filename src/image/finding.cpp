#include "image/finding.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::image {
namespace {

constexpr std::string_view kRemake = "make the image anew with a tool that is trusted";
constexpr std::string_view kTransfer = "fetch the file again: it is cut or damaged";
constexpr std::string_view kFlatten = "flatten it where its other files are: qemu-img convert";

using enum Severity;

// What the OpenStack advisories are about stands first in each format: OSSA-2024-001 and -002
// (qcow2 data and backing files, a "raw" that is none), OSSA-2023-002 (VMDK extents).
constexpr std::array kKinds = {
    FindingKind{"polyglot", kUnsafe, "use no file that is several formats: who reads it decides"},
    FindingKind{"unexpected-format", kUnsafe, "ask for the format that it is, or refuse it"},
    FindingKind{"unsupported-format", kUnsafe, "convert it to raw or qcow2 where it comes from"},
    FindingKind{"compressed", kUnsafe, "decompress it and inspect what comes out"},
    FindingKind{"too-deep", kUnsafe, "use no image with that many layers of encryption"},

    FindingKind{"qcow2-backing-file", kUnsafe, kFlatten},
    FindingKind{"qcow2-data-file", kUnsafe, kFlatten},
    FindingKind{"qcow2-unknown-features", kUnsafe, "convert it with the program that made it"},
    FindingKind{"qcow2-header", kUnsafe, kRemake},
    FindingKind{"qcow2-extensions", kUnsafe, kRemake},
    FindingKind{"qcow2-tables", kUnsafe, kTransfer},
    FindingKind{"qcow2-snapshots", kUnsafe, "remove its snapshots: qemu-img snapshot -d"},
    FindingKind{"qcow2-bitmaps", kUnsafe, "remove its bitmaps: qemu-img bitmap --remove"},
    FindingKind{"qcow2-corrupt", kUnsafe, "repair it: qemu-img check -r all"},
    FindingKind{"qcow2-legacy-aes", kUnsafe, "convert it to LUKS: the old encryption is broken"},
    FindingKind{"qcow2-encryption", kUnsafe, kRemake},
    FindingKind{"qcow2-has-snapshots", kNote, "snapshots may keep what was deleted since"},
    FindingKind{"qcow2-dirty", kNote, "it was not closed properly: qemu-img check"},

    FindingKind{"qed-format", kUnsafe, "convert it to qcow2: nobody maintains this format"},

    FindingKind{"vhd-parent", kUnsafe, kFlatten},
    FindingKind{"vhd-header", kUnsafe, kRemake},
    FindingKind{"vhd-footer", kUnsafe, kTransfer},
    FindingKind{"vhd-tables", kUnsafe, kTransfer},

    FindingKind{"vhdx-parent", kUnsafe, kFlatten},
    FindingKind{"vhdx-header", kUnsafe, kRemake},
    FindingKind{"vhdx-log", kUnsafe, "open and close it once where it comes from"},
    FindingKind{"vhdx-regions", kUnsafe, kRemake},
    FindingKind{"vhdx-metadata", kUnsafe, kRemake},

    FindingKind{"vmdk-extents", kUnsafe, "use no image that names other files"},
    FindingKind{"vmdk-parent", kUnsafe, kFlatten},
    FindingKind{"vmdk-type", kUnsafe, "convert it to monolithicSparse or streamOptimized"},
    FindingKind{"vmdk-text", kUnsafe, "a descriptor alone names other files: send one file"},
    FindingKind{"vmdk-descriptor", kUnsafe, kRemake},
    FindingKind{"vmdk-header", kUnsafe, kRemake},
    FindingKind{"vmdk-footer", kUnsafe, kTransfer},
    FindingKind{"vmdk-tables", kUnsafe, kTransfer},

    FindingKind{"vdi-parent", kUnsafe, kFlatten},
    FindingKind{"vdi-header", kUnsafe, kRemake},
    FindingKind{"vdi-tables", kUnsafe, kTransfer},

    FindingKind{"ploop-header", kUnsafe, kRemake},
    FindingKind{"ploop-tables", kUnsafe, kTransfer},

    FindingKind{"iso-header", kUnsafe, kRemake},
    FindingKind{"iso-truncated", kUnsafe, kTransfer},

    FindingKind{"mbr-partitions", kUnsafe, "mend the partition table"},
    FindingKind{"mbr-protective", kUnsafe, "write a protective MBR: sgdisk -v tells what is wrong"},
    FindingKind{"mbr-hybrid", kUnsafe, "keep one partition table: sgdisk --zap-mbr or --zap"},
    FindingKind{"mbr-protective-chs", kNote, "nothing needs this field any more"},
    FindingKind{"gpt-header", kUnsafe, "mend it: sgdisk -v tells what is wrong"},
    FindingKind{"gpt-entries", kUnsafe, "mend it: sgdisk -v tells what is wrong"},
    FindingKind{"gpt-backup", kUnsafe, "write it anew: sgdisk -e"},
    FindingKind{"gpt-backup-moved", kNote, "the image grew: sgdisk -e moves the backup to its end"},
    FindingKind{"gpt-on-iso", kNote, "hybrid ISO images are made that way"},

    FindingKind{"luks-null-cipher", kUnsafe, "encrypt it: what is there anybody reads and changes"},
    FindingKind{"luks-kdf-cost", kUnsafe, "set sane costs where it comes from: key convert"},
    FindingKind{"luks-stripes", kUnsafe, kRemake},
    FindingKind{"luks-cipher", kUnsafe, "encrypt it with aes-xts-plain64"},
    FindingKind{"luks-policy", kUnsafe, "see 'lukskeep policy check'"},
    FindingKind{"luks-copies", kUnsafe, "mend the header where it comes from: header repair"},
    FindingKind{"luks-header", kUnsafe, "see 'lukskeep header check'"},
    FindingKind{"luks-truncated", kUnsafe, kTransfer},
    FindingKind{"luks-unopened", kUnsafe, "give the key of every layer, or refuse it"},
    FindingKind{"luks-unseen", kNote, "what is encrypted was not looked at: give --key"},
    FindingKind{"luks-no-payload", kNote, "this is a header alone: its payload is elsewhere"},
};

}  // namespace

std::string_view severity_name(Severity severity) noexcept {
  return severity == Severity::kNote ? "note" : "unsafe";
}

std::span<const FindingKind> all_finding_kinds() noexcept { return kKinds; }

const FindingKind* find_finding_kind(std::string_view name) noexcept {
  const auto* found = std::find_if(kKinds.begin(), kKinds.end(),
                                   [&](const FindingKind& kind) { return kind.name == name; });
  return found == kKinds.end() ? nullptr : &*found;
}

AllowList parse_allow_list(std::string_view text) {
  AllowList names;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view name = text.substr(at, comma - at);
    if (find_finding_kind(name) == nullptr) {
      throw Error(Code::kUsage, fmt::format("'{}' is the name of no finding", printable(name)),
                  "lukskeep-inspect(1) lists them");
    }
    names.emplace(name);
    at = comma + 1;
  }
  return names;
}

}  // namespace lukskeep::image
