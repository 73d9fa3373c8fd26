// header convert, resize, detach, attach.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "archive/device_identity.h"
#include "archive/keeper.h"
#include "base/bytes.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/header_view.h"
#include "cli/named_device.h"
#include "cli/restoration.h"
#include "cli/target.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/convert.h"
#include "luks/crypt_device.h"
#include "luks/header_backup.h"
#include "luks/layout.h"
#include "storage/memory_device.h"

namespace lukskeep::cli {
namespace {

// The kernel and other programs remember where things were.
void refuse_in_use(const VolumeArgs& volume) {
  for (const std::string& path : {volume.volume, volume.header}) {
    if (path.empty()) continue;
    const std::vector<std::string> users = archive::users_of(path);
    if (!users.empty()) {
      throw Error(Code::kBusy,
                  fmt::format("'{}' is in use by {}", printable(path, 256), fmt::join(users, ", ")),
                  "close the volume first");
    }
  }
}

// With --dry-run the command runs on a copy of the header in memory, which ends where the header
// does: what it says of the room around it is asked of the volume itself.
void refuse_obstacles(const std::vector<std::string>& obstacles, std::string_view what,
                      const std::string& volume) {
  if (obstacles.empty()) return;
  throw Error(Code::kUnsupported, fmt::format("cannot {} the header of '{}': {}", what,
                                              printable(volume, 256), fmt::join(obstacles, "; ")));
}

class HeaderConvert final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.add({.name = "--type",
                 .value = "TYPE",
                 .help = "what the header is to be",
                 .choices = {"luks1", "luks2"}},
                type_);
  }

  void run(const Session& session) override {
    if (!type_) throw Error(Code::kUsage, "nothing says what to convert to", "give --type");
    const luks::Version target = *type_ == "luks1" ? luks::Version::kLuks1 : luks::Version::kLuks2;
    refuse_in_use(volume_);
    refuse_obstacles(luks::conversion_obstacles(open_header(volume_), target), "convert",
                     volume_.volume);
    std::optional<luks::Header> converted;
    if (!session.dry_run) {
      luks::HeaderFile file = open_header_for_change(session, volume_);
      luks::convert_header(file, target);
      converted = file.header();
    }
    OrderedJson json = {{"volume", volume_.volume}, {"type", *type_}};
    if (converted) json["keyslots"] = keyslots_json(*converted);
    report(
        session, std::move(json),
        fmt::format("{} the header of '{}' to {}", session.dry_run ? "would convert" : "converted",
                    printable(volume_.volume, 256), version_name(target)));
  }

 private:
  VolumeArgs volume_;
  std::optional<std::string> type_;
};

class HeaderResize final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.add_size({.name = "--metadata-size",
                      .value = "SIZE",
                      .help = "of one copy: a power of two from 16KiB to 4MiB (default: as it is)"},
                     geometry_.metadata_size_bytes);
    options.add_size(
        {.name = "--keyslots-size",
         .value = "SIZE",
         .help = "of the keyslots area, a multiple of 4KiB (default: all the room that "
                 "is left)"},
        geometry_.keyslots_size_bytes);
  }

  void run(const Session& session) override {
    refuse_in_use(volume_);
    refuse_obstacles(luks::resize_obstacles(open_header(volume_), geometry_), "resize",
                     volume_.volume);
    OrderedJson json = {{"volume", volume_.volume}};
    std::string sizes;
    if (!session.dry_run) {
      luks::HeaderFile file = open_header_for_change(session, volume_);
      luks::resize_header(file, geometry_);
      const luks::Header& header = file.header();
      json["metadata_size"] = header.metadata_size_bytes;
      json["keyslots_size"] = header.config.keyslots_size_bytes;
      sizes = fmt::format(": two copies of {}, keyslots area of {}",
                          human_size(header.metadata_size_bytes),
                          human_size(header.config.keyslots_size_bytes));
    }
    report(session, std::move(json),
           fmt::format("{} the header of '{}'{}", session.dry_run ? "would resize" : "resized",
                       printable(volume_.volume, 256), sizes));
  }

 private:
  VolumeArgs volume_;
  luks::HeaderGeometry geometry_;
};

