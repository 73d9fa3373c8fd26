// recover request, answer, finish: a volume is opened where no server can be reached.
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/binding_access.h"
#include "cli/binding_view.h"
#include "cli/command.h"
#include "cli/qr_code.h"
#include "cli/volume_access.h"
#include "nbde/recovery.h"
#include "nbde/recovery_kit.h"
#include "nbde/recovery_text.h"
#include "storage/file_device.h"
#include "storage/location.h"

namespace lukskeep::cli {
namespace {

void write_file(const std::string& path, ByteView bytes, bool replace) {
  storage::PendingFile file(path, bytes.size(), replace);
  file.device().write(0, bytes);
  file.commit();
}

SecretBytes read_text(const Session& session, const std::string& path, std::string_view what) {
  const keys::KeySource source{.kind = keys::KeySource::Kind::kFile, .path = path};
  SecretBytes text = keys::read_key(source, {}, {}, session.cancel);
  if (text.size() <= limits::kRecoveryTextBytesMax) return text;
  throw Error(Code::kInvalidArgument, fmt::format("{} is too large", what));
}

std::string quoted(const std::string& path, std::string_view what) {
  return fmt::format("{} '{}'", what, printable(path, 256));
}

// --out, --text, --qr, --svg: a request or an answer as files and on the terminal.
struct KitOutput {
  std::string out;
  std::string svg;
  bool text = false;
  bool qr = false;

  void declare(Options& options) {
    options.add({.name = "--out", .value = "FILE", .help = "write it to FILE (default: print it)"},
                out);
    options.flag({.name = "--text", .help = "print it as lines to read out, with check characters"},
                 text);
    options.flag({.name = "--qr", .help = "print it as a QR code"}, qr);
    options.add({.name = "--svg", .value = "FILE", .help = "draw the QR code into FILE"}, svg);
  }

  void refuse_place(const std::string& path, std::string_view option) const {
    for (const std::string& other : {out, svg}) {
      if (other.empty() || !storage::same_place(path, other)) continue;
      throw Error(Code::kUsage, fmt::format("{} and --out or --svg name the same file", option));
    }
  }

  // Writes the files; `json` gets what the forms are, the result is what is to be printed.
  std::string give(const Session& session, ByteView packed, const OrderedJson& kit,
                   std::string_view title, OrderedJson& json) const {
    const std::string lines = nbde::to_spoken_lines(packed, title);
    const std::string qr_text = nbde::to_qr_text(packed);
    std::string shown;
    if (text) shown += lines;
    if (qr) shown += qr_terminal_text(make_qr_code(qr_text));
    if (!svg.empty() && !session.dry_run) {
      write_file(svg, as_byte_view(qr_svg(make_qr_code(qr_text))), true);
    }
    const std::string file = kit.dump(2) + "\n";
    if (!out.empty() && !session.dry_run) write_file(out, as_byte_view(file), true);
    if (out.empty() && svg.empty() && !text && !qr) shown += file;
    json["text"] = lines;
    json["qr"] = qr_text;
    return shown;
  }
};

// Overwritten first, for what that is worth.
void remove_state(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd >= 0) {
    const off_t size = ::lseek(fd, 0, SEEK_END);
    const Bytes zeroes(size > 0 ? static_cast<std::size_t>(size) : 0);
    if (::pwrite(fd, zeroes.data(), zeroes.size(), 0) > 0) static_cast<void>(::fsync(fd));
    ::close(fd);
  }
  if (::unlink(path.c_str()) == 0) return;
  warn(
      fmt::format("'{}' could not be removed: remove it, with the answer it is as good as the "
                  "passphrase",
                  printable(path, 256)));
}

// ---- request ---------------------------------------------------------------------------------

class RecoverRequest final : public Command {
 public:
  void declare(Options& options) override {
    volume_.declare(options);
    options.add({.name = "--state",
                 .value = "FILE",
                 .help = "new file for what stays here, and 'recover finish' needs (required)"},
                state_);
    options.add_each(
        {.name = "--slot",
         .value = "N",
         .help = "only the binding of this keyslot; may be repeated (default: all bindings)"},
        slots_);
    output_.declare(options);
  }

  void run(const Session& session) override {
    if (state_.empty()) {
      throw Error(Code::kUsage, "nothing says where to keep what stays here",
                  "e.g. --state /run/recovery.state; 'recover finish' needs it");
    }
    output_.refuse_place(state_, "--state");
    const luks::HeaderFile file = open_header(volume_);
    nbde::PreparedRecovery prepared =
        nbde::prepare_recovery(file.header().uuid, chosen(nbde::list_bindings(file)));
    prepared.state.volume = volume_.volume;
    prepared.state.header = volume_.header;
    // What stays here first: a request without it would be of no use.
    if (!session.dry_run) write_file(state_, nbde::to_text(prepared.state).span(), false);
    try {
      give(session, prepared.request);
    } catch (...) {
      // Nobody has the request.
      if (!session.dry_run) remove_state(state_);
      throw;
    }
  }

