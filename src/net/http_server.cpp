#include "net/http_server.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <list>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/parallel_for.h"
#include "net/listen.h"

namespace lukskeep::net {
namespace {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;
using Protocol = asio::generic::stream_protocol;
using PlainSocket = asio::basic_stream_socket<Protocol, asio::io_context::executor_type>;
using TlsSocket = asio::ssl::stream<PlainSocket>;

constexpr Milliseconds kSweep{100};
constexpr int kAcceptWaitMs = 100;
constexpr unsigned kRetrySeconds = 2;
constexpr unsigned kThreadsMax = 256;
// Beyond the limit, until idle connections have made room for them.
constexpr std::size_t kNewcomersMax = 64;

struct Counters {
  std::atomic<std::uint64_t> accepted{0};
  std::atomic<std::uint64_t> refused{0};
  std::atomic<std::uint64_t> timed_out{0};
  std::atomic<std::size_t> open{0};
};

class Session;

// One thread with the connections that are its own: no locks.
struct Worker {
  std::list<Session*> sessions;
  std::atomic<std::size_t> load{0};
  // Its queue holds what is left of the sessions, so it goes before them.
  asio::io_context context{1};
  asio::steady_timer sweeper{context};
  Clock::time_point now = Clock::now();
  bool draining = false;
  std::thread thread;
};

// What the sessions share.
struct Shared {
  HttpServerOptions options;
  HttpHandler handler;
  Counters counters;
  std::unique_ptr<asio::ssl::context> tls;
};

// A connection as the sweeper sees it.
class Session {
 public:
  Session(Worker& worker, Shared& shared)
      : worker_(worker), shared_(shared), conversation_(shared.options.limits, shared.handler) {
    place_ = worker.sessions.insert(worker.sessions.end(), this);
    allow(shared.options.header_ms);
  }
  virtual ~Session() {
    worker_.sessions.erase(place_);
    worker_.load.fetch_sub(1, std::memory_order_relaxed);
    shared_.counters.open.fetch_sub(1, std::memory_order_relaxed);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Closes the socket: what waits for it ends, and with that the session.
  virtual void cut() = 0;

  void sweep(Clock::time_point now) {
    if (now < deadline_) return;
    if (conversation_.phase() != HttpConversation::Phase::kIdle) {
      shared_.counters.timed_out.fetch_add(1, std::memory_order_relaxed);
    }
    cut();
  }

  void drain() {
    conversation_.close_soon();
    const bool waiting = reading_ && conversation_.phase() == HttpConversation::Phase::kIdle;
    if (waiting) cut();
  }

  // Until when it waits for another request: the longer it has, the earlier. Absent if it does not.
  std::optional<Clock::time_point> idle_until() const {
    const bool idle = reading_ && answered_ && !gives_way_ &&
                      conversation_.phase() == HttpConversation::Phase::kIdle;
    return idle ? std::optional(deadline_) : std::nullopt;
  }

  void give_way() {
    gives_way_ = true;
    cut();
  }

 protected:
  void allow(std::uint32_t milliseconds) { deadline_ = worker_.now + Milliseconds(milliseconds); }

  // The time for a phase runs from its start: who sends a byte now and then does not gain any, nor
  // who sends empty lines between requests.
  void allow_reading() {
    using Phase = HttpConversation::Phase;
    const Phase phase = conversation_.phase();
    if (phase <= phase_ && !fresh_) return;
    fresh_ = false;
    phase_ = phase;
    switch (phase) {
      case Phase::kIdle:
        allow(answered_ ? shared_.options.idle_ms : shared_.options.header_ms);
        break;
      case Phase::kHeader:
        allow(shared_.options.header_ms);
        break;
      case Phase::kBody:
        allow(shared_.options.body_ms);
        break;
    }
  }

  Worker& worker_;
  Shared& shared_;
  HttpConversation conversation_;
  bool reading_ = false;
  bool answered_ = false;
  bool fresh_ = true;  // an answer was sent since the time was set

 private:
  bool gives_way_ = false;
  std::list<Session*>::iterator place_;
  Clock::time_point deadline_;
  HttpConversation::Phase phase_ = HttpConversation::Phase::kIdle;
};

std::string hex_digest(X509* certificate) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest.data(), &size) != 1) return {};
  return to_hex(std::as_bytes(std::span(digest)).first(size));
}

std::string subject_of(X509* certificate) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
  if (!out ||
      X509_NAME_print_ex(out.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) < 0) {
    return {};
  }
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

