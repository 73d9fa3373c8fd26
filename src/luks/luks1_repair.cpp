#include "luks/luks1_repair.h"

#include <algorithm>
#include <array>
#include <memory>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/cipher_spec.h"
#include "crypto/hash.h"
#include "luks/layout.h"
#include "luks/luks1_fields.h"

namespace lukskeep::luks {
namespace {

using namespace luks1;

std::optional<Header> decoded(ByteView bytes) {
  try {
    return decode_luks1(bytes, "the mended header");
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Chance does not make the names of a cipher and a hash.
bool names_are_known(const Header& header) {
  try {
    static_cast<void>(crypto::parse_cipher_spec(header.segments.at(0).encryption));
  } catch (const Error&) {
    return false;
  }
  return crypto::find_hash(header.digests.at(0).hash).has_value();
}

class Mender {
 public:
  explicit Mender(ByteView damaged)
      : bytes_(damaged.begin(), damaged.begin() + kLuks1HeaderBytes) {}

  std::optional<Luks1Repair> run() {
    mend_magic();
    mend_uuid();
    mend_stripes();
    if (!decoded(bytes_)) mend_offsets();
    const auto header = decoded(bytes_);
    if (!header || !names_are_known(*header) || changes_.empty()) return std::nullopt;
    return Luks1Repair{.header = std::move(bytes_), .changes = std::move(changes_)};
  }

 private:
  void mend_magic() {
    const ByteView magic = std::as_bytes(std::span(kMagic));
    std::array<std::byte, 8> right{};
    std::copy(magic.begin(), magic.end(), right.begin());
    store_be(&right[kVersionOffset], std::uint16_t{1});
    if (std::equal(right.begin(), right.end(), bytes_.begin())) return;
    std::copy(right.begin(), right.end(), bytes_.begin());
    changes_.emplace_back("magic and version");
  }

  void mend_uuid() {
    const auto field = std::span(bytes_).subspan(kUuidOffset, kUuidBytes);
    const auto end = std::find(field.begin(), field.end(), std::byte{0});
    const bool fine = end != field.end() && std::all_of(field.begin(), end, [](std::byte b) {
                        return b > std::byte{0x20} && b < std::byte{0x7f};
                      });
    if (fine) return;
    std::fill(field.begin(), field.end(), std::byte{0});
    changes_.emplace_back("the UUID, which cannot be read, is emptied");
  }

  void mend_stripes() {
    for (std::size_t i = 0; i < kLuks1KeyslotCount; ++i) {
      std::byte* const at = &bytes_[kKeyslotsOffset + i * kKeyslotBytes + kSlotStripesOffset];
      if (load_be<std::uint32_t>(at) == kStripes) continue;
      store_be(at, kStripes);
      changes_.push_back(fmt::format("the stripes of keyslot {}", i));
    }
  }

  void mend_offsets() {
    const auto key_bytes = load_be<std::uint32_t>(&bytes_[kKeyBytesOffset]);
    if (key_bytes == 0 || key_bytes > limits::kVolumeKeyBytesMax) return;
    for (std::size_t i = 0; i < kLuks1KeyslotCount; ++i) {
      std::byte* const at = &bytes_[kKeyslotsOffset + i * kKeyslotBytes + kSlotMaterialOffset];
      const auto sector = static_cast<std::uint32_t>(
          (kLuks1KeyslotsOffsetBytes + i * keyslot_area_bytes(key_bytes)) / kSectorBytes);
      if (load_be<std::uint32_t>(at) == sector) continue;
      store_be(at, sector);
      changes_.push_back(fmt::format("the place of keyslot {}", i));
    }
  }

  Bytes bytes_;
  std::vector<std::string> changes_;
};

}  // namespace

std::optional<Luks1Repair> mend_luks1(ByteView damaged) {
  if (damaged.size() < kLuks1HeaderBytes) return std::nullopt;
  return Mender(damaged).run();
}

void write_mended(Device& device, ByteView damaged, const Luks1Repair& repair) {
  const std::unique_ptr<DeviceLock> lock = device.lock_metadata();
  Bytes present(kLuks1HeaderBytes);
  device.read(0, present);
  if (!std::ranges::equal(present, damaged.first(kLuks1HeaderBytes))) {
    throw Error(Code::kConflict,
                fmt::format("somebody else changed the header of '{}' meanwhile", device.name()),
                "look at it (lukskeep info) and try again");
  }
  device.write(0, repair.header);
  device.flush();
  device.read(0, present);
  if (present != repair.header) {
    throw Error(Code::kIo,
                fmt::format("the mended header of '{}' reads back differently", device.name()));
  }
}

}  // namespace lukskeep::luks
