// inspect: what a file is, and whether it is safe to use.
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/command.h"
#include "cli/copy_args.h"
#include "cli/inspection.h"
#include "cli/named_device.h"
#include "cli/target.h"
#include "cli/volume_access.h"
#include "image/inspect_device.h"
#include "keys/key_source.h"
#include "storage/copy.h"

namespace lukskeep::cli {
namespace {

using image::Report;

constexpr std::string_view kStdin = "standard input";
// The head of a stream, so that what is wrong with it is known before a byte of it is passed on.
constexpr std::size_t kChunkBytes = limits::kInspectHeadBytes;
constexpr int kPollMs = 200;

bool is_pipe(const std::string& path) { return path == "-"; }

[[noreturn]] void fail(std::string_view what) {
  throw Error(errno == ENOSPC ? Code::kNoSpace : Code::kIo,
              fmt::format("cannot {}: {}", what, std::generic_category().message(errno)));
}

// Waits a while for `fd`, and for Ctrl-C as long as it takes.
void wait_for(int fd, short events, const CancelToken& cancel) {
  for (;;) {
    cancel.check();
    pollfd waiting{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&waiting, 1, kPollMs);
    if (ready > 0 || (ready < 0 && errno != EINTR)) return;  // read or write says what
  }
}

// A stream from standard input or a device, in chunks that are full but for the last.
class Source {
 public:
  Source(const std::string& path, const CancelToken& cancel) : cancel_(cancel) {
    if (!is_pipe(path)) device_ = open_device(path, storage::Access::kRead);
  }

  // Shorter than `out` where the stream ends.
  MutableBytes read(MutableBytes out) {
    std::size_t have = 0;
    if (device_) {
      have = static_cast<std::size_t>(
          std::min<std::uint64_t>(out.size(), device_->size_bytes() - offset_bytes_));
      device_->read(offset_bytes_, out.first(have));
      offset_bytes_ += have;
      cancel_.check();
      return out.first(have);
    }
    while (have < out.size()) {
      wait_for(STDIN_FILENO, POLLIN, cancel_);
      const ssize_t got = ::read(STDIN_FILENO, out.data() + have, out.size() - have);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got < 0) fail(fmt::format("read {}", kStdin));
      if (got == 0) break;
      have += static_cast<std::size_t>(got);
    }
    return out.first(have);
  }

 private:
  const CancelToken& cancel_;
  std::shared_ptr<Device> device_;
  std::uint64_t offset_bytes_ = 0;
};

// Where --tee passes the stream on to.
class Passage {
 public:
  Passage(const std::string& path, PathKind settled, const CancelToken& cancel) : cancel_(cancel) {
    if (!is_pipe(path)) target_.emplace(path, settled, 0);
  }

  void write(ByteView bytes) {
    if (!target_) return write_stdout(bytes);
    Device& device = *target_->device();
    if (target_->fresh()) device.resize(offset_bytes_ + bytes.size());
    device.write(offset_bytes_, bytes);
    offset_bytes_ += bytes.size();
  }
  // The stream has ended well.
  void commit() {
    if (target_) target_->commit();
  }

 private:
  void write_stdout(ByteView bytes) const {
    while (!bytes.empty()) {
      wait_for(STDOUT_FILENO, POLLOUT, cancel_);
      const ssize_t put = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
      if (put < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (put < 0) fail("write to standard output");
      bytes = bytes.subspan(static_cast<std::size_t>(put));
    }
  }

  const CancelToken& cancel_;
  std::optional<Target> target_;
  std::uint64_t offset_bytes_ = 0;
};

class InspectCommand final : public Command {
 public:
  void declare(Options& options) override {
    options.positional(
        {.name = "FILE",
         .help = "the image: a file, a block device, a URI, or - for standard input"},
        path_);
    options.add(
        {.name = "--key",
         .value = "SOURCE",
         .help = "look into encrypted volumes as well: file:PATH[,offset=N][,size=N], fd:N, "
                 "prompt:, or volume-key:PATH"},
        key_source_);
    declare_header(options, header_);
    options.add({.name = "--expect", .value = "FORMAT", .help = "refuse any other format"},
                [this](const std::string& value) {
                  image::check_format_name(value);
                  inspector_.expected = value;
                });
    options.add(
        {.name = "--allow", .value = "NAME,...", .help = "findings that are no danger"},
        [this](const std::string& value) { inspector_.allow = image::parse_allow_list(value); });
    options.add(
        {.name = "--tee",
         .value = "FILE",
         .help = "pass the image on to FILE, or to - for standard output, while it is safe"},
        tee_);
    declare_kdf_limit(options, keys_.kdf_limit);
  }

  void run(const Session& session) override {
    check_arguments(session);
    const Report report = inspect(session);
    const bool passed_on = tee_ && is_pipe(*tee_);
    if (passed_on && !report.safe()) {
      throw Error(Code::kUnsafe,
                  fmt::format("'{}' is not safe: {}", printable(name(), 256), danger_text(report)),
                  "what was passed on is not all of it, and not to be used");
    }
    if (passed_on) return;
    if (!report.safe()) session.outcome->exit_status = exit_status(Code::kUnsafe);
    OrderedJson json = {{"file", path_}};
    json.update(report_json(report));
    show(session, json, report_text(report, name()));
  }

