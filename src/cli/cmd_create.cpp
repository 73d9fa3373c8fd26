// create: a new, empty volume in a file or on a block device.
#include <optional>
#include <string>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/header_view.h"
#include "cli/new_volume.h"
#include "cli/target.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/create.h"
#include "luks/crypt_device.h"

namespace lukskeep::cli {
namespace {

class CreateCommand final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "VOLUME", .help = "the file, block device or URI to make it in"},
                       path_);
    options.add_size({.name = "--size",
                      .value = "SIZE",
                      .help = "usable size; the file is larger by the header"},
                     size_bytes_);
    options.add_size(
        {.name = "--total-size", .value = "SIZE", .help = "size of the file with the header"},
        total_bytes_);
    args_.declare(options);
  }

  void run(const Session& session) override {
    check_sizes(kind_of(path_));
    if (!args_.header.empty()) {
      refuse_same(path_, args_.header);
      header_settled_ = confirm_overwrite(session, args_.header);
    }
    settled_ = confirm_overwrite(session, path_);
    const bool new_file = size_bytes_ || total_bytes_;
    const std::uint64_t present_bytes = new_file ? 0 : device_bytes();
    const NewVolume volume = prepare_new_volume(session, args_, sector_size(present_bytes), path_);
    const std::uint64_t whole_bytes = size_bytes_ ? volume.payload_offset_bytes() + *size_bytes_
                                                  : total_bytes_.value_or(present_bytes);
    const std::uint64_t payload_bytes = checked_payload(volume, whole_bytes);
    if (!session.dry_run) write(session, volume, new_file, whole_bytes);
    report(session, new_volume_json(args_, volume, path_, payload_bytes),
           fmt::format("{} '{}': {}, {} usable", session.dry_run ? "would create" : "created",
                       printable(path_, 256), describe(volume), human_size(payload_bytes)));
  }

 private:
  void check_sizes(PathKind kind) const {
    if (size_bytes_ && total_bytes_) {
      throw Error(Code::kUsage, "--size and --total-size contradict each other");
    }
    const bool given = size_bytes_ || total_bytes_;
    if (kind == PathKind::kDevice && given) {
      throw Error(
          Code::kUsage,
          fmt::format("'{}' has a size of its own and is used whole", printable(path_, 256)),
          "leave out --size and --total-size");
    }
    if (kind == PathKind::kAbsent && !given) {
      throw Error(Code::kUsage,
                  fmt::format("'{}' does not exist, and no size is given", printable(path_, 256)),
                  "add --size SIZE");
    }
  }

  std::uint64_t device_bytes() const {
    return open_device(path_, storage::Access::kRead)->size_bytes();
  }

  std::uint32_t sector_size(std::uint64_t present_bytes) const {
    const std::uint64_t offset_bytes = args_.payload_offset_bytes.value_or(0);
    return choose_sector_size(
        args_, size_bytes_.value_or(total_bytes_.value_or(present_bytes) - offset_bytes));
  }

  // Bytes that can be used, of which there must be at least one sector.
  std::uint64_t checked_payload(const NewVolume& volume, std::uint64_t whole_bytes) const {
    const std::uint32_t sector_bytes = volume.sector_size_bytes();
    const std::uint64_t payload = luks::payload_size_bytes(volume.fresh.header, whole_bytes);
    if (size_bytes_ && *size_bytes_ % sector_bytes != 0) {
      throw Error(
          Code::kInvalidArgument,
          fmt::format("--size: {} bytes are not whole sectors of {}", *size_bytes_, sector_bytes));
    }
    if (payload < sector_bytes) {
      throw Error(size_bytes_ || total_bytes_ ? Code::kInvalidArgument : Code::kTooSmall,
                  fmt::format("'{}' would have {} bytes, of which the header takes {}: nothing is "
                              "left for data",
                              printable(path_, 256), whole_bytes, volume.payload_offset_bytes()),
                  "make it larger, or put the header elsewhere with --header");
    }
    return payload;
  }

  void write(const Session& session, const NewVolume& volume, bool new_file,
             std::uint64_t whole_bytes) const {
    const bool detached = !args_.header.empty();
    keep_header(session, detached ? args_.header : path_);
    std::optional<Target> payload;
    if (new_file) payload.emplace(path_, settled_, payload_options(volume, whole_bytes));
    if (detached) {
      Target header(args_.header, header_settled_, volume.header_bytes());
      create_on(session, volume, header.device());
      if (payload) payload->commit();
      header.commit();
    } else if (payload) {
      create_on(session, volume, payload->device());
      payload->commit();
    } else {
      create_on(session, volume, open_device(path_, storage::Access::kReadWrite));
    }
  }

  storage::CreateOptions payload_options(const NewVolume& volume, std::uint64_t whole_bytes) const {
    if (!encrypts_image(path_, settled_, args_.type == "luks1", !args_.header.empty())) {
      return {.size_bytes = whole_bytes};
    }
    const std::uint64_t header_bytes = volume.payload_offset_bytes();
    return {.size_bytes = whole_bytes - header_bytes, .crypto_header_bytes = header_bytes};
  }

  static void create_on(const Session& session, const NewVolume& volume,
                        const std::shared_ptr<Device>& device) {
    luks::create_volume(device, volume.fresh, volume.passphrase.span(), volume.keyslot,
                        session.cancel);
  }

  std::string path_;
  PathKind settled_ = PathKind::kAbsent;  // what may be overwritten at path_
  PathKind header_settled_ = PathKind::kAbsent;
  std::optional<std::uint64_t> size_bytes_;
  std::optional<std::uint64_t> total_bytes_;
  NewVolumeArgs args_;
};

}  // namespace

std::unique_ptr<Command> make_create() { return std::make_unique<CreateCommand>(); }

}  // namespace lukskeep::cli
