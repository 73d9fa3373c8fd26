// vm attach, detach, list: disks of a running virtual machine, over its monitor.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/backing_keys.h"
#include "cli/child_process.h"
#include "cli/command.h"
#include "cli/nbdkit_process.h"
#include "cli/serve_args.h"
#include "cli/volume_access.h"
#include "luks/crypt_device.h"
#include "vm/disk.h"
#include "vm/json_member.h"
#include "vm/qemu_key.h"

namespace lukskeep::cli {
namespace {

constexpr std::chrono::seconds kServerTime{60};
constexpr std::uint32_t kGuestSeconds = 30;
constexpr std::uint32_t kGuestSecondsMax = 86'400;

struct QmpArgs {
  std::string socket;

  void declare(Options& options) {
    options.add({.name = "--qmp",
                 .value = "SOCKET",
                 .help = "the monitor: the Unix socket of QEMU's -qmp, or of a storage daemon"},
                socket);
  }
  vm::Qmp connect(const Session& session) const {
    if (socket.empty()) {
      throw Error(Code::kUsage, "--qmp is missing", "it names the socket of QEMU's monitor");
    }
    return vm::Qmp::connect(socket, {.cancel = session.cancel});
  }
};

// A comma, percent or equals sign as --export wants it.
std::string export_word(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool special = c == ',' || c == '%' || c == '=';
    out += special ? fmt::format("%{:02X}", static_cast<unsigned char>(c)) : std::string(1, c);
  }
  return out;
}

// What another lukskeep calls it; kRemote for what is no code.
Code code_called(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    if (code_name(static_cast<Code>(i)) == name) return static_cast<Code>(i);
  }
  return Code::kRemote;
}

// N of /proc/self/fd/N and the like, which a program we start opens too if it has descriptor N.
std::optional<int> descriptor_of(const std::string& location) {
  const std::string path = storage::local_path(location).value_or("");
  for (const std::string_view folder : {"/proc/self/fd/", "/dev/fd/"}) {
    int fd = -1;
    if (!path.starts_with(folder)) continue;
    std::from_chars(path.data() + folder.size(), path.data() + path.size(), fd);
    if (fd > STDERR_FILENO) return fd;
  }
  return std::nullopt;
}

// `lukskeep serve` for one client, which is QEMU: it ends when that has gone.
class VolumeServer {
 public:
  VolumeServer(const Session& session, const VolumeArgs& volume, const KeyArgs& key,
               const SecretBytes& volume_key, const std::vector<SecretBytes>& backing_keys,
               bool read_only)
      : name_(storage::absolute_location(volume.volume)) {
    const storage::UniqueFd key_fd(pass_by_descriptor(volume_key));
    std::string one = fmt::format("{}={}", export_word(name_), export_word(volume.volume));
    if (!volume.header.empty()) one += ",header=" + export_word(volume.header);
    if (read_only) one += ",read-only";
    one += fmt::format(",key=volume-key:/proc/self/fd/{}", key_fd.get());
    // Where only root or its last user gets, QEMU does not get to the socket.
    if (geteuid() == 0) unsetenv("XDG_RUNTIME_DIR");
    ChildSettings settings{
        .program = "/proc/self/exe", .descriptors = {key_fd.get()}, .outlive = true};
    for (const std::string& location : {volume.volume, volume.header}) {
      if (const auto fd = descriptor_of(location)) settings.descriptors.push_back(*fd);
    }
    // Nobody reads its standard error once we have ended.
    settings.arguments = {"serve", "--export", one, "--exit-with-last", "--json", "--system-log"};
    if (key.allow_insecure) settings.arguments.emplace_back("--allow-insecure");
    if (allowed_named_files().backing) settings.arguments.emplace_back("--allow-backing");
    if (allowed_named_files().data_file) settings.arguments.emplace_back("--allow-data-file");
    std::vector<storage::UniqueFd> backing_fds;
    for (const SecretBytes& backing_key : backing_keys) {
      const int fd = backing_fds.emplace_back(pass_by_descriptor(backing_key)).get();
      settings.descriptors.push_back(fd);
      settings.arguments.emplace_back("--backing-key");
      settings.arguments.push_back(fmt::format("volume-key:/proc/self/fd/{}", fd));
    }
    child_ = std::make_unique<ChildProcess>(settings);
    child_->read_output(true, kServerTime, session.cancel);
    understand();
  }

  // The socket is ours alone; QEMU may be another user's.
  void let_in(std::uint32_t uid) const {
    if (uid == geteuid() || geteuid() != 0) return;
    const std::string folder = socket_.substr(0, socket_.rfind('/'));
    if (lchown(socket_.c_str(), uid, static_cast<gid_t>(-1)) == 0 &&
        lchown(folder.c_str(), uid, static_cast<gid_t>(-1)) == 0) {
      return;
    }
    throw Error(Code::kPermissionDenied,
                fmt::format("cannot give '{}' to the user of QEMU", printable(socket_, 256)));
  }
  void let_go() { child_->let_go(); }

