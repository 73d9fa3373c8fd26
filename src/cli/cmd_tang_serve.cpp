// tang serve.
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/tang_args.h"
#include "cli/units.h"
#include "net/http_server.h"
#include "net/service_notify.h"
#include "server/tang_service.h"

namespace lukskeep::cli {
namespace {

constexpr const char* kListenDefault = "*:9090";  // tangd's
constexpr int kFirstInherited = 3;                // sd_listen_fds(3)
constexpr int kInheritedMax = 64;

// Sockets that the service manager has opened for this process.
std::vector<int> inherited_sockets() {
  const char* process = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  std::vector<int> sockets;
  if (process == nullptr || count == nullptr || std::to_string(getpid()) != process) return sockets;
  const auto number = static_cast<int>(std::strtol(count, nullptr, 10));
  if (number < 0 || number > kInheritedMax) {
    throw Error(Code::kUsage, "LISTEN_FDS is out of range");
  }
  for (int i = 0; i < number; ++i) sockets.push_back(kFirstInherited + i);
  return sockets;
}

// Another thread's work, ended and waited for however the block is left.
class Companion {
 public:
  template <typename Work>
  explicit Companion(const Work& work) : thread_([this, work] { work(stop_); }) {}
  ~Companion() {
    stop_.cancel();
    thread_.join();
  }
  Companion(const Companion&) = delete;
  Companion& operator=(const Companion&) = delete;

 private:
  CancelToken stop_;
  std::thread thread_;
};

class TangServe final : public Command {
 public:
  void declare(Options& options) override {
    options.add_each({.name = "--listen",
                      .value = "ADDR:PORT",
                      .help = "where to listen, may be repeated (default: *:9090, or the sockets "
                              "of the service manager)"},
                     listen_);
    keys_.declare(options);
    options.add(
        {.name = "--endpoint", .value = "PATH", .help = "in front of /adv and /rec, as tangd -e"},
        endpoint_);
    options.flag({.name = "--inetd",
                  .help = "serve the one connection on standard input and output, as tangd"},
                 inetd_);
    options.heading("Who may use it");
    options.add({.name = "--access",
                 .value = "FILE",
                 .help = "rules: lines of 'allow WHAT' and 'deny WHAT'; followed as they change"},
                access_);
    options.add({.name = "--rate-limit",
                 .value = "N",
                 .help = "requests of one client a second, beyond them 429 (default: no limit)"},
                rate_);
    options.add(
        {.name = "--connections", .value = "N", .help = "at once, beyond them 503 (default: 4096)"},
        connections_);
    options.heading("TLS");
    options.add({.name = "--tls-certificate", .value = "FILE", .help = "PEM, with its chain"},
                certificate_);
    options.add({.name = "--tls-key", .value = "FILE", .help = "the certificate's key, PEM"},
                tls_key_);
    options.add({.name = "--client-ca",
                 .value = "FILE",
                 .help = "only clients with a certificate of these, PEM"},
                client_ca_);
    options.heading("Records");
    usage_.declare(options);
    options.add({.name = "--access-log",
                 .value = "FILE",
                 .help = "a line for each request; '-' is standard error (default: none)"},
                access_log_);
    options.add({.name = "--threads", .value = "N", .help = "(default: one for each CPU)"},
                threads_);
  }

  void run(const Session& session) override {
    const net::HttpServerOptions options = server_options();
    // As tangd: a server without keys makes them. Several that start at once make one pair.
    const auto made = keys_.folder().generate(nbde::Curve::kP521, true);
    if (!made.empty() && !session.quiet && !inetd_) {
      warn(fmt::format(
          "'{}' had no {}", printable(keys_.path, 256),
          made.size() > 1 ? "keys: a new pair was made" : "signing key: a new one was made"));
    }
    server::TangService service({.key_folder = keys_.path,
                                 .endpoint = endpoint_,
                                 .access_file = access_,
                                 .usage_file = usage_.chosen(keys_),
                                 .usage_required = usage_.file.has_value(),
                                 .access_log = access_log_,
                                 .rate_per_second = rate_.value_or(0),
                                 .warn = [](const std::string& text) { warn(text); }});
    const net::HttpHandler handler = [&service](const net::HttpServerRequest& request) {
      return service.handle(request);
    };
    if (inetd_) {
      return net::serve_http_stream(STDIN_FILENO, STDOUT_FILENO, options, handler, *session.cancel);
    }
    net::HttpServer server(options, handler);
    tell_addresses(session, server.addresses());
    const Companion watcher([&service](const CancelToken& stop) { service.watch(stop); });
    net::notify_service_manager("READY=1");
    server.run(*session.cancel);
    net::notify_service_manager("STOPPING=1");
  }

 private:
  net::HttpServerOptions server_options() const {
    if (certificate_.has_value() != tls_key_.has_value()) {
      throw Error(Code::kUsage, "--tls-certificate and --tls-key go together");
    }
    if (client_ca_ && !certificate_) {
      throw Error(Code::kUsage, "--client-ca wants --tls-certificate");
    }
    if (inetd_ && certificate_) {
      throw Error(Code::kUsage, "--inetd serves no TLS",
                  "without --inetd it does; systemd's socket units want Accept=no then");
    }
    net::HttpServerOptions options{.listen = listen_, .threads = threads_.value_or(0)};
    if (!inetd_) options.inherited = inherited_sockets();
    if (options.listen.empty() && options.inherited.empty()) options.listen = {kListenDefault};
    if (connections_) options.connections_max = *connections_;
    if (certificate_) {
      options.tls = {.certificate_file = *certificate_,
                     .key_file = *tls_key_,
                     .client_ca_file = client_ca_.value_or("")};
    }
    return options;
  }

  static void tell_addresses(const Session& session, const std::vector<std::string>& addresses) {
    if (session.json) {
      print(OrderedJson{{"event", "listening"}, {"addresses", addresses}}.dump() + "\n");
    } else if (!session.quiet) {
      print(fmt::format("listening on {}\n", fmt::join(addresses, ", ")));
    }
  }

  std::vector<std::string> listen_;
  KeyFolderArgs keys_;
  UsageArgs usage_;
  std::string endpoint_;
  bool inetd_ = false;
  std::optional<std::string> access_;
  std::optional<std::string> access_log_;
  std::optional<std::string> certificate_;
  std::optional<std::string> tls_key_;
  std::optional<std::string> client_ca_;
  std::optional<std::uint32_t> rate_;
  std::optional<std::uint32_t> connections_;
  std::optional<std::uint32_t> threads_;
};

}  // namespace

std::unique_ptr<Command> make_tang_serve() { return std::make_unique<TangServe>(); }

}  // namespace lukskeep::cli
