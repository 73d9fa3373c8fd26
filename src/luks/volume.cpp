#include <lukskeep/volume.h>

#include <chrono>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "crypto/kdf.h"
#include "luks/crypt_device.h"
#include "luks/header_backup.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "storage/location.h"

namespace lukskeep {
namespace {

std::shared_ptr<Device> open_device(const std::string& path, Access access) {
  return storage::open_location(path, {.access = access});
}

}  // namespace

struct Volume::State {
  luks::HeaderFile file;
  std::shared_ptr<Device> payload;
  std::optional<luks::Unlocked> unlocked;
  bool allow_insecure = false;

  const luks::Unlocked& require_unlocked() const {
    if (!unlocked) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("the volume '{}' is not unlocked", payload->name()),
                  "call unlock() first");
    }
    return *unlocked;
  }
};

Volume::Volume(std::unique_ptr<State> state) : state_(std::move(state)) {}
Volume::Volume(Volume&&) noexcept = default;
Volume& Volume::operator=(Volume&&) noexcept = default;
Volume::~Volume() = default;

Volume Volume::open(const VolumeLocation& location) {
  std::shared_ptr<Device> payload = open_device(location.path, location.access);
  std::shared_ptr<Device> header =
      location.header_path.empty() ? payload : open_device(location.header_path, location.access);
  return open(std::move(header), std::move(payload));
}

Volume Volume::open(std::shared_ptr<Device> header, std::shared_ptr<Device> payload) {
  return Volume(std::make_unique<State>(State{.file = luks::HeaderFile::open(std::move(header)),
                                              .payload = std::move(payload),
                                              .unlocked = std::nullopt}));
}

const luks::Header& Volume::header() const noexcept { return state_->file.header(); }

const std::vector<std::string>& Volume::problems() const noexcept {
  return state_->file.report().problems;
}

std::uint64_t Volume::payload_size_bytes() const {
  return luks::payload_size_bytes(header(), state_->payload->size_bytes());
}

std::optional<int> Volume::unlock(std::span<const std::byte> passphrase,
                                  const UnlockRequest& request) {
  auto found = luks::unlock(state_->file, passphrase,
                            {.keyslot = request.keyslot,
                             .allow_insecure = request.allow_insecure,
                             .kdf_limit = {.seconds_max = request.kdf_seconds_max},
                             .cancel = request.cancel});
  if (!found) return std::nullopt;
  const int keyslot = found->keyslot;
  state_->unlocked = std::move(found);
  state_->allow_insecure = request.allow_insecure;
  return keyslot;
}

bool Volume::unlocked() const noexcept { return state_->unlocked.has_value(); }

std::unique_ptr<Device> Volume::activate(Access access) const {
  if (state_->payload == state_->file.device()) {
    luks::check_payload_apart(header(), *state_->payload);
  }
  return luks::make_crypt_device(
      header(), state_->payload, state_->require_unlocked().key.span(),
      {.allow_insecure = state_->allow_insecure, .writable = access == Access::kReadWrite});
}

int Volume::add_passphrase(std::span<const std::byte> passphrase, std::uint32_t iteration_time_ms) {
  const luks::Unlocked& key = state_->require_unlocked();
  const bool luks1 = header().version == luks::Version::kLuks1;
  crypto::CalibrationRequest request{.target = std::chrono::milliseconds(iteration_time_ms)};
  if (luks1) {
    request.type = crypto::KdfType::kPbkdf2;
    request.hash = header().digests.at(key.digest).hash;
  }
  return luks::add_keyslot(state_->file, key, passphrase, {.cost = crypto::calibrate(request)});
}

void Volume::remove_keyslot(int keyslot, bool allow_last) {
  luks::remove_keyslot(state_->file, keyslot, allow_last);
}

std::vector<std::byte> Volume::backup_header() const { return luks::backup_header(state_->file); }

}  // namespace lukskeep