class HeaderDetach final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "VOLUME", .help = "the volume, with its header"}, volume_.volume);
    options.positional({.name = "HEADER", .help = "the header: a new file"}, header_);
    volume_.policy.declare(options);
  }

  void run(const Session& session) override {
    refuse_same(volume_.volume, header_);
    settled_ = confirm_overwrite(session, header_);
    refuse_in_use(volume_);
    if (session.dry_run) {
      static_cast<void>(luks::backup_header(open_header(volume_)));
      return tell(session);
    }
    const luks::HeaderFile file = open_header_for_change(session, volume_);
    const Bytes header = luks::backup_header(file);
    write_copy(header);
    check_copy(file);
    if (session.keeper != nullptr) session.keeper->moved(volume_.volume, header_);
    luks::remove_header(file, header);
    tell(session);
  }

 private:
  void write_copy(ByteView header) const {
    Target target(header_, settled_, header.size());
    target.device()->write(0, header);
    target.commit();
  }

  // Before the only other one goes.
  void check_copy(const luks::HeaderFile& file) const {
    const auto copy = luks::HeaderFile::open(open_device(header_, storage::Access::kRead));
    if (copy.header() != file.header()) {
      throw Error(Code::kIo,
                  fmt::format("the header in '{}' reads back differently", printable(header_, 256)),
                  "nothing was removed from the volume");
    }
  }

  void tell(const Session& session) const {
    report(session, {{"volume", volume_.volume}, {"header", header_}},
           fmt::format("{} the header of '{}' to '{}': without that file nobody opens the volume",
                       session.dry_run ? "would move" : "moved", printable(volume_.volume, 256),
                       printable(header_, 256)));
  }

  VolumeArgs volume_;
  std::string header_;
  PathKind settled_ = PathKind::kAbsent;
};

class HeaderAttach final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "VOLUME", .help = "the payload's device"}, volume_.volume);
    options.positional({.name = "HEADER", .help = "its detached header, which stays as it is"},
                       header_);
    volume_.policy.declare(options);
    args_.declare(options);
  }

  void run(const Session& session) override {
    refuse_same(volume_.volume, header_);
    // Read once: what is judged is what is written.
    const luks::HeaderFile file =
        luks::HeaderFile::open(open_device(header_, storage::Access::kRead));
    const auto copy =
        with_name(std::make_shared<storage::MemoryDevice>(luks::backup_header(file, true), false),
                  file.device()->name());
    check_room(luks::HeaderFile::open(copy).header());
    restore_to(session, volume_, args_, {.backup = copy, .name = header_, .manifest = {}});
  }

 private:
  void check_room(const luks::Header& header) const {
    const std::uint64_t payload = luks::payload_offset_bytes(header);
    const std::uint64_t end = luks::header_end_bytes(header);
    if (payload < end) {
      throw Error(Code::kUnsupported,
                  fmt::format("'{}' has no room for the header: its payload starts at byte {}, the "
                              "header has {} bytes",
                              printable(volume_.volume, 256), payload, end),
                  payload == 0 ? "" : "'lukskeep header resize' makes it smaller");
    }
  }

  VolumeArgs volume_;
  RestoreArgs args_;
  std::string header_;
};

}  // namespace

std::unique_ptr<Command> make_header_convert() { return std::make_unique<HeaderConvert>(); }
std::unique_ptr<Command> make_header_resize() { return std::make_unique<HeaderResize>(); }
std::unique_ptr<Command> make_header_detach() { return std::make_unique<HeaderDetach>(); }
std::unique_ptr<Command> make_header_attach() { return std::make_unique<HeaderAttach>(); }

}  // namespace lukskeep::cli