  // "; its server said: …", of what went wrong there; empty if nothing did.
  std::string last_words() const {
    child_->read_what_is_there();
    const std::string_view said = child_->errors();
    if (said.empty()) return {};
    return fmt::format("; the server of '{}' said: {}", printable(name_, 256),
                       printable(said.substr(0, said.find_last_not_of('\n') + 1), 512));
  }

  const std::string& socket() const { return socket_; }
  const std::string& export_name() const { return name_; }
  pid_t pid() const { return child_->pid(); }

 private:
  // Null if it ended without a word of its own.
  Json words() const {
    try {
      return parse_json(child_->output(), "the server");
    } catch (const Error&) {
      return nullptr;
    }
  }

  void understand() {
    const Json said = words();
    socket_ = vm::text_member(said, "socket");
    if (!socket_.empty()) return;
    const Json& error = vm::member(said, "error");
    const std::string message = vm::text_member(error, "message");
    throw Error(code_called(vm::text_member(error, "code")),
                fmt::format("the server of '{}' did not start: {}", printable(name_, 256),
                            message.empty() ? printable(child_->errors(), 512) : message),
                vm::text_member(error, "hint"));
  }

  std::string name_;
  std::string socket_;
  std::unique_ptr<ChildProcess> child_;
};

std::string_view transfer_name(vm::KeyTransfer transfer) {
  switch (transfer) {
    case vm::KeyTransfer::kSealed:
      return "sealed";
    case vm::KeyTransfer::kPlain:
      return "plain";
    case vm::KeyTransfer::kNone:
      break;
  }
  return "none";
}

class VmAttach final : public Command {
 public:
  void declare(Options& options) override {
    qmp_.declare(options);
    options.add({.name = "--volume", .value = "PAYLOAD", .help = "the volume"}, volume_.volume);
    declare_header(options, volume_.header);
    volume_.policy.declare(options);
    key_.declare(options);
    options.add({.name = "--id",
                 .value = "ID",
                 .help = "what the disk is called (default: lukskeep0, lukskeep1 ...)"},
                request_.id);
    options.add({.name = "--device",
                 .value = "DRIVER",
                 .help = "virtio-blk-pci (default), virtio-scsi, or another driver of QEMU; of a "
                         "storage daemon vhost-user-blk (default) or nbd"},
                request_.device);
    options.add({.name = "--bus", .value = "BUS", .help = "the bus it is plugged into"},
                request_.bus);
    options.add({.name = "--via",
                 .value = "WAY",
                 .help = "who decrypts: qemu (default: LUKS1 only), or nbd: a server of ours",
                 .choices = {"qemu", "nbd"}},
                via_);
    options.flag({.name = "--read-only", .help = "the guest cannot write"}, request_.read_only);
    options.add({.name = "--export-socket",
                 .value = "PATH",
                 .help = "where a storage daemon makes the disk available"},
                request_.export_socket);
  }

  void run(const Session& session) override {
    if (volume_.volume.empty()) throw Error(Code::kUsage, "--volume is missing");
    if (!request_.id.empty()) vm::check_disk_id(request_.id);
    const luks::HeaderFile file = open_header_unlocked(volume_);
    if (via_ == "qemu") check_locations();
    // The daemon's folder is another.
    if (!request_.export_socket.empty()) {
      request_.export_socket = std::filesystem::absolute(request_.export_socket).string();
    }
    if (volume_.header.empty()) luks::check_payload_apart(file.header(), *file.device());
    const OpenedVolume opened = unlock_volume(session, file, key_, key_.unlock_options(session));
    if (via_ == "qemu") check_qemu_opens(file, opened);
    vm::Qmp qmp = qmp_.connect(session);
    if (request_.id.empty()) request_.id = vm::free_disk_id(qmp);
    if (via_ == "nbd") {
      attach_server(session, qmp, opened);
    } else {
      attach_volume(session, qmp, opened);
    }
  }

 private:
  void check_locations() const {
    for (const std::string& location : {volume_.volume, volume_.header}) {
      if (storage::scheme_of(location) == storage::Scheme::kFile) continue;
      throw Error(Code::kUnsupported,
                  fmt::format("'{}' is no file or block device, which is what QEMU opens itself",
                              printable(location, 256)),
                  "--via nbd serves it to QEMU");
    }
  }

  static void check_qemu_opens(const luks::HeaderFile& file, const OpenedVolume& opened) {
    const std::string why = vm::why_not_in_qemu(file.header(), opened.passphrase.span());
    if (!why.empty()) {
      throw Error(Code::kUnsupported,
                  fmt::format("QEMU cannot open '{}' itself: {}", file.device()->name(), why),
                  "--via nbd gives it the decrypted contents instead");
    }
  }

