#include "server/nbd/export.h"

#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "luks/crypt_device.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "storage/guarded_device.h"
#include "storage/location.h"

namespace lukskeep::server {
namespace {

// Others may be changing the header: both copies are weighed, and the key must fit what was read.
luks::HeaderFile open_header(const ExportSettings& settings) {
  const std::string& path = settings.header_path.empty() ? settings.path : settings.header_path;
  return luks::HeaderFile::open(storage::open_location(path, {.lock = false}));
}

SecretBytes find_volume_key(const ExportSettings& settings, const luks::HeaderFile& file,
                            const keys::Prompter& prompter) {
  const std::string volume = file.device()->name();
  SecretBytes key =
      keys::read_key(settings.key, {.text = fmt::format("passphrase for '{}'", volume)}, prompter);
  // It is ours: nobody else may read from it again.
  if (settings.close_key_fd) ::close(settings.key.fd);
  luks::UnlockOptions options;
  options.allow_insecure = settings.allow_insecure;
  std::optional<luks::Unlocked> unlocked =
      settings.is_volume_key ? luks::unlock_with_volume_key(file, std::move(key), options)
                             : luks::unlock(file, key.span(), options);
  if (unlocked) return std::move(unlocked->key);
  throw Error(Code::kWrongPassphrase,
              settings.is_volume_key
                  ? fmt::format("this is not a volume key of '{}'", volume)
                  : fmt::format("no keyslot of '{}' opens with this passphrase", volume));
}

}  // namespace

std::shared_ptr<Device> open_payload(const std::string& path, bool read_only,
                                     const luks::Header& header) {
  return storage::open_location(
      path, {.access = read_only ? storage::Access::kRead : storage::Access::kReadWrite,
             .lock_from_bytes = luks::payload_offset_bytes(header)});
}

Export::Export(ExportSettings settings, const keys::Prompter& prompter)
    : settings_(std::move(settings)) {
  {
    const luks::HeaderFile file = open_header(settings_);
    header_ = file.header();
    if (settings_.header_path.empty()) luks::check_payload_apart(header_, *file.device());
    volume_key_ = find_volume_key(settings_, file, prompter);
  }
  payload_ = open_payload(settings_.path, settings_.read_only, header_);
  // What cannot be activated is found out now and not when nobody looks any more.
  if (make_plain(volume_key_.span())->size_bytes() == 0) {
    throw Error(Code::kTooSmall, fmt::format("'{}' ends before its payload", payload_->name()));
  }
  const storage::Scheme scheme = storage::scheme_of(settings_.path);
  // Connections have threads, which nbdkit's fork leaves behind.
  if (scheme == storage::Scheme::kNbd || scheme == storage::Scheme::kRbd) payload_.reset();
}

std::unique_ptr<Device> Export::make_plain(ByteView volume_key) const {
  return luks::make_crypt_device(header_, payload_, volume_key,
                                 {.allow_insecure = settings_.allow_insecure,
                                  .writable = !settings_.read_only,
                                  .holes_as_zeroes = settings_.discard == Discard::kZeroes});
}

void Export::activate(ByteView volume_key) {
  if (!payload_) payload_ = open_payload(settings_.path, settings_.read_only, header_);
  plain_ = storage::make_guarded(make_plain(volume_key));
}

}  // namespace lukskeep::server
