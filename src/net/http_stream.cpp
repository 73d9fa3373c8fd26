// One connection on two descriptors: what inetd and socat give to the service that they start.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <system_error>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "net/http_server.h"
#include "net/listen.h"

namespace lukskeep::net {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr Milliseconds kLook{200};  // how often at `cancel`

void wait_for(int fd, short events, Clock::time_point until, const CancelToken& cancel) {
  while (true) {
    cancel.check();
    pollfd wait{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&wait, 1, static_cast<int>(kLook.count()));
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) {
      throw Error(Code::kIo, fmt::format("cannot wait for the client: {}",
                                         std::generic_category().message(errno)));
    }
    if (Clock::now() >= until) throw Error(Code::kTimeout, "the client is too slow");
  }
}

// Does not wait, once poll() found the descriptor ready.
ssize_t write_some(int fd, std::string_view text) {
  const ssize_t sent = send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0 || errno != ENOTSOCK) return sent;
  return write(fd, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
}

void write_all(int fd, std::string_view text, Clock::time_point until, const CancelToken& cancel) {
  while (!text.empty()) {
    wait_for(fd, POLLOUT, until, cancel);
    const ssize_t wrote = write_some(fd, text);
    if (wrote < 0 && errno != EINTR && errno != EAGAIN) {
      throw Error(Code::kIo,
                  fmt::format("cannot answer: {}", std::generic_category().message(errno)));
    }
    if (wrote > 0) text.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

}  // namespace

void serve_http_stream(int input, int output, const HttpServerOptions& options,
                       const HttpHandler& handler, const CancelToken& cancel) {
  using Phase = HttpConversation::Phase;
  HttpConversation conversation(options.limits, handler);
  conversation.peer() = peer_of(input);
  std::array<std::byte, HttpConversation::kReceiveBytes> bytes;
  std::string out;
  auto until = Clock::now() + Milliseconds(options.header_ms);
  Phase phase = Phase::kIdle;
  while (!conversation.closing()) {
    if (conversation.wants_input()) {
      wait_for(input, POLLIN, until, cancel);
      const ssize_t got = read(input, bytes.data(), bytes.size());
      if (got == 0) return;
      if (got < 0 && errno != EINTR && errno != EAGAIN) return;  // the client is gone
      if (got > 0) conversation.receive(ByteView(bytes).first(static_cast<std::size_t>(got)));
    }
    out.clear();
    conversation.answer(out);
    write_all(output, out, Clock::now() + Milliseconds(options.write_ms), cancel);
    // The time for a phase runs from its start, and empty lines between requests gain none.
    if (conversation.phase() <= phase && out.empty()) continue;
    phase = conversation.phase();
    until = Clock::now() + Milliseconds(phase == Phase::kIdle     ? options.idle_ms
                                        : phase == Phase::kHeader ? options.header_ms
                                                                  : options.body_ms);
  }
}

}  // namespace lukskeep::net
