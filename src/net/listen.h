// Sockets to listen on, and who is at the other end of what they accept.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <unistd.h>

#include "net/http_conversation.h"

namespace lukskeep::net {

class Socket {
 public:
  Socket() noexcept = default;
  explicit Socket(int fd) noexcept : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const noexcept { return fd_; }
  int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// Listens on "ADDRESS:PORT": a numeric IPv4 address, an IPv6 address in brackets, or "*" for all of
// both. Port 0 lets the system choose. Throws Error: kInvalidArgument, kBusy (somebody else has
// it), kPermissionDenied, kIo.
Socket open_listener(std::string_view address);

// Makes a listener that the service manager has opened fit. Throws Error{kInvalidArgument} if `fd`
// is no listening stream socket.
void adopt_listener(int fd);

// "127.0.0.1:8080", "[::1]:8080", or the path of a Unix socket.
std::string local_address(int fd);

// Of a connected socket; all empty for what is none.
HttpPeer peer_of(int fd);

}  // namespace lukskeep::net
