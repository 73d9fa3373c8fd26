// The server's side of one HTTP/1.1 connection, without the connection: bytes in, bytes out.
//
// Requests are handled in their order, so pipelining works; what a client can make it hold is
// bounded by HttpServerLimits. Boost.Beast parses. One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace lukskeep::net {

// Who is at the other end, as the system tells, not as the client says.
struct HttpPeer {
  std::string address;              // "192.0.2.1", "2001:db8::1", "unix", or empty: not known
  std::array<std::byte, 16> ip{};   // the same as IPv6, IPv4 mapped; zero for others
  std::string certificate_sha256;   // of a client certificate that was verified: lower-case hex
  std::string certificate_subject;  // its distinguished name (RFC 2253)
};

// Views live as long as the call.
struct HttpServerRequest {
  std::string_view method;
  std::string_view target;  // as it stands in the request line
  ByteView body;
  const HttpPeer& peer;
};

struct HttpReply {
  unsigned status = 200;
  std::string_view content_type;  // of static storage; empty: none
  std::string body;
  std::shared_ptr<const std::string> shared_body;  // instead of `body`, if set
  std::optional<unsigned> retry_after_seconds;
};

// May be called from several threads at once. What it throws becomes status 500.
using HttpHandler = std::function<HttpReply(const HttpServerRequest&)>;

struct HttpServerLimits {
  std::size_t target_bytes = 4095;   // as tangd: beyond it 414
  std::size_t header_bytes = 16384;  // request line and headers; beyond it 431
  std::size_t body_bytes = 65535;    // as tangd: beyond it 413
};

class HttpConversation {
 public:
  enum class Phase : std::uint8_t { kIdle, kHeader, kBody };

  HttpConversation(const HttpServerLimits& limits, const HttpHandler& handler);
  ~HttpConversation();
  HttpConversation(const HttpConversation&) = delete;
  HttpConversation& operator=(const HttpConversation&) = delete;

  HttpPeer& peer() noexcept;

  // What the client sent; at most kReceiveBytes at once, and only while wants_input().
  void receive(ByteView bytes);
  // Handles what is whole, but stops where `out` is large enough to be sent first: call again then,
  // until wants_input() or closing().
  void answer(std::string& out);

  bool wants_input() const noexcept;
  // After what was answered is sent, the connection is to be closed.
  bool closing() const noexcept;
  // The request being handled is the last one.
  void close_soon() noexcept;
  Phase phase() const noexcept;

  static constexpr std::size_t kReceiveBytes = 16384;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A whole answer of its own, for clients that get no conversation.
std::string http_refusal(unsigned status, unsigned retry_after_seconds);

}  // namespace lukskeep::net
