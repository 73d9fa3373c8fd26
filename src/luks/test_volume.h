// Cheap volumes in memory, for tests.
#pragma once

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "crypto/kdf.h"
#include "luks/create.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "luks/layout.h"
#include "storage/memory_device.h"

namespace lukskeep::luks::testing {

inline constexpr std::uint64_t kPayloadBytes = std::uint64_t{64} * 1024;
inline constexpr std::string_view kFirstPassphrase = "first passphrase";
inline constexpr std::string_view kSecondPassphrase = "second passphrase";

// Names the instances of parameterised tests.
inline std::string version_name(const ::testing::TestParamInfo<Version>& tested) {
  return tested.param == Version::kLuks1 ? "Luks1" : "Luks2";
}

inline NewKeyslot cheap_keyslot(std::optional<int> id = std::nullopt) {
  return {.keyslot = id,
          .cost = {.type = crypto::KdfType::kPbkdf2, .hash = "sha256", .iterations = 1000}};
}

// Room for three or four keyslots of 64 bytes.
inline CreateOptions cheap_options(Version version) {
  CreateOptions options{.version = version, .digest_iterations = 1000};
  if (version == Version::kLuks2) {
    options.keyslots_size_bytes = 4 * keyslot_area_bytes(64);
    options.sector_size_bytes = 512;
  }
  return options;
}

inline std::shared_ptr<storage::MemoryDevice> blank_device(const Header& header) {
  return std::make_shared<storage::MemoryDevice>(
      Bytes(header_device_bytes(header) + kPayloadBytes));
}

// A volume in memory that kFirstPassphrase opens.
inline HeaderFile make_volume(const CreateOptions& options) {
  const NewHeader fresh = make_header(options);
  return create_volume(blank_device(fresh.header), fresh, as_byte_view(kFirstPassphrase),
                       cheap_keyslot());
}

inline Bytes contents(const HeaderFile& file) {
  Bytes bytes(file.device()->size_bytes());
  file.device()->read(0, bytes);
  return bytes;
}

inline HeaderFile reopen(Bytes bytes) {
  return HeaderFile::open(std::make_shared<storage::MemoryDevice>(std::move(bytes)));
}

inline bool opens(const HeaderFile& file, std::string_view passphrase,
                  std::optional<int> keyslot = std::nullopt) {
  return unlock(file, as_byte_view(passphrase), {.keyslot = keyslot}).has_value();
}

inline Unlocked must(std::optional<Unlocked> found) {
  if (!found) throw std::runtime_error("no keyslot opens");
  return std::move(*found);
}

inline Unlocked must_unlock(const HeaderFile& file, std::string_view passphrase) {
  return must(unlock(file, as_byte_view(passphrase), {}));
}

}  // namespace lukskeep::luks::testing
