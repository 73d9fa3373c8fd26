// Whether an image may become a volume of a type that Cinder knows.
//
// Cinder looks at sizes and little else: it makes ACTIVE servers that never boot of encrypted
// images in types without encryption, of LUKS2 where QEMU opens the volume, and of much more. What
// is judged here is what Cinder, os-brick and QEMU do with an image and a type as they are shipped
// (2026): cinder/image/image_utils.py,
// cinder/volume/volume_utils.py, nova/virt/libvirt/driver.py, os_brick/encryptors/luks.py,
// qemu/crypto/block-luks.c.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/header.h>

#include "keys/key_manager.h"

namespace lukskeep::image {

// Who formats and opens the volumes of an encrypted type.
enum class BackEnd : std::uint8_t {
  kBrick,  // os-brick with cryptsetup: LVM, iSCSI, Fibre Channel
  kRbd,    // qemu-img makes them, QEMU opens them
};
// "brick", "rbd".
std::string_view back_end_name(BackEnd back_end) noexcept;

struct VolumeType {
  std::string name;
  std::string provider;  // "luks", "luks2", "plain", or as it is called; empty: not encrypted
  std::string cipher;    // as dm-crypt names it; empty: not said
  std::optional<std::uint32_t>
      key_bits;  // as the type has it, which is not what each back end uses
  std::string control_location;
  bool multiattach = false;
  std::optional<std::uint64_t> size_gib_min;  // of volumes
  std::optional<std::uint64_t> size_gib_max;

  bool encrypted() const noexcept { return !provider.empty(); }
};

// Reads what `openstack volume type show --encryption-type -f json` prints, what the API answers
// for a type ({"volume_type": …}, with a member "encryption" or without), or an encryption alone
// (an object with "provider"). Throws Error{kInvalidArgument} naming `what` and the member;
// {kDamaged} for what is no JSON.
VolumeType parse_volume_type(std::string_view text, std::string_view what);

// What was found out of an image.
struct ImageFacts {
  std::string format;                    // as Report::format
  bool encrypted = false;                // in itself: LUKS, or LUKS in qcow2
  const luks::Header* header = nullptr;  // of LUKS that is safe, else null
  std::uint64_t size_bytes = 0;          // of the file
  std::optional<std::uint64_t> virtual_size_bytes;
  std::string inner_format;                  // under the encryption; empty: not seen
  std::optional<keys::SecretType> key_type;  // of its secret; absent: not looked at
  std::optional<bool> hex_opens;             // whether the hex of that opens it
};

struct Reason {
  std::string_view name;  // e.g. "type-not-encrypted"; never changes
  bool refuses = true;    // else a remark
  std::string what;
  std::string remedy;
};

struct Verdict {
  BackEnd back_end = BackEnd::kBrick;
  std::vector<Reason> reasons;
  // What encrypts the volume; empty and absent: nothing, or not known.
  std::string cipher;
  std::optional<std::uint32_t> key_bits;  // of the volume key
  std::uint64_t volume_bytes_min = 0;     // that must be there, with the header
  std::uint64_t size_gib_min = 0;         // of the volume to ask for

  bool allowed() const noexcept;
};

// `size_gib`: of the volume that is asked for; absent: as large as need be.
Verdict judge_volume(const VolumeType& type, const ImageFacts& facts, BackEnd back_end,
                     std::optional<std::uint64_t> size_gib);

}  // namespace lukskeep::image
