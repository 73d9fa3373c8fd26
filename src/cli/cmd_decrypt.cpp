// decrypt: the plain contents of a volume to a file, block device or pipe.
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/named_device.h"
#include "cli/target.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/crypt_device.h"

namespace lukskeep::cli {
namespace {

class DecryptCommand final : public Command {
 public:
  void declare(Options& options) override {
    options.positional(
        {.name = "SRC", .help = "the volume: a file, device or URI, or - for standard input"},
        volume_.volume);
    options.positional(
        {.name = "DST", .help = "the plain image: a file, device or URI, or - for standard output"},
        path_);
    declare_header(options, volume_.header);
    volume_.policy.declare(options);
    key_.declare(options);
    copy_.declare(options);
  }

  void run(const Session& session) override {
    check_paths(session);
    const std::shared_ptr<Device> payload = open_payload(session);
    const luks::HeaderFile file =
        volume_.header.empty() ? luks::HeaderFile::open(payload) : open_header_unjudged(volume_);
    volume_.policy.enforce(file);
    if (volume_.header.empty()) luks::check_payload_apart(file.header(), *payload);
    const OpenedVolume opened = unlock_volume(session, file, key_, key_.unlock_options(session));
    if (!copy_.keep_holes()) warn_of_holes(file.header(), *payload);
    const auto plain = luks::make_crypt_device(
        file.header(), payload, opened.unlocked.key.span(),
        {.allow_insecure = key_.allow_insecure, .holes_as_zeroes = copy_.keep_holes()});
    if (plain->size_bytes() == 0) {
      throw Error(Code::kTooSmall, fmt::format("'{}' ends before its payload", payload->name()));
    }
    if (!session.dry_run) write(session, *plain, payload->size_bytes());
    if (!is_pipe(path_)) report_result(session, plain->size_bytes());
  }

 private:
  void check_paths(const Session& session) {
    if (is_pipe(volume_.volume)) check_stdin_is_free(key_.key);
    if (is_pipe(path_)) return check_stdout_is_free(session);
    if (!is_pipe(volume_.volume)) refuse_same(volume_.volume, path_);
    if (!volume_.header.empty()) refuse_same(volume_.header, path_);
    settled_ = confirm_overwrite(session, path_);
  }

  // A header may be anywhere and keyslots are read out of order: what comes from a pipe is put into
  // a file first, still encrypted.
  std::shared_ptr<Device> open_payload(const Session& session) {
    if (!is_pipe(volume_.volume))
      return open_device(volume_.volume, storage::Access::kRead, copy_.direct);
    auto spool = std::make_shared<Target>(make_spool(0));
    ProgressDisplay display(copy_.progress, session);
    storage::CopyOptions options = copy_.copy_options(session, "receive");
    options.progress = display.callback();
    storage::copy_from_fd(STDIN_FILENO, *spool->device(), std::numeric_limits<std::int64_t>::max(),
                          1, options);
    // The same Ctrl-C may have ended the other side of the pipe: what came is not all.
    session.cancel->check();
    return with_name({spool, spool->device().get()}, "standard input");
  }

  void write(const Session& session, const Device& plain, std::uint64_t payload_bytes) const {
    ProgressDisplay display(copy_.progress, session);
    storage::CopyOptions options = copy_.copy_options(session, "decrypt");
    options.progress = display.callback();
    if (is_pipe(path_)) {
      storage::copy_to_fd(plain, STDOUT_FILENO, plain.size_bytes(), options);
      return check_source_size(payload_bytes);
    }
    Target target(path_, settled_, plain.size_bytes(), copy_.direct);
    options.destination_is_zero = target.fresh();
    storage::copy(plain, *target.device(), plain.size_bytes(), options);
    session.cancel->check();
    check_source_size(payload_bytes);
    target.commit();
  }

  void check_source_size(std::uint64_t payload_bytes) const {
    if (!is_pipe(volume_.volume)) refuse_resized(volume_.volume, payload_bytes);
  }

  void report_result(const Session& session, std::uint64_t payload_bytes) const {
    report(session,
           {{"source", volume_.volume}, {"destination", path_}, {"payload_size", payload_bytes}},
           fmt::format("{} '{}' to '{}': {}", session.dry_run ? "would decrypt" : "decrypted",
                       printable(volume_.volume, 256), printable(path_, 256),
                       human_size(payload_bytes)));
  }

  VolumeArgs volume_;
  std::string path_;
  PathKind settled_ = PathKind::kAbsent;  // what may be overwritten at path_
  KeyArgs key_;
  CopyArgs copy_;
};

}  // namespace

std::unique_ptr<Command> make_decrypt() { return std::make_unique<DecryptCommand>(); }

}  // namespace lukskeep::cli
