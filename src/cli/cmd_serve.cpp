// serve: volumes to NBD clients, through nbdkit and our plugin.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/backing_keys.h"
#include "cli/command.h"
#include "cli/nbdkit_process.h"
#include "cli/serve_args.h"
#include "cli/units.h"
#include "cli/volume_access.h"
#include "luks/crypt_device.h"
#include "server/nbd/export.h"

namespace lukskeep::cli {
namespace {

constexpr std::uint32_t kThreadsMax = 64;
// Of one connection. nbdkit 1.32 aborts, with all its clients, when one vanishes while several of
// its threads have an answer for it (an assertion in raw_send_socket); clients that want more at a
// time open several connections.
constexpr std::uint32_t kThreadsDefault = 1;

// A volume whose key has been found.
struct ReadyVolume {
  ServedVolume asked;
  bool read_only = false;
  std::uint64_t size_bytes = 0;
  int key_fd = -1;
  std::vector<int> backing_key_fds;
};

std::string absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.string();
}

class ServeCommand final : public Command {
 public:
  void declare(Options& options) override {
    options.optional_positional({.name = "VOLUME", .help = "the volume: a file or block device"},
                                volume_.volume);
    declare_header(options, volume_.header);
    volume_.policy.declare(options);
    key_.declare(options);
    options.add_each({.name = "--export",
                      .value = "NAME=VOLUME",
                      .help = "serve one more volume, under a name: "
                              "NAME=VOLUME[,header=FILE][,read-only][,key=SOURCE]"},
                     [this](const std::string& value) { exports_.push_back(parse_export(value)); });
    options.flag({.name = "--read-only", .help = "clients cannot write"}, read_only_);
    options.add({.name = "--discard",
                 .value = "MODE",
                 .help = "off: trimming does nothing (default); on: trimmed blocks are given back "
                         "and read as anything; zeroes: they read as zeroes, through lukskeep only",
                 .choices = {"off", "on", "zeroes"}},
                discard_);
    address_.declare(options);
    options.add({.name = "--run",
                 .value = "COMMAND",
                 .help = "run a shell command with the server's address in $uri, and end with it"},
                run_);
    options.flag({.name = "--exit-with-last", .help = "end when the last client has gone"},
                 exit_with_last_);
    options.flag({.name = "--system-log",
                  .help = "messages go to the system log too, once clients can connect"},
                 system_log_);
    options.add({.name = "--threads",
                 .value = "N",
                 .help = "requests of one connection at a time (default 1)"},
                threads_);
    options.add({.name = "--connections",
                 .value = "N",
                 .help = "connections at a time; more are refused (default 256)"},
                connections_);
  }

  void run(const Session& session) override {
    check_usage(session);
    const Activation activation = check_addresses();
    const std::string nbdkit = find_nbdkit();
    const std::string plugin = find_nbdkit_plugin();
    std::vector<ReadyVolume> volumes;
    for (const ServedVolume& asked : all_volumes()) volumes.push_back(unlock(session, asked));
    session.cancel->check();

    const ServeAddress address = choose_address(activation);
    std::vector<std::string> arguments = server_arguments(address, activation);
    arguments.push_back(plugin);
    add_plugin_arguments(volumes, arguments);
    const std::string text = run_ ? std::string() : announcement(session, address, volumes);
    // A descriptor of its own: nbdkit closes standard output.
    if (!text.empty()) arguments.push_back(fmt::format("announce={}:{}", dup(STDOUT_FILENO), text));
    if (!address.socket.empty()) arguments.push_back("remove-socket=" + address.socket);
    become(nbdkit, std::move(arguments));
  }

