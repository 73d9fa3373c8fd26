// vm xml, define: volumes for libvirt.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <sys/stat.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/uuid.h"
#include "cli/child_process.h"
#include "cli/command.h"
#include "cli/volume_access.h"
#include "keys/secret_text.h"
#include "storage/memory_file.h"
#include "storage/rbd_device.h"
#include "storage/request.h"
#include "vm/disk.h"
#include "vm/libvirt_xml.h"
#include "vm/qemu_key.h"

namespace lukskeep::cli {
namespace {

constexpr std::chrono::seconds kVirshTime{60};
constexpr std::size_t kWordsMax = 512;  // of virsh, in a message

// A path for XML that is kept: symbolic links stay, because /dev/disk/by-id/ID names the same disk
// after the next start of the machine, and the /dev/sdb it leads to now may be another.
std::string lasting_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(path, error);
  if (error) {
    storage::throw_errno(error.value(),
                         fmt::format("cannot tell where '{}' is", printable(path, 256)));
  }
  std::filesystem::path lasting;
  for (const std::filesystem::path& part : whole) {
    if (part != ".") lasting /= part;
  }
  return lasting.string();
}

bool is_block_device(const std::string& path) {
  struct stat status{};
  return stat(path.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
}

// The volume, and what its secret is called.
struct LibvirtArgs {
  VolumeArgs volume;
  std::string uuid;
  std::string usage;
  bool persistent = false;

  void declare(Options& options) {
    options.add({.name = "--volume", .value = "PAYLOAD", .help = "the volume"}, volume.volume);
    declare_header(options, volume.header);
    volume.policy.declare(options);
    options.add({.name = "--secret-uuid",
                 .value = "UUID",
                 .help = "of libvirt's secret (default: the UUID in the header)"},
                uuid);
    options.add({.name = "--usage",
                 .value = "TEXT",
                 .help = "what the secret is for (default: where the volume is)"},
                usage);
    options.flag({.name = "--persistent",
                  .help = "libvirtd keeps the passphrase on its disk, not in memory only"},
                 persistent);
  }

  luks::HeaderFile open() const {
    if (volume.volume.empty()) throw Error(Code::kUsage, "--volume is missing");
    return open_header_unlocked(volume);
  }

  vm::LibvirtSecret secret(const luks::Header& header) const {
    vm::LibvirtSecret named{
        .uuid = uuid.empty() ? header.uuid : uuid, .usage = usage, .persistent = persistent};
    if (named.usage.empty()) {
      named.usage = storage::scheme_of(volume.volume) == storage::Scheme::kFile
                        ? lasting_path(volume.volume)
                        : storage::absolute_location(volume.volume);
    }
    if (is_uuid(named.uuid)) return named;
    throw Error(Code::kUsage, fmt::format("'{}' is no UUID", printable(named.uuid)),
                "name one with --secret-uuid");
  }
};

std::string format_of(const luks::Header& header) {
  return header.version == luks::Version::kLuks1 ? "luks" : "luks2";
}

class VmXml final : public Command {
 public:
  void declare(Options& options) override {
    args_.declare(options);
    options.add({.name = "--part",
                 .value = "PART",
                 .help = "print this part only",
                 .choices = {"secret", "disk", "commandline"}},
                part_);
    options.add({.name = "--engine",
                 .value = "ENGINE",
                 .help = "who decrypts: qemu (default) or librbd, for images in Ceph",
                 .choices = {"qemu", "librbd"}},
                engine_);
    options.add({.name = "--nbd-socket",
                 .value = "PATH",
                 .help = "instead: 'lukskeep serve' decrypts, and listens on PATH"},
                disk_.nbd_socket);
    options.add({.name = "--target",
                 .value = "NAME",
                 .help = "what the guest's disk is called (default vdb)"},
                disk_.target);
    options.add({.name = "--bus", .value = "BUS", .help = "virtio (default), scsi, sata ..."},
                disk_.bus);
    options.add({.name = "--serial", .value = "TEXT", .help = "the serial number the guest sees"},
                disk_.serial);
    options.flag({.name = "--read-only", .help = "the guest cannot write"}, disk_.read_only);
    options.add_each({.name = "--rbd-host",
                      .value = "HOST",
                      .help = "a monitor of the Ceph cluster: HOST or HOST:PORT"},
                     disk_.rbd_hosts);
    options.add({.name = "--rbd-user", .value = "NAME", .help = "the user of the Ceph cluster"},
                disk_.rbd_user);
    options.add(
        {.name = "--rbd-secret", .value = "UUID", .help = "libvirt's secret with that user's key"},
        disk_.rbd_user_secret);
    options.add({.name = "--id",
                 .value = "ID",
                 .help = "with --header: what the disk is called (default lukskeep0)"},
                commandline_.id);
    options.add({.name = "--secret-file",
                 .value = "FILE",
                 .help = "with --header: where QEMU finds the passphrase"},
                commandline_.key_file);
  }

  void run(const Session& session) override {
    if (disk_.rbd_user.empty() != disk_.rbd_user_secret.empty()) {
      throw Error(Code::kUsage, "--rbd-user and --rbd-secret go together");
    }
    std::vector<std::pair<std::string, std::string>> parts;
    if (!disk_.nbd_socket.empty()) {
      if (args_.volume.volume.empty()) throw Error(Code::kUsage, "--volume is missing");
      disk_.nbd_socket = lasting_path(disk_.nbd_socket);
      parts = {{"disk", disk_xml(disk_)}};
    } else {
      const luks::HeaderFile file = args_.open();
      parts = args_.volume.header.empty() ? attached(file) : detached(file);
    }
    OrderedJson json;
    std::string text;
    for (const auto& [name, xml] : parts) {
      if (part_ && *part_ != name) continue;
      json[name] = xml;
      text += xml;
    }
    if (text.empty()) {
      throw Error(Code::kUsage,
                  fmt::format("this volume has no part '{}' in XML", part_.value_or("")));
    }
    show(session, json, text);
  }

 private:
  using Parts = std::vector<std::pair<std::string, std::string>>;

  Parts attached(const luks::HeaderFile& file) {
    const luks::Header& header = file.header();
    const vm::LibvirtSecret secret = args_.secret(header);
    disk_.format = format_of(header);
    disk_.engine = engine_.value_or("");
    disk_.secret_uuid = secret.uuid;
    find_source();
    const bool librbd = disk_.engine == "librbd";
    if (librbd && disk_.rbd_image.empty()) {
      throw Error(Code::kUsage, "--engine librbd is for images in Ceph: rbd:POOL/IMAGE");
    }
    // Any passphrase will do for the question.
    const std::string why = librbd ? std::string() : vm::why_not_in_qemu(header, as_byte_view("x"));
    if (!why.empty()) {
      throw Error(Code::kUnsupported,
                  fmt::format("QEMU cannot open '{}' itself: {}", file.device()->name(), why),
                  disk_.rbd_image.empty() ? "serve it with 'lukskeep serve', and name --nbd-socket"
                                          : "--engine librbd decrypts in Ceph's library instead");
    }
    return {{"secret", secret_xml(secret)}, {"disk", disk_xml(disk_)}};
  }

  void find_source() {
    const std::string& location = args_.volume.volume;
    switch (storage::scheme_of(location)) {
      case storage::Scheme::kFile:
        disk_.path = lasting_path(location);
        disk_.block_device = is_block_device(disk_.path);
        return;
      case storage::Scheme::kRbd: {
        const storage::RbdName name = storage::parse_rbd_name(location);
        if (!name.name_space.empty()) {
          disk_.rbd_image = fmt::format("{}/{}/{}", name.pool, name.name_space, name.image);
        } else {
          disk_.rbd_image = fmt::format("{}/{}", name.pool, name.image);
        }
        disk_.rbd_snapshot = name.snapshot;
        return;
      }
      case storage::Scheme::kNbd:
      case storage::Scheme::kQcow2:
        break;
    }
    throw Error(
        Code::kUnsupported,
        fmt::format("'{}' is neither a file nor an image in Ceph", printable(location, 256)),
        "serve it with 'lukskeep serve', and name --nbd-socket");
  }

  Parts detached(const luks::HeaderFile& file) {
    for (const std::string& location : {args_.volume.volume, args_.volume.header}) {
      if (storage::scheme_of(location) == storage::Scheme::kFile) continue;
      throw Error(Code::kUnsupported,
                  fmt::format("'{}' is no file or block device", printable(location, 256)),
                  "serve the volume with 'lukskeep serve', and name --nbd-socket");
    }
    const std::string why = vm::why_not_in_qemu(file.header(), as_byte_view("x"));
    if (!why.empty()) {
      throw Error(Code::kUnsupported,
                  fmt::format("QEMU cannot open '{}' itself: {}", file.device()->name(), why),
                  "serve it with 'lukskeep serve', and name --nbd-socket");
    }
    if (commandline_.key_file.empty()) {
      throw Error(Code::kUsage,
                  "libvirt has no element for a detached header: QEMU has to read the passphrase "
                  "itself",
                  "name a file that only QEMU may read with --secret-file");
    }
    if (commandline_.id.empty()) commandline_.id = "lukskeep0";
    vm::check_disk_id(commandline_.id);
    commandline_.payload = lasting_path(args_.volume.volume);
    commandline_.payload_device = is_block_device(commandline_.payload);
    commandline_.header = lasting_path(args_.volume.header);
    commandline_.header_device = is_block_device(commandline_.header);
    commandline_.key_file = lasting_path(commandline_.key_file);
    commandline_.read_only = disk_.read_only;
    return {{"commandline", commandline_xml(commandline_)}};
  }

  LibvirtArgs args_;
  vm::LibvirtDisk disk_;
  vm::LibvirtCommandline commandline_;
  std::optional<std::string> engine_;
  std::optional<std::string> part_;
};

class VmDefine final : public Command {
 public:
  void declare(Options& options) override {
    args_.declare(options);
    key_.declare(options);
    options.add({.name = "--connect",
                 .value = "URI",
                 .help = "the libvirtd, e.g. qemu:///system (default: virsh's)"},
                connect_);
  }

  void run(const Session& session) override {
    const luks::HeaderFile file = args_.open();
    const vm::LibvirtSecret secret = args_.secret(file.header());
    const std::string xml = secret_xml(secret);
    const OpenedVolume opened = unlock_volume(session, file, key_, key_.unlock_options(session));
    const SecretBytes& passphrase = opened.passphrase;
    const std::string_view text = as_string_view(passphrase.span());
    if (passphrase.empty() || !is_utf8(text) || text.find('\0') != std::string_view::npos) {
      throw Error(Code::kUnsupported,
                  passphrase.empty() ? "libvirt wants a passphrase, not a volume key"
                                     : "the passphrase is not UTF-8 text, and QEMU takes no other",
                  "add one with 'lukskeep key add'");
    }
    define(session, secret.uuid, as_byte_view(xml), passphrase);
    const OrderedJson json = {{"volume", args_.volume.volume},
                              {"secret_uuid", secret.uuid},
                              {"usage", secret.usage},
                              {"persistent", secret.persistent}};
    if (session.json) {
      print_json(json);
    } else if (!session.quiet) {
      print(fmt::format("libvirt has the passphrase of '{}' as secret {}\n",
                        printable(args_.volume.volume, 256), secret.uuid));
    }
  }

 private:
  // What virsh says goes into the message: it never has the value.
  std::string virsh(const CancelToken* cancel, std::vector<std::string> words,
                    ByteView input) const {
    if (!connect_.empty()) words.insert(words.begin(), {"--connect", connect_});
    words.insert(words.begin(), "--quiet");
    const storage::UniqueFd stdin_file = storage::memory_file(input);
    ChildProcess child({.program = "virsh", .arguments = words, .stdin_fd = stdin_file.get()});
    child.read_output(false, kVirshTime, cancel);
    std::string_view said = child.errors();
    while (said.ends_with('\n')) said.remove_suffix(1);
    std::string errors = printable(said, kWordsMax);
    const int status = child.wait();
    if (status == 127) {
      throw Error(Code::kNotFound, "virsh is not installed, and it is what talks to libvirtd",
                  "apt-get install libvirt-clients");
    }
    return status == 0 ? std::string() : errors.empty() ? fmt::format("status {}", status) : errors;
  }

  void define(const Session& session, const std::string& uuid, ByteView xml,
              const SecretBytes& passphrase) const {
    const bool was_there = virsh(session.cancel, {"secret-dumpxml", uuid}, {}).empty();
    // A secret without a value is of no use; one that was there keeps the one it had.
    const auto take_back = [&] {
      if (!was_there) undefine(uuid);
    };
    const auto change = [&](const std::vector<std::string>& words, ByteView input) {
      try {
        return virsh(session.cancel, words, input);
      } catch (const Error&) {
        take_back();
        throw;
      }
    };
    std::string failure = change({"secret-define", "/dev/stdin"}, xml);
    if (!failure.empty()) {
      throw Error(Code::kRemote,
                  fmt::format("libvirt does not define secret {}: {}", uuid, failure));
    }
    const SecretBytes value = keys::secret_base64(passphrase.span());
    failure = change({"secret-set-value", uuid, "--file", "/dev/stdin"}, value.span());
    if (failure.empty()) return;
    take_back();
    throw Error(Code::kRemote,
                fmt::format("libvirt does not take the value of secret {}: {}", uuid, failure));
  }

  // A signal, which may be why, does not end this. What failed before is what is said.
  void undefine(const std::string& uuid) const {
    try {
      virsh(nullptr, {"secret-undefine", uuid}, {});
    } catch (const Error&) {
      return;
    }
  }

  LibvirtArgs args_;
  KeyArgs key_;
  std::string connect_;
};

}  // namespace

std::unique_ptr<Command> make_vm_xml() { return std::make_unique<VmXml>(); }
std::unique_ptr<Command> make_vm_define() { return std::make_unique<VmDefine>(); }

}  // namespace lukskeep::cli
