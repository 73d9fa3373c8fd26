#include "cli/backing_keys.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "cli/volume_access.h"
#include "keys/key_source.h"
#include "luks/crypt_device.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"

namespace lukskeep::cli {
namespace {

class BackingOpener {
 public:
  BackingOpener(const Session& session, std::vector<std::string> sources)
      : session_(session), sources_(std::move(sources)) {}

  std::unique_ptr<Device> open(std::shared_ptr<Device> image, unsigned above) {
    const luks::HeaderFile file = luks::HeaderFile::open(image);
    opened_[above] = image->name();
    SecretBytes& key = keys_[image->name()];
    // A command opens what it reads more than once: to look at it, and to read it.
    const KeyArgs args{.key = sources_[std::min<std::size_t>(above, sources_.size() - 1)],
                       .kdf_limit = allowed_named_files().kdf_limit};
    const luks::UnlockOptions options = args.unlock_options(session_);
    if (key.empty() || !luks::unlock_with_volume_key(file, key.clone(), options)) {
      key = unlock(file, args, options).key.clone();
    }
    allowed_named_files().encrypted_backing = true;
    return luks::make_crypt_device(file.header(), std::move(image), key.span(), {});
  }

  std::vector<SecretBytes> take_opened() {
    std::vector<SecretBytes> keys;
    keys.reserve(opened_.size());
    for (const auto& [above, name] : opened_) keys.push_back(keys_.at(name).clone());
    opened_.clear();
    return keys;
  }

 private:
  // A source that gives what it has once is read once, for all files that it opens.
  luks::Unlocked unlock(const luks::HeaderFile& file, const KeyArgs& args,
                        const luks::UnlockOptions& options) {
    if (const auto kept = read_once_.find(args.key); kept != read_once_.end()) {
      std::optional<luks::Unlocked> unlocked = luks::unlock(file, kept->second.span(), options);
      if (unlocked) return std::move(*unlocked);
      throw Error(Code::kWrongPassphrase,
                  fmt::format("no keyslot of '{}' opens with the passphrase of '{}', which opens "
                              "another encrypted backing file",
                              file.device()->name(), printable(args.key, 256)),
                  "each further --backing-key is for the next encrypted backing file");
    }
    OpenedVolume opened = unlock_volume(session_, file, args, options);
    if (!opened.passphrase.empty() && gives_once(keys::parse_key_source(args.key))) {
      read_once_[args.key] = std::move(opened.passphrase);
    }
    return std::move(opened.unlocked);
  }

  // Of a part of a stream the next part may be another key.
  static bool gives_once(const keys::KeySource& source) {
    if (source.size_bytes) return false;
    if (source.kind == keys::KeySource::Kind::kFd) return true;
    std::error_code ignored;
    return source.kind == keys::KeySource::Kind::kFile &&
           !std::filesystem::is_regular_file(source.path, ignored);
  }

  const Session& session_;
  std::vector<std::string> sources_;
  std::map<std::string, SecretBytes> keys_;       // by the image's path
  std::map<unsigned, std::string> opened_;        // by its place
  std::map<std::string, SecretBytes> read_once_;  // passphrases, by their source
};

// Of this process.
std::shared_ptr<BackingOpener>& backing_opener() {
  static std::shared_ptr<BackingOpener> opener;
  return opener;
}

}  // namespace

void use_backing_keys(const Session& session) {
  NamedFiles& named = allowed_named_files();
  if (named.backing_keys.empty()) return;
  if (!named.backing) {
    throw Error(Code::kUsage, "--backing-key is given, and backing files are not read",
                "--allow-backing allows that, if you trust who made the image");
  }
  for (const std::string& source : named.backing_keys) keys::parse_key_source(source);
  backing_opener() = std::make_shared<BackingOpener>(session, named.backing_keys);
  named.open_encrypted = [](std::shared_ptr<Device> image, unsigned above) {
    return backing_opener()->open(std::move(image), above);
  };
}

std::vector<SecretBytes> take_backing_volume_keys() {
  if (!backing_opener()) return {};
  return backing_opener()->take_opened();
}

}  // namespace lukskeep::cli
