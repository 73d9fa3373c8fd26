// An HTTP/1.1 server for answers that are computed at once: a thread per core, connections that are
// kept open, every phase of a connection under a time limit, TLS with client certificates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <lukskeep/progress.h>

#include "net/http_conversation.h"

namespace lukskeep::net {

struct HttpServerTls {
  std::string certificate_file;  // PEM, with what leads to the root
  std::string key_file;          // PEM
  std::string client_ca_file;    // PEM; empty: no client certificates are asked for
  bool require_client = true;    // with a client_ca_file: those without a certificate are refused
};

struct HttpServerOptions {
  std::vector<std::string> listen;  // as open_listener takes them
  std::vector<int> inherited;       // listening sockets of the service manager; taken over
  unsigned threads = 0;             // 0: as many as there are CPUs
  HttpServerLimits limits;
  std::optional<HttpServerTls> tls;
  // Beyond it one that waits for another request gives way; if none does: 503 with Retry-After.
  std::size_t connections_max = 4096;
  std::uint32_t idle_ms = 60'000;   // between requests
  std::uint32_t header_ms = 5'000;  // of a request, and until the first byte
  std::uint32_t body_ms = 10'000;
  std::uint32_t write_ms = 10'000;  // until a client has read an answer
  std::uint32_t drain_ms = 5'000;   // for what is being answered when the server stops
};

struct HttpServerCounters {
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;  // with 503
  std::uint64_t timed_out = 0;
  std::size_t open = 0;
};

class HttpServer {
 public:
  // Listens when it returns. `handler` must outlive the server. Throws Error as open_listener;
  // kInvalidArgument for certificates that are of no use.
  HttpServer(HttpServerOptions options, HttpHandler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::vector<std::string> addresses() const;

  // Serves until `cancel`, then lets what is being answered end. Returns when no thread runs.
  void run(const CancelToken& cancel);

  // Thread-safe.
  HttpServerCounters counters() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Serves one connection on two descriptors (as inetd starts a service) until the client is done,
// with the same time limits. Throws Error{kTimeout, kInterrupted, kIo}.
void serve_http_stream(int input, int output, const HttpServerOptions& options,
                       const HttpHandler& handler, const CancelToken& cancel);

}  // namespace lukskeep::net
