// Marks of partition tables, file systems and old headers where a LUKS header stands: somebody
// wrote there, or left something that will be taken for what it is not.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <lukskeep/device.h>

namespace lukskeep::luks {

struct ForeignSignature {
  std::string_view name;           // e.g. "a GPT partition table"
  std::uint64_t offset_bytes = 0;  // of the mark
  std::uint64_t size_bytes = 0;
};

// Those whose mark ends within the first `end_bytes` of the device, by offset. Each is at least 32
// bits of what random bytes would have to be. Reads less than 1 KiB, none of it beyond the device;
// what cannot be read counts as no signature.
std::vector<ForeignSignature> find_foreign_signatures(const Device& device,
                                                      std::uint64_t end_bytes);

// Secondary copies of LUKS2 headers at any of the nine legal places but `expected_offset_bytes`: if
// the present header is lost, one of them may be taken for it.
std::vector<ForeignSignature> find_old_luks2_copies(const Device& device,
                                                    std::uint64_t expected_offset_bytes);

// The backup of a GPT in the last 512 bytes of the device, as disks keep them.
bool has_backup_gpt(const Device& device);

}  // namespace lukskeep::luks