template <typename Stream>
class StreamSession final : public Session,
                            public std::enable_shared_from_this<StreamSession<Stream>> {
 public:
  StreamSession(Worker& worker, Shared& shared, PlainSocket socket)
      : Session(worker, shared), stream_(make_stream(std::move(socket), shared)) {
    conversation_.peer() = peer_of(lowest().native_handle());
  }

  void start() {
    if constexpr (std::is_same_v<Stream, TlsSocket>) {
      stream_.async_handshake(asio::ssl::stream_base::server,
                              [self = this->shared_from_this()](const ErrorCode& error) {
                                if (error) return;
                                self->note_certificate();
                                self->read();
                              });
    } else {
      read();
    }
  }

  void cut() override {
    ErrorCode ignored;
    lowest().close(ignored);
  }

 private:
  static Stream make_stream(PlainSocket socket, Shared& shared) {
    if constexpr (std::is_same_v<Stream, TlsSocket>) {
      return Stream(std::move(socket), *shared.tls);
    } else {
      static_cast<void>(shared);
      return socket;
    }
  }

  PlainSocket& lowest() {
    if constexpr (std::is_same_v<Stream, TlsSocket>) {
      return stream_.next_layer();
    } else {
      return stream_;
    }
  }

  void note_certificate() {
    if constexpr (std::is_same_v<Stream, TlsSocket>) {
      const std::unique_ptr<X509, decltype(&X509_free)> certificate(
          SSL_get1_peer_certificate(stream_.native_handle()), X509_free);
      if (!certificate) return;
      conversation_.peer().certificate_sha256 = hex_digest(certificate.get());
      conversation_.peer().certificate_subject = subject_of(certificate.get());
    }
  }

  void read() {
    allow_reading();
    reading_ = true;
    stream_.async_read_some(asio::buffer(input_), [self = this->shared_from_this()](
                                                      const ErrorCode& error, std::size_t size) {
      self->reading_ = false;
      if (error) return;
      self->conversation_.receive(std::as_bytes(std::span(self->input_)).first(size));
      self->answer();
    });
  }

  void answer() {
    output_.clear();
    conversation_.answer(output_);
    if (output_.empty()) return read();
    allow(shared_.options.write_ms);
    asio::async_write(stream_, asio::buffer(output_),
                      [self = this->shared_from_this()](const ErrorCode& error, std::size_t) {
                        if (error) return;
                        self->sent();
                      });
  }

  void sent() {
    answered_ = true;
    fresh_ = true;
    if (conversation_.closing()) return finish();
    if (conversation_.wants_input()) return read();
    // Others of this thread have their turn before the next requests of this one.
    asio::post(worker_.context, [self = this->shared_from_this()] { self->answer(); });
  }

  // Says that nothing follows, and reads what the client still sends: closing at once would make
  // the system throw away an answer that the client has not read yet.
  void finish() {
    allow(shared_.options.header_ms);
    ErrorCode ignored;
    if constexpr (std::is_same_v<Stream, TlsSocket>) {
      stream_.async_shutdown([self = this->shared_from_this()](const ErrorCode&) {});
    } else {
      stream_.shutdown(PlainSocket::shutdown_send, ignored);
      swallow();
    }
  }

  void swallow() {
    stream_.async_read_some(asio::buffer(input_),
                            [self = this->shared_from_this()](const ErrorCode& error, std::size_t) {
                              if (!error) self->swallow();
                            });
  }

  Stream stream_;
  std::array<char, HttpConversation::kReceiveBytes> input_;
  std::string output_;
};

void sweep_again(Worker& worker) {
  worker.sweeper.expires_after(kSweep);
  worker.sweeper.async_wait([&worker](const ErrorCode& error) {
    if (error) return;
    worker.now = Clock::now();
    for (Session* session : worker.sessions) session->sweep(worker.now);
    sweep_again(worker);
  });
}

// Closes the connection of this thread that has waited longest for another request, so that nobody
// keeps others out by doing nothing. False if none waits.
bool make_room(Worker& worker) {
  Session* longest = nullptr;
  for (Session* session : worker.sessions) {
    if (!session->idle_until()) continue;
    if (longest == nullptr || *session->idle_until() < *longest->idle_until()) longest = session;
  }
  if (longest == nullptr) return false;
  longest->give_way();
  return true;
}

[[noreturn]] void refuse_tls(const std::string& file, const ErrorCode& error) {
  throw Error(Code::kInvalidArgument,
              fmt::format("cannot use '{}' for TLS: {}", printable(file, 256), error.message()));
}