  void attach_volume(const Session& session, vm::Qmp& qmp, const OpenedVolume& opened) {
    request_.payload = storage::absolute_location(volume_.volume);
    if (!volume_.header.empty()) request_.header = storage::absolute_location(volume_.header);
    request_.passphrase = opened.passphrase.span();
    const vm::KeyTransfer transfer = vm::attach_disk(qmp, request_);
    say(session, {{"key_transfer", transfer_name(transfer)}});
  }

  void attach_server(const Session& session, vm::Qmp& qmp, const OpenedVolume& opened) {
    // Nobody has opened the payload yet where the header is apart.
    if (!volume_.header.empty() && !allowed_named_files().backing_keys.empty()) {
      static_cast<void>(take_backing_volume_keys());
      static_cast<void>(open_to_look(volume_.volume));
    }
    VolumeServer server(session, volume_, key_, opened.unlocked.key, take_backing_volume_keys(),
                        request_.read_only);
    server.let_in(qmp.peer_uid());
    request_.nbd_socket = server.socket();
    request_.nbd_export = server.export_name();
    try {
      vm::attach_disk(qmp, request_);
    } catch (const Error& error) {
      throw Error(error.code(), error.message() + server.last_words(), error.hint());
    }
    const OrderedJson more = {{"server", {{"pid", server.pid()}, {"socket", server.socket()}}}};
    server.let_go();
    say(session, more);
  }

  void say(const Session& session, const OrderedJson& more) const {
    OrderedJson json = {{"id", request_.id},
                        {"volume", volume_.volume},
                        {"via", via_},
                        {"read_only", request_.read_only}};
    if (!volume_.header.empty()) json["header"] = volume_.header;
    json.update(more);
    if (session.json) {
      print_json(json);
    } else if (!session.quiet) {
      print(fmt::format("attached '{}' as '{}'\n", printable(volume_.volume, 256), request_.id));
    }
  }

  QmpArgs qmp_;
  VolumeArgs volume_;
  KeyArgs key_;
  vm::DiskRequest request_;
  std::string via_ = "qemu";
};

class VmDetach final : public Command {
 public:
  void declare(Options& options) override {
    qmp_.declare(options);
    options.add({.name = "--id", .value = "ID", .help = "the disk, as 'vm list' shows it"}, id_);
    options.add({.name = "--timeout",
                 .value = "SECONDS",
                 .help = "how long the guest may take to give it up (default 30)"},
                timeout_);
  }

  void run(const Session& session) override {
    if (id_.empty()) throw Error(Code::kUsage, "--id is missing", "'vm list' shows the disks");
    const std::uint32_t seconds = timeout_.value_or(kGuestSeconds);
    if (seconds > kGuestSecondsMax) {
      throw Error(Code::kUsage, fmt::format("--timeout is at most {}", kGuestSecondsMax));
    }
    vm::Qmp qmp = qmp_.connect(session);
    const std::string server = vm::detach_disk(qmp, id_, seconds * 1000);
    if (!server.empty()) {
      warn(fmt::format(
          "the server behind '{}' has not ended: until it does, '{}' gives the volume's "
          "contents and the volume stays locked",
          id_, printable(server, 256)));
    }
    if (session.json) {
      print_json({{"id", id_}});
    } else if (!session.quiet) {
      print(fmt::format("detached '{}'\n", id_));
    }
  }

 private:
  QmpArgs qmp_;
  std::string id_;
  std::optional<std::uint32_t> timeout_;
};

class VmList final : public Command {
 public:
  void declare(Options& options) override { qmp_.declare(options); }

  void run(const Session& session) override {
    vm::Qmp qmp = qmp_.connect(session);
    OrderedJson list = OrderedJson::array();
    std::string text;
    for (const vm::AttachedDisk& disk : vm::list_disks(qmp)) {
      OrderedJson one = {{"id", disk.id},
                         {"volume", disk.payload},
                         {"via", disk.via_nbd ? "nbd" : "qemu"},
                         {"device", nullptr},
                         {"read_only", disk.read_only}};
      if (!disk.device.empty()) one["device"] = disk.device;
      if (!disk.header.empty()) one["header"] = disk.header;
      list.push_back(one);
      text += fmt::format(
          "{:<20} {:<16} {}'{}'{}{}\n", disk.id,
          disk.device.empty() ? "no device" : printable(disk.device),
          disk.via_nbd ? "via nbd " : "", printable(disk.payload, 256),
          disk.header.empty() ? "" : fmt::format(", header '{}'", printable(disk.header, 256)),
          disk.read_only ? ", read-only" : "");
    }
    show(session, {{"disks", list}}, list.empty() ? "  none\n" : text);
  }

 private:
  QmpArgs qmp_;
};

}  // namespace

std::unique_ptr<Command> make_vm_attach() { return std::make_unique<VmAttach>(); }
std::unique_ptr<Command> make_vm_detach() { return std::make_unique<VmDetach>(); }
std::unique_ptr<Command> make_vm_list() { return std::make_unique<VmList>(); }

}  // namespace lukskeep::cli
