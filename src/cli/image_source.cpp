#include "cli/image_source.h"

#include <utility>

#include "image/inspect_device.h"

namespace lukskeep::cli {

void ImageSourceArgs::declare_allow(Options& options) {
  options.add({.name = "--allow", .value = "NAME,...", .help = "findings that are no danger"},
              [this](const std::string& value) { allow = image::parse_allow_list(value); });
}

ImageSource inspect_source(const Session& session, const ImageSourceArgs& args) {
  ImageSource source{.file = open_device(args.path, storage::Access::kRead, args.direct)};
  image::InspectOptions options{.inspector = {.expected = {}, .allow = args.allow},
                                .cancel = session.cancel};
  SecretBytes passphrase;
  if (args.keys) {
    options.unlock = [&](const luks::HeaderFile& file,
                         unsigned layer) -> std::optional<luks::Unlocked> {
      const luks::UnlockOptions unlock = args.keys->unlock_options(session);
      // What opens the file opens what is within as well, or nothing does.
      if (layer != 0) return luks::unlock(file, passphrase.span(), unlock);
      OpenedVolume opened = unlock_volume(session, file, *args.keys, unlock);
      passphrase = std::move(opened.passphrase);
      source.header = file.header();
      source.volume_key = opened.unlocked.key.clone();
      return std::move(opened.unlocked);
    };
  }
  source.report = image::inspect(source.file, options);
  return source;
}

}  // namespace lukskeep::cli