std::unique_ptr<asio::ssl::context> make_tls(const HttpServerTls& tls) {
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  ErrorCode error;
  context->use_certificate_chain_file(tls.certificate_file, error);
  if (error) refuse_tls(tls.certificate_file, error);
  context->use_private_key_file(tls.key_file, asio::ssl::context::pem, error);
  if (error) refuse_tls(tls.key_file, error);
  if (tls.client_ca_file.empty()) return context;
  context->load_verify_file(tls.client_ca_file, error);
  if (error) refuse_tls(tls.client_ca_file, error);
  context->set_verify_mode(asio::ssl::verify_peer |
                           (tls.require_client ? asio::ssl::verify_fail_if_no_peer_cert : 0));
  // Sessions that are resumed must not outlive a client's certificate.
  SSL_CTX_set_session_cache_mode(context->native_handle(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_TICKET);
  return context;
}

// Each connection takes one.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

struct HttpServer::State {
  explicit State(HttpServerOptions options, HttpHandler handler) {
    shared.options = std::move(options);
    shared.handler = std::move(handler);
    if (shared.options.tls) shared.tls = make_tls(*shared.options.tls);
    for (const int fd : shared.options.inherited) {
      adopt_listener(fd);
      listeners.emplace_back(fd);
    }
    for (const std::string& address : shared.options.listen) {
      listeners.push_back(open_listener(address));
    }
    unsigned threads = shared.options.threads;
    if (threads == 0) threads = hardware_threads();
    for (unsigned i = 0; i < std::min(threads, kThreadsMax); ++i) {
      workers.push_back(std::make_unique<Worker>());
    }
  }

  void start() {
    for (const auto& worker : workers) {
      sweep_again(*worker);
      worker->thread = std::thread([w = worker.get()] { w->context.run(); });
    }
  }

  void accept_all(int listener) {
    while (true) {
      Socket socket(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (socket.get() < 0) {
        // Out of descriptors: who waits goes on waiting, until others are done.
        if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(kSweep);
        return;
      }
      take(std::move(socket));
    }
  }

  void take(Socket socket) {
    shared.counters.accepted.fetch_add(1, std::memory_order_relaxed);
    const int yes = 1;
    static_cast<void>(setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes));
    const std::size_t present = shared.counters.open.load(std::memory_order_relaxed);
    const bool full = present >= shared.options.connections_max;
    if (present >= shared.options.connections_max + kNewcomersMax) return refuse(socket);
    shared.counters.open.fetch_add(1, std::memory_order_relaxed);
    const auto load = [](const auto& each) { return each->load.load(std::memory_order_relaxed); };
    // Room is made by the thread that has most to choose from.
    Worker& worker = full ? **std::ranges::max_element(workers, {}, load)
                          : **std::ranges::min_element(workers, {}, load);
    worker.load.fetch_add(1, std::memory_order_relaxed);
    asio::post(worker.context, [this, &worker, full, fd = socket.release()] {
      if (!full || make_room(worker)) return open(worker, fd);
      worker.load.fetch_sub(1, std::memory_order_relaxed);
      shared.counters.open.fetch_sub(1, std::memory_order_relaxed);
      refuse(Socket(fd));
    });
  }

  void refuse(const Socket& socket) {
    shared.counters.refused.fetch_add(1, std::memory_order_relaxed);
    if (shared.tls) return;  // it could not be told without a handshake
    static const std::string text = http_refusal(503, kRetrySeconds);
    static_cast<void>(send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
    shutdown(socket.get(), SHUT_WR);
    // What has arrived is read, or closing would take the answer back.
    std::array<char, 4096> bytes{};
    static_cast<void>(recv(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT));
  }

  void open(Worker& worker, int fd) {
    PlainSocket socket(worker.context.get_executor(), Protocol(AF_INET, SOCK_STREAM), fd);
    if (shared.tls) {
      std::make_shared<StreamSession<TlsSocket>>(worker, shared, std::move(socket))->start();
    } else {
      std::make_shared<StreamSession<PlainSocket>>(worker, shared, std::move(socket))->start();
    }
  }

  void serve(const CancelToken& cancel) {
    std::vector<pollfd> waits;
    for (const Socket& listener : listeners) {
      waits.push_back({.fd = listener.get(), .events = POLLIN, .revents = 0});
    }
    while (!cancel.cancelled()) {
      if (poll(waits.data(), waits.size(), kAcceptWaitMs) <= 0) continue;
      for (const pollfd& wait : waits) {
        if (wait.revents != 0) accept_all(wait.fd);
      }
    }
  }

  void stop() {
    for (const auto& worker : workers) {
      asio::post(worker->context, [w = worker.get()] {
        w->draining = true;
        for (Session* session : w->sessions) session->drain();
      });
    }
    const auto until = Clock::now() + Milliseconds(shared.options.drain_ms);
    while (shared.counters.open.load() > 0 && Clock::now() < until) {
      std::this_thread::sleep_for(Milliseconds(5));
    }
    for (const auto& worker : workers) worker->context.stop();
    for (const auto& worker : workers) worker->thread.join();
  }

  Shared shared;
  std::vector<Socket> listeners;
  std::vector<std::unique_ptr<Worker>> workers;
};

HttpServer::HttpServer(HttpServerOptions options, HttpHandler handler)
    : state_(std::make_unique<State>(std::move(options), std::move(handler))) {}
HttpServer::~HttpServer() = default;

std::vector<std::string> HttpServer::addresses() const {
  std::vector<std::string> list;
  for (const Socket& listener : state_->listeners) list.push_back(local_address(listener.get()));
  return list;
}

void HttpServer::run(const CancelToken& cancel) {
  raise_descriptor_limit();
  state_->start();
  state_->serve(cancel);
  state_->listeners.clear();
  state_->stop();
}

HttpServerCounters HttpServer::counters() const noexcept {
  const Counters& counters = state_->shared.counters;
  return {.accepted = counters.accepted.load(std::memory_order_relaxed),
          .refused = counters.refused.load(std::memory_order_relaxed),
          .timed_out = counters.timed_out.load(std::memory_order_relaxed),
          .open = counters.open.load(std::memory_order_relaxed)};
}

}  // namespace lukskeep::net