 private:
  void check_usage(const Session& session) const {
    if (volume_.volume.empty() && exports_.empty()) {
      throw Error(Code::kUsage, "VOLUME is missing", "name it, or volumes with --export");
    }
    if (volume_.volume.empty() && !volume_.header.empty()) {
      throw Error(Code::kUsage, "--header goes with VOLUME", "--export has header=FILE");
    }
    if (exports_.size() + (volume_.volume.empty() ? 0 : 1) > limits::kServeExportsMax) {
      throw Error(Code::kUsage,
                  fmt::format("more than {} volumes are named", limits::kServeExportsMax));
    }
    std::set<std::string> names;
    for (const ServedVolume& volume : exports_) {
      if (names.insert(volume.name).second) continue;
      throw Error(Code::kUsage, fmt::format("two volumes are called '{}'", printable(volume.name)));
    }
    if (run_ && session.json) {
      throw Error(Code::kUsage, "--json and --run both want standard output");
    }
    if (threads_.value_or(1) == 0 || threads_.value_or(1) > kThreadsMax) {
      throw Error(Code::kUsage, fmt::format("--threads is from 1 to {}", kThreadsMax));
    }
    if (connections_.value_or(1) == 0 || connections_.value_or(1) > limits::kServeConnectionsMax) {
      throw Error(Code::kUsage,
                  fmt::format("--connections is from 1 to {}", limits::kServeConnectionsMax));
    }
  }

  Activation check_addresses() const {
    address_.check();
    if (address_.listen) static_cast<void>(parse_listen(*address_.listen));
    if (address_.socket || address_.listen || run_) {
      forget_socket_activation();
      return {};
    }
    const Activation activation = socket_activation();
    if (activation.tcp && !address_.tls() && !address_.insecure) {
      throw Error(Code::kUnsafe,
                  "a TCP socket of the service manager would show the decrypted contents to the "
                  "network",
                  "add --tls-certificates DIR or --tls-psk FILE; --insecure does it all the same");
    }
    return activation;
  }

  std::vector<ServedVolume> all_volumes() const {
    std::vector<ServedVolume> volumes = exports_;
    if (!volume_.volume.empty()) {
      volumes.insert(volumes.begin(), {.path = volume_.volume, .header = volume_.header});
    }
    return volumes;
  }

  // Everything that can be wrong with a volume is said here, in this program's words; the plugin
  // tries the same again.
  ReadyVolume unlock(const Session& session, const ServedVolume& asked) const {
    ReadyVolume ready{.asked = asked, .read_only = read_only_ || asked.read_only};
    const VolumeArgs where{.volume = asked.path, .header = asked.header, .policy = volume_.policy};
    const luks::HeaderFile file = open_header_unlocked(where);
    KeyArgs key = key_;
    if (!asked.key.empty()) key.key = asked.key;
    if (asked.header.empty()) luks::check_payload_apart(file.header(), *file.device());
    if (!take_backing_volume_keys().empty() && !asked.header.empty()) {
      throw Error(Code::kUnsupported,
                  fmt::format("the header '{}' is in an image over encrypted backing files",
                              printable(asked.header, 256)),
                  "copy it into a file of its own with 'lukskeep header backup'");
    }
    // Waiting for a passphrase takes time: whether the volume is to be had is known before.
    const auto access = ready.read_only ? storage::Access::kRead : storage::Access::kReadWrite;
    const std::shared_ptr<Device> payload =
        server::open_payload(asked.path, open_options(access), file.header());
    for (const SecretBytes& backing_key : take_backing_volume_keys()) {
      ready.backing_key_fds.push_back(pass_by_descriptor(backing_key));
    }
    const OpenedVolume opened = unlock_volume(session, file, key, key.unlock_options(session));
    const auto plain = luks::make_crypt_device(file.header(), payload, opened.unlocked.key.span(),
                                               {.allow_insecure = key.allow_insecure});
    ready.size_bytes = plain->size_bytes();
    if (ready.size_bytes == 0) {
      throw Error(Code::kTooSmall, fmt::format("'{}' ends before its payload", payload->name()));
    }
    ready.key_fd = pass_by_descriptor(opened.unlocked.key);
    return ready;
  }

  ServeAddress choose_address(const Activation& activation) const {
    ServeAddress address{.tls = address_.tls()};
    if (address_.listen) {
      address.tcp = parse_listen(*address_.listen);
    } else if (address_.socket) {
      address.socket = absolute(*address_.socket);
      clear_socket(address.socket);
    } else if (!run_ && activation.sockets == 0) {
      address.socket = make_private_folder() + "/nbd.sock";
    }
    return address;
  }

