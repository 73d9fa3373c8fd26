#include "server/nbd/export.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "luks/crypt_device.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "storage/guarded_device.h"

namespace lukskeep::server {
namespace {

SecretBytes find_volume_key(const ExportKey& from, bool allow_insecure,
                            const luks::HeaderFile& file, const keys::Prompter& prompter) {
  const std::string volume = file.device()->name();
  SecretBytes key =
      keys::read_key(from.source, {.text = fmt::format("passphrase for '{}'", volume)}, prompter);
  // It is ours: nobody else may read from it again.
  if (from.close_fd) ::close(from.source.fd);
  luks::UnlockOptions options;
  options.allow_insecure = allow_insecure;
  std::optional<luks::Unlocked> unlocked =
      from.is_volume_key ? luks::unlock_with_volume_key(file, std::move(key), options)
                         : luks::unlock(file, key.span(), options);
  if (unlocked) return std::move(unlocked->key);
  throw Error(Code::kWrongPassphrase,
              from.is_volume_key
                  ? fmt::format("this is not a volume key of '{}'", volume)
                  : fmt::format("no keyslot of '{}' opens with this passphrase", volume));
}

// Opens encrypted backing files; their volume keys go to found[above]. What is opened again opens
// with the key that was found.
storage::OpenEncrypted backing_opener(const ExportSettings& settings,
                                      const keys::Prompter& prompter,
                                      std::vector<SecretBytes>& found) {
  if (settings.backing_keys.empty()) return {};
  return [&](std::shared_ptr<Device> image, unsigned above) {
    const luks::HeaderFile file = luks::HeaderFile::open(image);
    if (found.size() <= above) found.resize(above + 1);
    SecretBytes& key = found[above];
    if (key.empty() || !luks::unlock_with_volume_key(file, key.clone(), {})) {
      const std::size_t last = settings.backing_keys.size() - 1;
      const ExportKey& from = settings.backing_keys[std::min<std::size_t>(above, last)];
      key = find_volume_key(from, false, file, prompter);
    }
    return luks::make_crypt_device(file.header(), std::move(image), key.span(), {});
  };
}

// The same with the keys that were found: keys[1 + above].
storage::OpenEncrypted backing_opener(const std::vector<SecretBytes>& keys) {
  return [&](std::shared_ptr<Device> image, unsigned above) {
    const luks::HeaderFile file = luks::HeaderFile::open(image);
    const bool known = above + 1 < keys.size();
    if (!known || !luks::unlock_with_volume_key(file, keys[above + 1].clone(), {})) {
      throw Error(Code::kBusy,
                  fmt::format("the backing file '{}' was replaced meanwhile", image->name()));
    }
    return luks::make_crypt_device(file.header(), std::move(image), keys[above + 1].span(), {});
  };
}

}  // namespace

std::shared_ptr<Device> open_payload(const std::string& path, storage::OpenOptions options,
                                     const luks::Header& header) {
  options.lock_from_bytes = luks::payload_offset_bytes(header);
  return storage::open_location(path, options);
}

storage::OpenOptions Export::open_options(storage::OpenEncrypted open_encrypted) const {
  return {.access = settings_.read_only ? storage::Access::kRead : storage::Access::kReadWrite,
          .allow_backing = settings_.allow_backing,
          .allow_data_file = settings_.allow_data_file,
          .open_encrypted = std::move(open_encrypted)};
}

Export::Export(ExportSettings settings, const keys::Prompter& prompter)
    : settings_(std::move(settings)) {
  std::vector<SecretBytes> backing_keys;
  const storage::OpenOptions options =
      open_options(backing_opener(settings_, prompter, backing_keys));
  {
    const bool apart = !settings_.header_path.empty();
    // Others may be changing the header: both copies are weighed, and the key must fit what was
    // read.
    storage::OpenOptions looking = options;
    looking.access = storage::Access::kRead;
    looking.lock = false;
    const luks::HeaderFile file = luks::HeaderFile::open(
        storage::open_location(apart ? settings_.header_path : settings_.path, looking));
    header_ = file.header();
    if (!apart) luks::check_payload_apart(header_, *file.device());
    volume_keys_.push_back(
        find_volume_key(settings_.key, settings_.allow_insecure, file, prompter));
  }
  payload_ = open_payload(settings_.path, options, header_);
  // What cannot be activated is found out now and not when nobody looks any more.
  if (make_plain(volume_keys_.front().span())->size_bytes() == 0) {
    throw Error(Code::kTooSmall, fmt::format("'{}' ends before its payload", payload_->name()));
  }
  const storage::Scheme scheme = storage::scheme_of(settings_.path);
  // Connections have threads, and ciphers secret memory, which nbdkit's fork leaves behind.
  if (scheme == storage::Scheme::kNbd || scheme == storage::Scheme::kRbd || !backing_keys.empty()) {
    payload_.reset();
  }
  // In the background the current directory is another.
  if (!backing_keys.empty()) settings_.path = storage::absolute_location(settings_.path);
  std::move(backing_keys.begin(), backing_keys.end(), std::back_inserter(volume_keys_));
}

std::unique_ptr<Device> Export::make_plain(ByteView volume_key) const {
  return luks::make_crypt_device(header_, payload_, volume_key,
                                 {.allow_insecure = settings_.allow_insecure,
                                  .writable = !settings_.read_only,
                                  .holes_as_zeroes = settings_.discard == Discard::kZeroes});
}

void Export::activate(const std::vector<SecretBytes>& volume_keys) {
  if (!payload_) {
    payload_ = open_payload(settings_.path, open_options(backing_opener(volume_keys)), header_);
  }
  plain_ = storage::make_guarded(make_plain(volume_keys.front().span()));
}

}  // namespace lukskeep::server