 private:
  std::vector<nbde::Binding> chosen(std::vector<nbde::Binding> bindings) const {
    if (slots_.empty()) return bindings;
    std::vector<nbde::Binding> wanted;
    for (const std::string& slot : slots_) {
      const std::size_t before = wanted.size();
      for (const nbde::Binding& binding : bindings) {
        if (std::to_string(binding.keyslot) == slot) wanted.push_back(binding);
      }
      if (wanted.size() == before) {
        throw Error(Code::kNotFound,
                    fmt::format("keyslot '{}' of '{}' has no binding", printable(slot),
                                printable(volume_.volume, 256)),
                    "'lukskeep bindings' lists those that there are");
      }
    }
    return wanted;
  }

  void give(const Session& session, const nbde::RecoveryRequest& request) const {
    const std::string code = nbde::recovery_code_text(nbde::recovery_code(request));
    OrderedJson json = {{"volume", volume_.volume},
                        {"uuid", request.uuid},
                        {"code", code},
                        {"state", state_},
                        {"request", nbde::to_json(request)}};
    const std::string shown =
        output_.give(session, nbde::pack(request), json["request"], "RECOVERY REQUEST", json);
    json["dry_run"] = session.dry_run;
    if (session.json) return print_json(json);
    print(shown);
    if (session.quiet) return;
    note(fmt::format("the code of this request is {}: compare it with the one who answers", code));
    note(fmt::format("keep '{}' until 'lukskeep recover finish ANSWER --state {}' is done",
                     printable(state_, 256), printable(state_, 256)));
  }

  // Standard output is the request's.
  static void note(const std::string& text) {
    const std::string line = fmt::format("lukskeep: {}\n", text);
    static_cast<void>(!::write(STDERR_FILENO, line.data(), line.size()));
  }

  VolumeArgs volume_;
  std::string state_;
  std::vector<std::string> slots_;
  KitOutput output_;
};

// ---- answer ----------------------------------------------------------------------------------

class RecoverAnswer final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "REQUEST", .help = "a file with it in any form, or -"}, request_);
    output_.declare(options);
    servers_.declare(options);
  }

  void run(const Session& session) override {
    const std::string what = quoted(request_, "the request");
    const SecretBytes text = read_text(session, request_, what);
    const nbde::RecoveryRequest request =
        nbde::parse_recovery_request(as_string_view(text.span()), what);
    const std::string code = nbde::recovery_code_text(nbde::recovery_code(request));
    std::string servers;
    for (const nbde::RecoveryPoint& point : request.points) {
      servers += fmt::format("  {}\n", printable(point.url, limits::kRecoveryUrlBytesMax));
    }
    confirm(session,
            fmt::format("Whoever sent the request {} can open whatever is sealed to these servers "
                        "with {} answers:\n{}He says that it is the volume {}; nothing proves "
                        "that. Be sure who it is, and that he reads the same code.",
                        code, request.points.size(), servers, printable(request.uuid)),
            Error(Code::kUnsafe, fmt::format("the request {} is answered only when that is "
                                             "confirmed",
                                             code)));
    if (session.dry_run) {
      OrderedJson json = {
          {"uuid", request.uuid}, {"code", code}, {"request", nbde::to_json(request)}};
      return report(session, std::move(json),
                    fmt::format("would ask these servers for {}, which says that it is of the "
                                "volume {}\n{}",
                                code, printable(request.uuid), servers));
    }
    give(session, request, code, nbde::answer_recovery(request, servers_.context(session)));
  }

 private:
  void give(const Session& session, const nbde::RecoveryRequest& request, const std::string& code,
            const nbde::RecoveryOutcome& outcome) const {
    OrderedJson rows = OrderedJson::array();
    const Error* first = nullptr;
    std::size_t failed = 0;
    for (std::size_t i = 0; i < request.points.size(); ++i) {
      const std::optional<Error>& problem = outcome.problems[i];
      OrderedJson row = {{"url", request.points[i].url}, {"answered", !problem}};
      if (problem) {
        if (first == nullptr) first = &*problem;
        ++failed;
        row["error"] = error_json(*problem);
        if (!session.json) warn(problem->message());
      }
      rows.push_back(std::move(row));
    }
    if (first != nullptr && failed == request.points.size()) throw Error(*first);
    // Whether those that answered are enough shows on site.
    if (failed > 0) session.outcome->exit_status = 1;
    OrderedJson json = {{"uuid", request.uuid},
                        {"code", code},
                        {"servers", std::move(rows)},
                        {"answer", nbde::to_json(outcome.answer)}};
    const std::string shown =
        output_.give(session, nbde::pack(outcome.answer), json["answer"], "RECOVERY ANSWER", json);
    if (session.json) return print_json(json);
    print(shown);
  }

  std::string request_;
  KitOutput output_;
  PinContextArgs servers_;
};