  std::vector<std::string> server_arguments(const ServeAddress& address,
                                            const Activation& activation) const {
    std::vector<std::string> arguments = {"-f"};
    const auto add = [&](std::initializer_list<std::string> words) {
      arguments.insert(arguments.end(), words);
    };
    if (address.tcp) {
      add({"-i", address.tcp->address, "-p", std::to_string(address.tcp->port)});
    } else if (activation.sockets == 0) {
      // nbdkit makes and removes a private socket where it runs a command.
      add({"-U", address.socket.empty() ? "-" : address.socket});
    }
    add({address.tls ? "--tls=require" : "--tls=off"});
    if (address_.tls_certificates) add({"--tls-certificates=" + *address_.tls_certificates});
    if (address_.tls_psk) add({"--tls-psk=" + *address_.tls_psk});
    if (address_.tls_verify_peer) add({"--tls-verify-peer"});
    add({"-t", std::to_string(threads_.value_or(kThreadsDefault))});
    if (exit_with_last_) add({"--filter=exitlast"});
    if (run_) add({"--run", *run_});
    return arguments;
  }

  void add_plugin_arguments(const std::vector<ReadyVolume>& volumes,
                            std::vector<std::string>& arguments) const {
    if (connections_) arguments.push_back(fmt::format("connections={}", *connections_));
    if (system_log_) arguments.emplace_back("system-log=true");
    for (const ReadyVolume& volume : volumes) {
      // One volume without a name needs none; among others it is the one called "".
      if (volumes.size() > 1 || !volume.asked.name.empty()) {
        arguments.push_back("export=" + volume.asked.name);
      }
      arguments.push_back("file=" + volume.asked.path);
      if (!volume.asked.header.empty()) arguments.push_back("header=" + volume.asked.header);
      arguments.push_back(fmt::format("volume-key-fd={}", volume.key_fd));
      arguments.push_back(fmt::format("readonly={}", volume.read_only));
      arguments.push_back("discard=" + discard_);
      if (key_.allow_insecure) arguments.emplace_back("allow-insecure=true");
      if (allowed_named_files().backing) arguments.emplace_back("allow-backing=true");
      if (allowed_named_files().data_file) arguments.emplace_back("allow-data-file=true");
      for (const int fd : volume.backing_key_fds) {
        arguments.push_back(fmt::format("backing-volume-key-fd={}", fd));
      }
    }
  }

  // What is printed when clients can connect: one line, for programs too.
  std::string announcement(const Session& session, const ServeAddress& address,
                           const std::vector<ReadyVolume>& volumes) const {
    const bool reachable = address.tcp || !address.socket.empty();
    if (!session.json) {
      std::string text;
      for (const ReadyVolume& volume : volumes) {
        if (session.quiet || !reachable) break;
        text += (text.empty() ? "" : "\n") + address.uri(volume.asked.name);
      }
      return text;
    }
    OrderedJson json = {{"event", "ready"}, {"pid", getpid()}, {"tls", address.tls}};
    if (!address.socket.empty()) json["socket"] = address.socket;
    if (address.tcp) json["listen"] = address.tcp->text();
    json["exports"] = OrderedJson::array();
    for (const ReadyVolume& volume : volumes) {
      OrderedJson one = {{"name", volume.asked.name},
                         {"volume", volume.asked.path},
                         {"size", volume.size_bytes},
                         {"read_only", volume.read_only},
                         {"discard", discard_}};
      if (reachable) one["uri"] = address.uri(volume.asked.name);
      json["exports"].push_back(one);
    }
    return json.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
  }

  VolumeArgs volume_;
  KeyArgs key_;
  std::vector<ServedVolume> exports_;
  ServeAddressArgs address_;
  std::string discard_ = "off";
  std::optional<std::string> run_;
  std::optional<std::uint32_t> threads_;
  std::optional<std::uint32_t> connections_;
  bool read_only_ = false;
  bool exit_with_last_ = false;
  bool system_log_ = false;
};

}  // namespace

std::unique_ptr<Command> make_serve() { return std::make_unique<ServeCommand>(); }

}  // namespace lukskeep::cli
