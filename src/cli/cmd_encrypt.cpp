// encrypt: a plain image into a new volume.
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/header_view.h"
#include "cli/new_volume.h"
#include "cli/target.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/create.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"

namespace lukskeep::cli {
namespace {

class EncryptCommand final : public Command {
 public:
  void declare(Options& options) override {
    options.positional(
        {.name = "SRC", .help = "the plain image: a file, device or URI, or - for standard input"},
        source_path_);
    options.positional(
        {.name = "DST", .help = "the new volume: a file, device or URI, or - for standard output"},
        path_);
    args_.declare(options);
    copy_.declare(options);
  }

  void run(const Session& session) override {
    check_paths(session);
    if (!is_pipe(source_path_)) open_source();
    const std::uint32_t sector_bytes = choose_sector_size(args_, known(source_bytes_));
    const NewVolume volume = prepare_new_volume(session, args_, sector_bytes, path_);
    if (source_bytes_ != 0) {
      payload_bytes_ = luks::round_up(source_bytes_, volume.sector_size_bytes());
    }
    if (!session.dry_run) write(session, volume);
    if (!is_pipe(path_)) report_result(session, volume);
  }

 private:
  static std::optional<std::uint64_t> known(std::uint64_t size_bytes) {
    if (size_bytes == 0) return {};
    return size_bytes;
  }

  void check_paths(const Session& session) {
    if (is_pipe(source_path_)) {
      check_stdin_is_free(args_.key);
      if (!args_.volume_key.empty()) check_stdin_is_free(args_.volume_key);
    }
    if (is_pipe(path_)) {
      check_stdout_is_free(session);
    } else {
      if (!is_pipe(source_path_)) refuse_same(source_path_, path_);
      settled_ = confirm_overwrite(session, path_);
    }
    if (args_.header.empty()) return;
    if (!is_pipe(source_path_)) refuse_same(source_path_, args_.header);
    refuse_same(path_, args_.header);
    header_settled_ = confirm_overwrite(session, args_.header);
  }

  void open_source() {
    source_ = open_device(source_path_, storage::Access::kRead, copy_.direct);
    source_bytes_ = source_->size_bytes();
    if (source_bytes_ == 0) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("'{}' is empty: there is nothing to encrypt", source_->name()));
    }
  }

  void write(const Session& session, const NewVolume& volume) {
    if (!args_.header.empty()) {
      keep_header(session, args_.header);
    } else if (!is_pipe(path_)) {
      keep_header(session, path_);
    }
    Target container = is_pipe(path_) ? make_spool(container_options(volume).size_bytes)
                                      : Target(path_, settled_, container_options(volume));
    std::optional<Target> detached;
    if (!args_.header.empty()) {
      detached.emplace(args_.header, header_settled_, volume.header_bytes());
    }
    const Target& headed = detached ? *detached : container;
    // A file has no name before it is whole; what is on a block device is there for all to see.
    std::optional<luks::PendingHeader> pending;
    if (headed.fresh()) {
      luks::create_volume(headed.device(), volume.fresh, volume.passphrase.span(), volume.keyslot,
                          session.cancel);
    } else {
      pending.emplace(headed.device(), volume.fresh, volume.passphrase.span(), volume.keyslot,
                      session.cancel);
    }
    copy_payload(session, volume, container);
    if (pending) pending->write();
    // The header first: a payload without one would be a volume that nothing opens.
    if (detached) detached->commit();
    if (is_pipe(path_)) {
      send(session, *container.device());
    } else {
      container.commit();
    }
  }

  storage::CreateOptions container_options(const NewVolume& volume) const {
    const std::uint64_t header_bytes = volume.payload_offset_bytes();
    if (encrypts_image(path_, settled_, args_.type == "luks1", !args_.header.empty())) {
      return {.size_bytes = payload_bytes_,
              .direct = copy_.direct,
              .crypto_header_bytes = header_bytes};
    }
    return {.size_bytes = header_bytes + payload_bytes_, .direct = copy_.direct};
  }

  void copy_payload(const Session& session, const NewVolume& volume, const Target& container) {
    const auto plain = luks::make_crypt_device(
        volume.fresh.header, container.device(), volume.fresh.volume_key.span(),
        {.allow_insecure = args_.allow_insecure,
         .writable = true,
         .holes_as_zeroes = copy_.keep_holes() && container.fresh()});
    ProgressDisplay display(copy_.progress, session);
    storage::CopyOptions options = copy_.copy_options(session, "encrypt");
    options.progress = display.callback();
    // A block device has no holes to leave: they are filled.
    if (!container.fresh()) options.holes = storage::Holes::kFill;
    options.destination_is_zero = copy_.keep_holes() && container.fresh();
    if (source_) {
      pad_last_sector(*plain);
      storage::copy(*source_, *plain, source_bytes_, options);
      session.cancel->check();
      return refuse_resized(source_path_, source_bytes_);
    }
    source_bytes_ =
        storage::copy_from_fd(STDIN_FILENO, *plain, std::numeric_limits<std::int64_t>::max(),
                              volume.sector_size_bytes(), options);
    // The same Ctrl-C may have ended the other side of the pipe: what came is not all.
    session.cancel->check();
    if (source_bytes_ == 0) {
      throw Error(Code::kInvalidArgument, "standard input is empty: there is nothing to encrypt");
    }
    payload_bytes_ = luks::round_up(source_bytes_, volume.sector_size_bytes());
  }

  // LUKS payloads are whole sectors: what the source lacks is zero.
  void pad_last_sector(Device& plain) const {
    const std::uint64_t padding = payload_bytes_ - source_bytes_;
    if (padding != 0) plain.write_zeroes(source_bytes_, padding, ZeroMode::kAllocate);
  }

  void send(const Session& session, const Device& spool) const {
    ProgressDisplay display(copy_.progress, session);
    storage::CopyOptions options = copy_.copy_options(session, "send");
    options.progress = display.callback();
    storage::copy_to_fd(spool, STDOUT_FILENO, spool.size_bytes(), options);
  }

  void report_result(const Session& session, const NewVolume& volume) const {
    OrderedJson json = new_volume_json(args_, volume, path_, payload_bytes_);
    json["source"] = source_path_;
    json["source_size"] = source_bytes_;
    json["padding"] = payload_bytes_ - source_bytes_;
    if (source_bytes_ == 0) {
      for (const char* member : {"payload_size", "source_size", "padding"}) json[member] = nullptr;
    }
    std::string text =
        fmt::format("{} '{}' into '{}': {}, {}", session.dry_run ? "would encrypt" : "encrypted",
                    printable(source_path_, 256), printable(path_, 256), describe(volume),
                    source_bytes_ != 0 ? human_size(payload_bytes_) : "size not known yet");
    if (payload_bytes_ != source_bytes_) {
      text += fmt::format("; {} zero bytes added to fill the last sector",
                          payload_bytes_ - source_bytes_);
    }
    report(session, std::move(json), text);
  }

  std::string source_path_;
  std::string path_;
  NewVolumeArgs args_;
  CopyArgs copy_;
  PathKind settled_ = PathKind::kAbsent;  // what may be overwritten at path_
  PathKind header_settled_ = PathKind::kAbsent;
  std::shared_ptr<Device> source_;  // null: standard input
  // Of a pipe: 0 until it has been read to its end. Nothing else is empty.
  std::uint64_t source_bytes_ = 0;
  std::uint64_t payload_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Command> make_encrypt() { return std::make_unique<EncryptCommand>(); }

}  // namespace lukskeep::cli