// ---- finish ----------------------------------------------------------------------------------

class RecoverFinish final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "ANSWER", .help = "a file with it in any form, or -"}, answer_);
    options.add({.name = "--state",
                 .value = "FILE",
                 .help = "what 'recover request' has kept; removed at the end (required)"},
                state_);
    options.add({.name = "--volume",
                 .value = "VOLUME",
                 .help = "the volume, if it has another name than at the request"},
                volume_);
    declare_header(options, header_);
    policy_.declare(options);
    options.add({.name = "--out",
                 .value = "FILE",
                 .help = "write the passphrase to the new FILE, mode 0600 (default: print it)"},
                out_);
    options.flag({.name = "--keep-state", .help = "do not remove the state"}, keep_state_);
    key_.declare_limits(options);
    servers_.declare(options);
  }

  void run(const Session& session) override {
    if (state_.empty()) {
      throw Error(Code::kUsage, "--state is missing", "it is the file of 'recover request'");
    }
    const SecretBytes text = read_text(session, answer_, quoted(answer_, "the answer"));
    const nbde::RecoveryAnswer answer =
        nbde::parse_recovery_answer(as_string_view(text.span()), quoted(answer_, "the answer"));
    const SecretBytes kept = read_text(session, state_, quoted(state_, "the state"));
    nbde::RecoveryState state =
        nbde::parse_recovery_state(kept.span(), quoted(state_, "the state"));
    const VolumeArgs volume = volume_of(state);
    if (volume.volume.empty()) {
      throw Error(Code::kUsage, "the name of the volume is no UTF-8, so the state does not have it",
                  "--volume names it");
    }
    const luks::HeaderFile file = open_header(volume);
    if (file.header().uuid != state.uuid) {
      throw Error(Code::kConflict,
                  fmt::format("'{}' is the volume {}, and the request was for {}",
                              printable(volume.volume, 256), printable(file.header().uuid),
                              printable(state.uuid)),
                  "--volume names another");
    }
    nbde::PinContext context = servers_.context(session);
    context.tang_key = nbde::recovered_keys(std::move(state), answer);
    const OpenedVolume opened = unlock_by_binding(file, context, key_.unlock_options(session));
    hand_over(session, volume, opened);
    // Not before the passphrase is out.
    if (!keep_state_ && !session.dry_run) remove_state(state_);
  }

 private:
  VolumeArgs volume_of(const nbde::RecoveryState& state) const {
    VolumeArgs args;
    args.volume = volume_.empty() ? state.volume : volume_;
    args.header = header_.empty() && volume_.empty() ? state.header : header_;
    args.policy = policy_;
    return args;
  }

  void hand_over(const Session& session, const VolumeArgs& volume,
                 const OpenedVolume& opened) const {
    const std::string name = printable(volume.volume, 256);
    const int keyslot = opened.unlocked.keyslot;
    const std::string_view passphrase = as_string_view(opened.passphrase.span());
    if (session.json && out_.empty() && !is_utf8(passphrase)) {
      throw Error(Code::kUnsupported, "the passphrase is no text, so JSON cannot hold it",
                  "--out writes it to a file");
    }
    if (!out_.empty() && !session.dry_run) write_file(out_, opened.passphrase.span(), false);
    if (!session.quiet) {
      warn(
          fmt::format("whoever sees the passphrase opens '{}' without any server: when the "
                      "network is back, 'lukskeep rebind {} --slot {}'",
                      name, name, keyslot));
    }
    OrderedJson json = {{"volume", volume.volume}, {"keyslot", keyslot}};
    if (!out_.empty() || session.dry_run) {
      if (!out_.empty()) json["out"] = out_;
      return report(session, json, fmt::format("keyslot {} of '{}' opens", keyslot, name));
    }
    if (session.json) {
      json["passphrase"] = passphrase;
      return print_json(json);
    }
    print(passphrase);
    print("\n");
  }

  std::string answer_;
  std::string state_;
  std::string volume_;
  std::string header_;
  PolicyArgs policy_;
  std::string out_;
  bool keep_state_ = false;
  KeyArgs key_;
  PinContextArgs servers_;
};

}  // namespace

std::unique_ptr<Command> make_recover_request() { return std::make_unique<RecoverRequest>(); }
std::unique_ptr<Command> make_recover_answer() { return std::make_unique<RecoverAnswer>(); }
std::unique_ptr<Command> make_recover_finish() { return std::make_unique<RecoverFinish>(); }

}  // namespace lukskeep::cli
