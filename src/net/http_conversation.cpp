#include "net/http_conversation.h"

#include <algorithm>
#include <exception>
#include <memory>

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include <fmt/format.h>

namespace lukskeep::net {
namespace {

namespace http = boost::beast::http;
using Parser = http::request_parser<http::string_body>;
using ErrorCode = boost::beast::error_code;

// What is answered at a stretch: a client that sends much must read too, and others have a turn.
constexpr std::size_t kOutBytes = 65536;
constexpr unsigned kRequestsAtOnce = 16;

std::string_view reason_of(unsigned status) {
  const auto text = http::obsolete_reason(http::int_to_status(status));
  return {text.data(), text.size()};
}

void put_reply(const HttpReply& reply, bool close, bool with_body, std::string& out) {
  const std::string& body = reply.shared_body ? *reply.shared_body : reply.body;
  auto at = std::back_inserter(out);
  fmt::format_to(at, "HTTP/1.1 {} {}\r\n", reply.status, reason_of(reply.status));
  if (!reply.content_type.empty()) {
    fmt::format_to(at, "Content-Type: {}\r\n", reply.content_type);
  }
  if (reply.retry_after_seconds) {
    fmt::format_to(at, "Retry-After: {}\r\n", *reply.retry_after_seconds);
  }
  fmt::format_to(at, "Content-Length: {}\r\n{}\r\n", body.size(),
                 close ? "Connection: close\r\n" : "");
  if (with_body) out += body;
}

unsigned status_of(const ErrorCode& error) {
  if (error == http::error::body_limit) return 413;
  if (error == http::error::header_limit) return 431;
  if (error == http::error::bad_version) return 505;
  return 400;
}

}  // namespace

struct HttpConversation::State {
  State(const HttpServerLimits& limits_in, const HttpHandler& handler_in)
      : limits(limits_in), handler(handler_in) {
    start_request();
  }

  void start_request() {
    parser = std::make_unique<Parser>();
    parser->eager(true);
    parser->header_limit(static_cast<std::uint32_t>(2 * limits.header_bytes));  // ours counts
    parser->body_limit(limits.body_bytes);
    told_to_continue = false;
    header_taken = 0;
  }

  std::string_view unread() const { return std::string_view(input).substr(input_start); }

  void refuse(unsigned status, std::string& out) {
    put_reply({.status = status}, true, true, out);
    closing = true;
    input.clear();
    input_start = 0;
  }

  // The parser tells of a line that is too long only when it gave up on all headers.
  bool line_too_long() const {
    if (parser->is_header_done() || header_taken > 0) {
      return parser->get().target().size() > limits.target_bytes;
    }
    const std::string_view line = unread().substr(0, unread().find('\r'));
    const std::size_t target = line.find(' ');
    if (target == std::string_view::npos) return false;
    const std::string_view rest = line.substr(target + 1);
    return rest.substr(0, rest.find(' ')).size() > limits.target_bytes;
  }

  void handle(std::string& out) {
    const auto& message = parser->get();
    const bool close = !message.keep_alive() || last;
    const bool head = message.method() == http::verb::head;
    HttpReply reply;
    try {
      reply = handler({.method = {message.method_string().data(), message.method_string().size()},
                       .target = {message.target().data(), message.target().size()},
                       .body = as_byte_view(message.body()),
                       .peer = peer});
    } catch (const std::exception&) {
      reply = {.status = 500};
    }
    put_reply(reply, close, !head, out);
    closing = close;
    start_request();
  }

  // Beast counts only what it is given at once.
  bool headers_too_long() const {
    if (parser->is_header_done()) return false;
    const std::string_view rest = unread();
    const std::size_t end = rest.find("\r\n\r\n");
    const bool ends_here = header_taken > 0 && rest.starts_with("\r\n");
    const std::size_t more = ends_here ? 2 : end == std::string_view::npos ? rest.size() : end + 4;
    return header_taken + more > limits.header_bytes;
  }

  void parse(ErrorCode& error) {
    std::size_t taken = 0;
    do {
      const std::string_view view = unread();
      taken = parser->put(boost::asio::buffer(view.data(), view.size()), error);
      input_start += taken;
      if (!parser->is_header_done()) header_taken += taken;
    } while (!error && taken > 0 && !parser->is_done() && !unread().empty());
    if (error == http::error::need_more) error = {};
  }

  // True if a request was handled, false if more input is wanted or the connection is done.
  bool step(std::string& out) {
    // Empty lines between requests are allowed (RFC 9112 §2.2).
    while (!parser->got_some() && unread().starts_with("\r\n")) input_start += 2;
    if (unread().empty() || (!parser->got_some() && unread() == "\r")) return false;
    if (line_too_long()) {
      refuse(414, out);
      return false;
    }
    if (headers_too_long()) {
      refuse(431, out);
      return false;
    }
    ErrorCode error;
    parse(error);
    if (error) {
      refuse(status_of(error), out);
      return false;
    }
    // Bodies are taken as they come: what stays is a line of a chunk, or fields behind the last.
    if (!parser->is_done() && unread().size() > limits.header_bytes) {
      refuse(431, out);
      return false;
    }
    if (parser->is_header_done() && line_too_long()) {
      refuse(414, out);
      return false;
    }
    if (!parser->is_done()) {
      tell_to_continue(out);
      return false;
    }
    handle(out);
    return !closing;
  }

  void tell_to_continue(std::string& out) {
    if (told_to_continue || !parser->is_header_done()) return;
    const auto expects = parser->get()[http::field::expect];
    if (!boost::beast::iequals(expects, "100-continue")) return;
    told_to_continue = true;
    out += "HTTP/1.1 100 Continue\r\n\r\n";
  }

  void drop_read() {
    if (input_start == input.size()) {
      input.clear();
    } else {
      input.erase(0, input_start);
    }
    input_start = 0;
  }

  HttpServerLimits limits;
  const HttpHandler& handler;
  HttpPeer peer;
  std::unique_ptr<Parser> parser;
  std::string input;
  std::size_t input_start = 0;   // what is before was read
  std::size_t header_taken = 0;  // of the request being read
  bool hungry = true;
  bool closing = false;
  bool last = false;
  bool told_to_continue = false;
};

HttpConversation::HttpConversation(const HttpServerLimits& limits, const HttpHandler& handler)
    : state_(std::make_unique<State>(limits, handler)) {}
HttpConversation::~HttpConversation() = default;

HttpPeer& HttpConversation::peer() noexcept { return state_->peer; }

void HttpConversation::receive(ByteView bytes) {
  state_->input += as_string_view(bytes);
  state_->hungry = false;
}

void HttpConversation::answer(std::string& out) {
  for (unsigned handled = 0; !state_->closing; ++handled) {
    if (handled == kRequestsAtOnce || out.size() >= kOutBytes) {
      state_->drop_read();
      return;
    }
    if (!state_->step(out)) break;
  }
  state_->hungry = true;
  state_->drop_read();
}

bool HttpConversation::wants_input() const noexcept { return state_->hungry && !state_->closing; }

bool HttpConversation::closing() const noexcept { return state_->closing; }

void HttpConversation::close_soon() noexcept { state_->last = true; }

HttpConversation::Phase HttpConversation::phase() const noexcept {
  if (state_->parser->is_header_done()) return Phase::kBody;
  return state_->parser->got_some() || !state_->input.empty() ? Phase::kHeader : Phase::kIdle;
}

std::string http_refusal(unsigned status, unsigned retry_after_seconds) {
  std::string out;
  put_reply({.status = status, .retry_after_seconds = retry_after_seconds}, true, true, out);
  return out;
}

}  // namespace lukskeep::net
