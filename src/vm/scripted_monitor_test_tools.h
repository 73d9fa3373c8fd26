// A monitor that says what a test wants, on a socket of its own.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/json.h"
#include "storage/test_files.h"
#include "storage/unique_fd.h"

namespace lukskeep::vm {

inline constexpr const char* kGreeting =
    R"({"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "p"},)"
    R"( "capabilities": ["oob"]}})"
    "\r\n";

// Serves one client in a thread. `answer` gets each line and gives the text to send back; what it
// gives for "" is sent first. A text that ends in "close" ends the connection, behind what precedes
// that; one that begins with "drip" comes a byte at a time.
class ScriptedMonitor {
 public:
  using Answer = std::function<std::string(const std::string&)>;

  explicit ScriptedMonitor(Answer answer) : answer_(std::move(answer)), path_(folder_.path("q")) {
    listener_ = storage::UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    listen(listener_.get(), 1);
    thread_ = std::thread([this] { serve(); });
  }
  ~ScriptedMonitor() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  ScriptedMonitor(const ScriptedMonitor&) = delete;
  ScriptedMonitor& operator=(const ScriptedMonitor&) = delete;

  const std::string& path() const { return path_; }
  // What the client asked for, without the three commands that open each connection.
  std::vector<Json> asked() {
    const std::scoped_lock lock(mutex_);
    return asked_;
  }
  // What came with SCM_RIGHTS, if anything.
  int received_fd() {
    const std::scoped_lock lock(mutex_);
    return received_.get();
  }

 private:
  void serve() {
    const storage::UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client.valid() || !say(client.get(), answer_(""))) return;
    std::string text;
    for (;;) {
      const std::size_t end = text.find('\n');
      if (end == std::string::npos) {
        if (!receive(client.get(), text)) return;
        continue;
      }
      const std::string line = text.substr(0, end);
      text.erase(0, end + 1);
      remember(line);
      if (!say(client.get(), answer_(line))) return;
    }
  }

  void remember(const std::string& line) {
    const std::scoped_lock lock(mutex_);
    Json json = Json::parse(line);
    const std::string command = json["execute"];
    if (command != "qmp_capabilities" && command != "query-commands") asked_.push_back(json);
  }

  bool receive(int fd, std::string& text) {
    char bytes[4096];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    iovec part{.iov_base = bytes, .iov_len = sizeof bytes};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0) return false;
    if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr) {
      const std::scoped_lock lock(mutex_);
      received_ = storage::UniqueFd(*reinterpret_cast<const int*>(CMSG_DATA(header)));
    }
    text.append(bytes, static_cast<std::size_t>(got));
    return true;
  }

  static bool say(int fd, const std::string& text) {
    const bool drips = text.starts_with("drip");
    const bool closes = text.ends_with("close");
    std::string_view rest = text;
    if (drips) rest.remove_prefix(4);
    if (closes) rest.remove_suffix(5);
    while (!rest.empty()) {
      const ssize_t sent = send(fd, rest.data(), drips ? 1 : rest.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      rest.remove_prefix(static_cast<std::size_t>(sent));
      if (drips) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return !closes;
  }

  storage::TemporaryDirectory folder_;
  Answer answer_;
  std::string path_;
  storage::UniqueFd listener_;
  std::mutex mutex_;
  std::vector<Json> asked_;
  storage::UniqueFd received_;
  std::thread thread_;
};

inline std::string reply_to(const std::string& line, const Json& result) {
  return Json{{"return", result}, {"id", Json::parse(line)["id"]}}.dump() + "\r\n";
}
inline std::string refusal_of(const std::string& line, const std::string& why,
                              const std::string& kind = "GenericError") {
  return Json{{"error", {{"class", kind}, {"desc", why}}}, {"id", Json::parse(line)["id"]}}.dump() +
         "\r\n";
}

// Greets as QEMU does, knows `commands`, and leaves all other lines to `rest`.
inline ScriptedMonitor::Answer like_qemu(std::vector<std::string> commands,
                                         ScriptedMonitor::Answer rest) {
  return [commands = std::move(commands), rest = std::move(rest)](const std::string& line) {
    if (line.empty()) return std::string(kGreeting);
    const std::string command = Json::parse(line)["execute"];
    if (command == "qmp_capabilities") return reply_to(line, Json::object());
    if (command != "query-commands") return rest(line);
    Json list = Json::array();
    for (const std::string& name : commands) list.push_back({{"name", name}});
    return reply_to(line, list);
  };
}

}  // namespace lukskeep::vm
