#include "server/nbd/client_end.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <lukskeep/error.h>

#include "storage/request.h"

namespace lukskeep::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{5};
// A client may come while the server ends: look again.
constexpr std::chrono::milliseconds kLookAgain{50};
constexpr int kFdsMax = 65'536;  // looked at; nbdkit's own are low

constexpr std::array kSignals = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};

// What a signal handler may use.
std::array<struct sigaction, kSignals.size()> g_before{};
std::atomic<int> g_wake_fd = -1;

void on_signal(int number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const char byte = 0;
  if (write(g_wake_fd, &byte, 1) < 0) {
    // Full: the watcher is awake.
  }
  errno = saved_errno;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    const struct sigaction& before = g_before[i];
    if (kSignals[i] != number) continue;
    if ((before.sa_flags & SA_SIGINFO) != 0) {
      before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_IGN && before.sa_handler != SIG_DFL) {
      before.sa_handler(number);
    }
  }
}

bool is_connected(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  return getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
}

int fds_end() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur > kFdsMax) return kFdsMax;
  return static_cast<int>(files.rlim_cur);
}

}  // namespace

ClientEnd::ClientEnd() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    storage::throw_errno(errno, "cannot make a pipe");
  }
  read_end_ = storage::UniqueFd(ends[0]);
  write_end_ = storage::UniqueFd(ends[1]);
  g_wake_fd = write_end_.get();
  for (int fd = 0; fd < fds_end(); ++fd) {
    if (is_connected(fd)) inherited_.insert(fd);
  }
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    struct sigaction action{};
    sigaction(kSignals[i], nullptr, &g_before[i]);
    // What does not end nbdkit is left as it is.
    if (g_before[i].sa_handler == SIG_IGN || g_before[i].sa_handler == SIG_DFL) continue;
    action.sa_sigaction = on_signal;
    action.sa_flags = g_before[i].sa_flags | SA_SIGINFO;
    action.sa_mask = g_before[i].sa_mask;
    sigaction(kSignals[i], &action, nullptr);
  }
  watcher_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
}

ClientEnd::~ClientEnd() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &g_before[i], nullptr);
  watcher_.request_stop();
  const char byte = 0;
  if (write(write_end_.get(), &byte, 1) < 0) {
    // Full: the watcher is awake.
  }
  watcher_.join();
  g_wake_fd = -1;
}

void ClientEnd::watch(const std::stop_token& stop) const {
  pollfd waiting{.fd = read_end_.get(), .events = POLLIN, .revents = 0};
  while (poll(&waiting, 1, -1) < 0 && errno == EINTR) {
  }
  const Clock::time_point patient_until = Clock::now() + kPatience;
  while (!stop.stop_requested()) {
    end_clients(Clock::now() < patient_until ? SHUT_RD : SHUT_RDWR);
    std::this_thread::sleep_for(kLookAgain);
  }
}

void ClientEnd::end_clients(int how) const {
  for (int fd = 0; fd < fds_end(); ++fd) {
    if (is_connected(fd) && !inherited_.contains(fd)) shutdown(fd, how);
  }
}

}  // namespace lukskeep::server
