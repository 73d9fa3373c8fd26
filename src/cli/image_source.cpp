#include "cli/image_source.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "cli/copy_args.h"
#include "cli/inspection.h"
#include "image/inspect_device.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"
#include "storage/location.h"

namespace lukskeep::cli {
namespace {

// What is a disk as it stands.
constexpr std::array<std::string_view, 4> kDisks = {"raw", "gpt", "mbr", "iso"};

bool is_wrapper(std::string_view format) {
  return format == "gzip" || format == "zstd" || format == "xz";
}

// With what others keep between the keyslots and the payload.
Bytes read_header_bytes(const luks::HeaderFile& file) {
  const Device& device = *file.device();
  const std::uint64_t end =
      std::max(luks::payload_offset_bytes(file.header()), luks::header_size_bytes(file.header()));
  Bytes bytes(static_cast<std::size_t>(
      std::min({end, device.size_bytes(), std::uint64_t{limits::kSnapshotHeaderBytesMax}})));
  device.read(0, bytes);
  return bytes;
}

// Files that an image names are read only if the user said so, and then that is no danger.
image::AllowList allowed(const ImageSourceArgs& args) {
  image::AllowList allow = args.allow;
  if (allowed_named_files().backing) allow.insert("qcow2-backing-file");
  if (allowed_named_files().data_file) allow.insert("qcow2-data-file");
  return allow;
}

}  // namespace

void ImageSourceArgs::declare_allow(Options& options) {
  options.add({.name = "--allow", .value = "NAME,...", .help = "findings that are no danger"},
              [this](const std::string& value) { allow = image::parse_allow_list(value); });
}

ImageSource inspect_source(const Session& session, const ImageSourceArgs& args) {
  // Which lock is right is known when it is known what it is.
  ImageSource source{.file = open_to_look(args.path)};
  image::InspectOptions options{.inspector = {.expected = {}, .allow = allowed(args)},
                                .open_image = image_opener(args.path),
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
      source.header_bytes = read_header_bytes(file);
      source.volume_key = opened.unlocked.key.clone();
      return std::move(opened.unlocked);
    };
  }
  source.report = image::inspect(source.file, options);
  return source;
}

std::shared_ptr<Device> open_disk(const ImageSourceArgs& args, const ImageSource& source,
                                  bool holes_as_zeroes) {
  const image::Report& report = source.report;
  const std::string quoted = fmt::format("'{}'", printable(args.path, 256));
  if (!report.safe()) {
    throw Error(Code::kUnsafe, fmt::format("{} is not safe: {}", quoted, danger_text(report)),
                "'lukskeep inspect' tells all; --allow NAME if you know better");
  }
  if (!source.in_qcow2() && !report.encrypted &&
      std::find(kDisks.begin(), kDisks.end(), report.format) == kDisks.end()) {
    throw Error(
        Code::kUnsupported,
        fmt::format("{} is {}: only raw, qcow2 and LUKS are converted", quoted, report.format),
        is_wrapper(report.format) ? "decompress it first"
                                  : "qemu-img convert -O qcow2 makes qcow2 of it");
  }
  // qcow2 is locked as QEMU locks it, and reads no other file than it may.
  std::shared_ptr<Device> device = open_device(source.in_qcow2() ? "qcow2:" + args.path : args.path,
                                               storage::Access::kRead, args.direct);
  if (!report.encrypted) return device;
  if (!source.header) throw Error(Code::kInternal, fmt::format("{} has no header", quoted));
  // Clusters that an image lacks are zero in any case.
  if (!holes_as_zeroes && !source.in_qcow2()) warn_of_holes(*source.header, *device);
  return luks::make_crypt_device(*source.header, device, source.volume_key.span(),
                                 {.allow_insecure = args.keys && args.keys->allow_insecure,
                                  .holes_as_zeroes = holes_as_zeroes});
}

}  // namespace lukskeep::cli