 private:
  std::string_view name() const { return is_pipe(path_) ? kStdin : std::string_view(path_); }

  void check_arguments(const Session& session) {
    keys_.allow_insecure = inspector_.allow.contains("luks-null-cipher");
    if (is_pipe(path_) && key_source_) check_stdin_is_free(*key_source_);
    if (!tee_) return;
    if (is_pipe(*tee_)) return check_stdout_is_free(session);
    if (!is_pipe(path_)) refuse_same(path_, *tee_);
    settled_ = confirm_overwrite(session, *tee_);
  }

  Report inspect(const Session& session) {
    // What is passed on is what was inspected: with a key that needs all of it first.
    const bool whole = key_source_ || !header_.empty();
    if (is_pipe(path_) || tee_) {
      if (!whole) return inspect_stream(session);
      const std::shared_ptr<Device> spool = receive(session);
      Report report = inspect_device(session, spool);
      if (tee_ && report.safe()) pass_on(session, *spool);
      return report;
    }
    return inspect_device(session, open_device(path_, storage::Access::kRead), image_opener(path_));
  }

  Report inspect_device(const Session& session, const std::shared_ptr<Device>& device,
                        std::function<std::shared_ptr<Device>()> open_image = {}) {
    image::InspectOptions options{
        .inspector = inspector_, .open_image = std::move(open_image), .cancel = session.cancel};
    if (!header_.empty()) options.header = open_device(header_, storage::Access::kRead);
    if (key_source_) {
      keys_.key = *key_source_;
      options.unlock = [this, &session](const luks::HeaderFile& file, unsigned layer) {
        return unlock(session, file, layer);
      };
    }
    return image::inspect(device, options);
  }

  // The passphrase of the file itself opens what is within as well, or nothing does.
  std::optional<luks::Unlocked> unlock(const Session& session, const luks::HeaderFile& file,
                                       unsigned layer) {
    const luks::UnlockOptions options = keys_.unlock_options(session);
    if (layer != 0) return luks::unlock(file, passphrase_.span(), options);
    OpenedVolume opened = unlock_volume(session, file, keys_, options);
    passphrase_ = std::move(opened.passphrase);
    return std::move(opened.unlocked);
  }

  std::shared_ptr<Device> receive(const Session& session) const {
    auto spool = std::make_shared<Target>(make_spool(0));
    if (is_pipe(path_)) {
      storage::copy_from_fd(STDIN_FILENO, *spool->device(),
                            std::numeric_limits<std::int64_t>::max(), 1,
                            {.phase = "receive", .cancel = session.cancel});
      session.cancel->check();
    } else {
      const auto source = open_device(path_, storage::Access::kRead);
      spool->device()->resize(source->size_bytes());
      storage::copy(*source, *spool->device(), source->size_bytes(),
                    {.phase = "receive", .destination_is_zero = true, .cancel = session.cancel});
    }
    return with_name({spool, spool->device().get()}, std::string(name()));
  }

  void pass_on(const Session& session, const Device& from) const {
    const std::string path = tee_.value_or("");
    if (is_pipe(path)) {
      return storage::copy_to_fd(from, STDOUT_FILENO, from.size_bytes(),
                                 {.phase = "write", .cancel = session.cancel});
    }
    Target target(path, settled_, from.size_bytes());
    storage::copy(from, *target.device(), from.size_bytes(),
                  {.phase = "write", .cancel = session.cancel});
    target.commit();
  }

  // One pass; stops where a danger is proven. What is passed on stays a chunk behind what was
  // inspected, so that a stream whose end is bad does not arrive whole.
  Report inspect_stream(const Session& session) const {
    image::Inspector inspector(inspector_);
    Source source(path_, *session.cancel);
    std::optional<Passage> passage;
    if (tee_) passage.emplace(*tee_, settled_, *session.cancel);
    Bytes buffer(kChunkBytes);
    Bytes held;
    for (;;) {
      const MutableBytes chunk = source.read(buffer);
      inspector.feed(chunk);
      const bool last = chunk.size() < buffer.size();
      if (!last && tee_ && inspector.dangerous()) return inspector.so_far();
      std::optional<Report> report;
      if (last) report = inspector.finish();
      if (passage && (!report || report->safe())) {
        passage->write(held);
        held.assign(chunk.begin(), chunk.end());
      }
      if (!report) continue;
      if (passage && report->safe()) {
        passage->write(held);
        passage->commit();
      }
      return std::move(*report);
    }
  }

  std::string path_;
  std::optional<std::string> key_source_;
  std::string header_;
  image::InspectorOptions inspector_;
  std::optional<std::string> tee_;
  PathKind settled_ = PathKind::kAbsent;
  KeyArgs keys_;
  SecretBytes passphrase_;
};

}  // namespace

std::unique_ptr<Command> make_inspect() { return std::make_unique<InspectCommand>(); }

}  // namespace lukskeep::cli
