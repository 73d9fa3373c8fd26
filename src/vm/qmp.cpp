#include "vm/qmp.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "keys/secret_text.h"
#include "storage/request.h"
#include "vm/json_member.h"

namespace lukskeep::vm {
namespace {

constexpr int kPollMs = 50;  // how soon a signal is seen
constexpr std::size_t kReadBytes = std::size_t{64} * 1024;
constexpr std::size_t kWordsMax = 300;  // of what the other side says, in a message

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    throw Error(Code::kUsage, fmt::format("'{}' is no path for a socket: it has 1 to {} bytes",
                                          printable(path, 256), sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

// Text of the other side with its quotes as they are: it stands in none of ours.
std::string words_of(const std::string& text) {
  std::string words = printable(text, kWordsMax);
  constexpr std::string_view quote = "\\x27";
  for (std::size_t at = words.find(quote); at != std::string::npos; at = words.find(quote, at)) {
    words.replace(at, quote.size(), "'");
  }
  return words;
}

}  // namespace

struct Qmp::Deadline {
  explicit Deadline(std::uint32_t milliseconds)
      : timeout_ms(milliseconds),
        end(std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds)) {}
  int left_ms() const {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, kPollMs));
  }

  // Throws Error{kTimeout} once the time is over; `what` says who did not do what.
  void check(const std::string& what) const {
    if (std::chrono::steady_clock::now() < end) return;
    throw Error(Code::kTimeout,
                fmt::format("{} within {:g} s", what, static_cast<double>(timeout_ms) / 1000),
                "another client may hold the monitor: QEMU serves one at a time");
  }

  std::uint32_t timeout_ms;
  std::chrono::steady_clock::time_point end;
};

Qmp::Qmp(storage::UniqueFd socket, std::string name, const Settings& settings)
    : socket_(std::move(socket)), name_(std::move(name)), settings_(settings) {}

Qmp Qmp::connect(const std::string& path, const Settings& settings) {
  const sockaddr_un address = address_of(path);
  storage::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) storage::throw_errno(errno, "cannot make a socket");
  const std::string name = printable(path, 256);
  const Deadline deadline(settings.timeout_ms);
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    // Too many wait to be taken already.
    if (error == EAGAIN || error == EINTR) {
      if (settings.cancel != nullptr) settings.cancel->check();
      deadline.check(fmt::format("'{}' takes no connection", name));
      poll(nullptr, 0, deadline.left_ms());
      continue;
    }
    if (error == ECONNREFUSED || error == ENOTSOCK) {
      throw Error(Code::kRemote, fmt::format("nobody listens on '{}'", name),
                  "start QEMU with -qmp unix:PATH,server=on,wait=off, and name that PATH");
    }
    storage::throw_errno(error, fmt::format("cannot connect to '{}'", name));
  }
  return over(std::move(fd), name, settings);
}

Qmp Qmp::over(storage::UniqueFd socket, std::string name, const Settings& settings) {
  Qmp qmp(std::move(socket), std::move(name), settings);
  qmp.greet();
  return qmp;
}

void Qmp::greet() {
  const Json message = read_message(Deadline(settings_.timeout_ms));
  const Json& greeting = member(message, "QMP");
  if (!greeting.is_object()) nonsense("it begins with no greeting");
  const Json& version = member(greeting, "version");
  if (!member(version, "qemu").is_object()) nonsense("it tells no version");
  version_ = {.major = number_member(member(version, "qemu"), "major"),
              .minor = number_member(member(version, "qemu"), "minor"),
              .package = printable(text_member(version, "package"))};
  execute("qmp_capabilities");
  const Json commands = execute("query-commands");
  if (!commands.is_array()) nonsense("its list of commands is none");
  for (const Json& command : commands) commands_.insert(text_member(command, "name"));
}

std::uint32_t Qmp::peer_uid() const {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    storage::throw_errno(errno, fmt::format("cannot tell whose '{}' is", name_));
  }
  return credentials.uid;
}

void Qmp::nonsense(std::string_view why) {
  usable_ = false;
  throw Error(Code::kRemote, fmt::format("'{}' does not speak QMP: {}", name_, why),
              "name the socket of QEMU's -qmp or -mon …,mode=control");
}

void Qmp::check_time(const Deadline& deadline) const {
  deadline.check(fmt::format("'{}' did not answer", name_));
}

void Qmp::wait(short events, const Deadline& deadline) const {
  for (;;) {
    if (settings_.cancel != nullptr) settings_.cancel->check();
    pollfd one{.fd = socket_.get(), .events = events, .revents = 0};
    if (poll(&one, 1, deadline.left_ms()) > 0) return;
    check_time(deadline);
  }
}

