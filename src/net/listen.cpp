#include "net/listen.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

namespace lukskeep::net {
namespace {

// Clients that reconnect all at once after a power cut are kept waiting, not refused.
constexpr int kBacklog = 4096;

struct Address {
  std::string host;  // empty: all
  std::string port;
};

[[noreturn]] void refuse(std::string_view text) {
  throw Error(Code::kInvalidArgument,
              fmt::format("'{}' is no address to listen on", printable(text)),
              "write ADDRESS:PORT, such as 127.0.0.1:80, [::1]:80 or *:80");
}

Address split(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) refuse(text);
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (port.empty() || port.size() > 5 ||
      port.find_first_not_of("0123456789") != std::string_view::npos ||
      std::stoul(std::string(port)) > 65535) {
    refuse(text);
  }
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    refuse(text);  // IPv6 without brackets: the port cannot be told from it
  }
  if (host.empty()) refuse(text);
  return {.host = host == "*" ? std::string() : std::string(host), .port = std::string(port)};
}

struct FreeAddresses {
  void operator()(addrinfo* list) const noexcept { freeaddrinfo(list); }
};

std::unique_ptr<addrinfo, FreeAddresses> resolve(std::string_view text) {
  const Address address = split(text);
  addrinfo hints{};
  hints.ai_family = address.host.empty() ? AF_INET6 : AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  if (getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(), address.port.c_str(),
                  &hints, &list) != 0) {
    refuse(text);
  }
  return std::unique_ptr<addrinfo, FreeAddresses>(list);
}

[[noreturn]] void fail(int error, std::string_view text) {
  Code code = Code::kIo;
  std::string hint;
  if (error == EADDRINUSE) {
    code = Code::kBusy;
    hint = "another program listens there";
  } else if (error == EACCES || error == EPERM) {
    code = Code::kPermissionDenied;
    hint = "ports below 1024 are for root, or for a socket unit of systemd";
  }
  throw Error(code,
              fmt::format("cannot listen on '{}': {}", printable(text),
                          std::generic_category().message(error)),
              hint);
}

void set(int fd, int level, int option, int value) {
  // What a socket does not know (TCP_NODELAY on a Unix socket) does not matter to it.
  static_cast<void>(setsockopt(fd, level, option, &value, sizeof value));
}

std::string text_of(const sockaddr_storage& storage, bool with_port) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (storage.ss_family == AF_INET) {
    sockaddr_in address{};
    std::memcpy(&address, &storage, sizeof address);
    inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
    return with_port ? fmt::format("{}:{}", text.data(), ntohs(address.sin_port)) : text.data();
  }
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 address{};
    std::memcpy(&address, &storage, sizeof address);
    inet_ntop(AF_INET6, &address.sin6_addr, text.data(), text.size());
    return with_port ? fmt::format("[{}]:{}", text.data(), ntohs(address.sin6_port)) : text.data();
  }
  return storage.ss_family == AF_UNIX ? "unix" : "";
}

}  // namespace

Socket open_listener(std::string_view text) {
  const auto list = resolve(text);
  Socket socket(::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.get() < 0) fail(errno, text);
  set(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  // "*" means both; an address that was named means itself.
  if (list->ai_family == AF_INET6) {
    set(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, text.starts_with('*') ? 0 : 1);
  }
  if (bind(socket.get(), list->ai_addr, list->ai_addrlen) != 0 ||
      listen(socket.get(), kBacklog) != 0) {
    fail(errno, text);
  }
  return socket;
}

void adopt_listener(int fd) {
  int listening = 0;
  socklen_t size = sizeof listening;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0) {
    throw Error(Code::kInvalidArgument,
                fmt::format("descriptor {} of the service manager does not listen", fd),
                "the socket unit needs Accept=no");
  }
  const int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
}

std::string local_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return {};
  return text_of(storage, true);
}

HttpPeer peer_of(int fd) {
  HttpPeer peer;
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return peer;
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 address{};
    std::memcpy(&address, &storage, sizeof address);
    std::memcpy(peer.ip.data(), &address.sin6_addr, peer.ip.size());
    if (IN6_IS_ADDR_V4MAPPED(&address.sin6_addr) != 0) {
      // An IPv4 client of a socket for both is called as it calls itself.
      sockaddr_in plain{
          .sin_family = AF_INET, .sin_port = address.sin6_port, .sin_addr = {}, .sin_zero = {}};
      std::memcpy(&plain.sin_addr, &peer.ip[12], 4);
      std::memcpy(&storage, &plain, sizeof plain);
    }
  } else if (storage.ss_family == AF_INET) {
    sockaddr_in address{};
    std::memcpy(&address, &storage, sizeof address);
    peer.ip[10] = peer.ip[11] = std::byte{0xff};
    std::memcpy(&peer.ip[12], &address.sin_addr, 4);
  }
  peer.address = text_of(storage, false);
  return peer;
}

}  // namespace lukskeep::net