void Qmp::send(std::string_view line, int fd, const Deadline& deadline) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  while (!line.empty()) {
    iovec part{.iov_base = const_cast<char*>(line.data()), .iov_len = line.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (fd >= 0) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
      wait(POLLOUT, deadline);
    } else if (sent < 0) {
      usable_ = false;
      throw Error(Code::kRemote, fmt::format("'{}' has ended the connection", name_));
    } else {
      fd = -1;  // goes with the first byte
      line.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
}

std::string Qmp::read_line(const Deadline& deadline) {
  for (;;) {
    const std::size_t end = unread_.find('\n', scanned_);
    if (end != std::string::npos) {
      std::string line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      scanned_ = 0;
      return line;
    }
    scanned_ = unread_.size();
    if (scanned_ > limits::kQmpLineBytesMax) nonsense("its line has no end");
    wait(POLLIN, deadline);
    unread_.resize(scanned_ + kReadBytes);
    const ssize_t got = recv(socket_.get(), unread_.data() + scanned_, kReadBytes, 0);
    const int error = errno;
    unread_.resize(scanned_ + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && (error == EAGAIN || error == EINTR)) continue;
    if (got <= 0) {
      usable_ = false;
      throw Error(Code::kRemote, fmt::format("'{}' has ended the connection", name_));
    }
  }
}

Json Qmp::read_message(const Deadline& deadline) {
  // Whoever talks without end is never waited for.
  check_time(deadline);
  const std::string line = read_line(deadline);
  Json message;
  try {
    message = parse_json(line, "it");
  } catch (const Error&) {
    nonsense("what it says is no JSON");
  }
  if (!message.is_object()) nonsense("what it says is no JSON object");
  return message;
}

void Qmp::keep(const Json& event) {
  const Json& data = member(event, "data");
  QmpEvent kept{.name = text_member(event, "event"), .subject = text_member(data, "device")};
  if (kept.subject.empty()) kept.subject = text_member(data, "id");
  // None that anybody waits for is longer.
  if (kept.name.size() + kept.subject.size() > limits::kQmpEventBytesMax) return;
  if (events_.size() == limits::kQmpEventsMax) events_.pop_front();
  events_.push_back(std::move(kept));
}

void Qmp::refuse(const std::string& command, const Json& error) const {
  const std::string kind = text_member(error, "class");
  const Code code = kind == "CommandNotFound"  ? Code::kUnsupported
                    : kind == "DeviceNotFound" ? Code::kNotFound
                                               : Code::kRemote;
  throw Error(code, fmt::format("'{}' refuses {}: {}", name_, command,
                                words_of(text_member(error, "desc"))));
}

Json Qmp::answer(const std::string& command, std::int64_t id) {
  const Deadline deadline(settings_.timeout_ms);
  for (std::size_t lines = 0; lines < limits::kQmpLinesMax; ++lines) {
    Json message = read_message(deadline);
    if (message.contains("event")) {
      keep(message);
      continue;
    }
    const std::int64_t said = number_member(message, "id");
    // The answer to a command that was given up.
    if (said >= 0 && said < id) continue;
    const Json& error = member(message, "error");
    // What QEMU cannot parse it answers without an id.
    if (error.is_null() && said != id) nonsense("its answer belongs to no command");
    if (!error.is_null()) refuse(command, error);
    if (!message.contains("return")) nonsense("its answer is none");
    return std::move(message["return"]);
  }
  nonsense("it says much, but gives no answer");
}

Json Qmp::execute(const std::string& command, const Json& arguments, int fd) {
  const std::int64_t id = ++last_id_;
  const Json message = {{"execute", command}, {"arguments", arguments}, {"id", id}};
  // Text that is no UTF-8, as paths may be, has no place in JSON.
  std::string line;
  try {
    line = message.dump() + "\n";
  } catch (const Json::exception&) {
    throw Error(Code::kUnsupported,
                fmt::format("a name given to {} is no UTF-8, which QMP cannot say", command));
  }
  send(line, fd, Deadline(settings_.timeout_ms));
  return answer(command, id);
}

Json Qmp::execute_secret(const std::string& command, const SecretBytes& arguments) {
  const std::int64_t id = ++last_id_;
  keys::SecretText text;
  text.add(fmt::format(R"({{"execute":"{}","id":{},"arguments":)", command, id));
  text.add(as_string_view(arguments.span())).add("}\n");
  send(as_string_view(text.view()), -1, Deadline(settings_.timeout_ms));
  return answer(command, id);
}

bool Qmp::wait_for_event(const std::function<bool(const QmpEvent&)>& wanted,
                         std::uint32_t timeout_ms) {
  const Deadline deadline(timeout_ms);
  for (;;) {
    const auto found = std::ranges::find_if(events_, wanted);
    if (found != events_.end()) {
      events_.erase(found);
      return true;
    }
    try {
      const Json message = read_message(deadline);
      if (message.contains("event")) keep(message);
    } catch (const Error& error) {
      if (error.code() != Code::kTimeout) throw;
      return false;
    }
  }
}

}  // namespace lukskeep::vm
