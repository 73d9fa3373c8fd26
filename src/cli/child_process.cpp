#include "cli/child_process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/request.h"

namespace lukskeep::cli {
namespace {

constexpr int kPollMs = 50;
constexpr int kEndMs = 60'000;
constexpr int kNotStarted = 127;  // as a shell says it

struct Pipe {
  storage::UniqueFd read_end;
  storage::UniqueFd write_end;
};
Pipe make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) storage::throw_errno(errno, "cannot make a pipe");
  return {storage::UniqueFd(ends[0]), storage::UniqueFd(ends[1])};
}

struct Streams {
  int input = -1;
  int output = -1;
  int errors = -1;
};

// In the child: nothing here may allocate or throw.
[[noreturn]] void turn_into(const char* program, char* const* words, const Streams& streams,
                            const std::vector<int>& descriptors) noexcept {
  static_cast<void>(signal(SIGPIPE, SIG_DFL));
  const int input = streams.input >= 0 ? streams.input : open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (input >= 0 && dup2(input, STDIN_FILENO) >= 0 && dup2(streams.output, STDOUT_FILENO) >= 0 &&
      dup2(streams.errors, STDERR_FILENO) >= 0) {
    // Whoever started us may have left files and locks open that are not for it to keep. Where the
    // kernel has no such call, it keeps them.
    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    for (const int fd : descriptors) fcntl(fd, F_SETFD, 0);
    execvp(program, words);
  }
  _exit(kNotStarted);
}

// In a child: forks once more and ends, so that nobody's end is the grandchild's. nbdkit, for one,
// asks the kernel to be ended with its parent, whoever that is when it starts: the grandchild goes
// on when `go` says that its parent has gone. Returns in the grandchild only.
void leave_parent(int report, int go) noexcept {
  setsid();
  const pid_t grandchild = fork();
  if (grandchild != 0) {
    const bool told = grandchild > 0 && write(report, &grandchild, sizeof grandchild) ==
                                            static_cast<ssize_t>(sizeof grandchild);
    _exit(told ? 0 : kNotStarted);
  }
  char nothing = 0;
  while (read(go, &nothing, 1) < 0 && errno == EINTR) {
  }
}

// pidfd_open(2), which glibc 2.36 declares for C only. Not valid where it fails.
storage::UniqueFd open_process(pid_t pid) {
  return storage::UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

// Adds what is there. False at the end.
bool drain(int fd, std::string& text) {
  std::array<char, 4096> bytes{};
  const ssize_t got = read(fd, bytes.data(), bytes.size());
  if (got > 0) text.append(bytes.data(), static_cast<std::size_t>(got));
  return got > 0 || (got < 0 && errno == EINTR);
}

}  // namespace

ChildProcess::ChildProcess(const ChildSettings& settings) {
  Pipe output = make_pipe();
  Pipe errors = make_pipe();
  std::vector<char*> words = {const_cast<char*>(settings.program.c_str())};
  for (const std::string& argument : settings.arguments) {
    words.push_back(const_cast<char*>(argument.c_str()));
  }
  words.push_back(nullptr);
  const Streams streams{.input = settings.stdin_fd,
                        .output = output.write_end.get(),
                        .errors = errors.write_end.get()};
  Pipe report = make_pipe();
  Pipe go = make_pipe();
  pid_ = fork();
  if (pid_ == 0) {
    go.write_end = {};
    if (settings.outlive) leave_parent(report.write_end.get(), go.read_end.get());
    turn_into(settings.program.c_str(), words.data(), streams, settings.descriptors);
  }
  if (pid_ < 0) {
    storage::throw_errno(errno, fmt::format("cannot run '{}'", printable(settings.program, 256)));
  }
  if (settings.outlive) {
    const bool started = wait() == 0;
    if (!started ||
        read(report.read_end.get(), &pid_, sizeof pid_) != static_cast<ssize_t>(sizeof pid_)) {
      throw Error(Code::kIo, fmt::format("cannot run '{}'", printable(settings.program, 256)));
    }
    // It waits for `go` until here: the number is still its own.
    process_ = open_process(pid_);
    if (!process_.valid()) {
      const int error = errno;
      kill(pid_, SIGKILL);
      storage::throw_errno(error,
                           fmt::format("cannot watch '{}'", printable(settings.program, 256)));
    }
  }
  output_end_ = std::move(output.read_end);
  errors_end_ = std::move(errors.read_end);
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0) return;
  if (!process_.valid()) {
    kill(pid_, SIGTERM);
    wait();
    return;
  }
  syscall(SYS_pidfd_send_signal, process_.get(), SIGTERM, nullptr, 0);
  pollfd ended{.fd = process_.get(), .events = POLLIN, .revents = 0};
  while (poll(&ended, 1, kEndMs) < 0 && errno == EINTR) {
  }
}

void ChildProcess::read_output(bool first_line, std::chrono::seconds timeout,
                               const CancelToken* cancel) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  std::array<pollfd, 2> ends{pollfd{.fd = output_end_.get(), .events = POLLIN, .revents = 0},
                             pollfd{.fd = errors_end_.get(), .events = POLLIN, .revents = 0}};
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (first_line && output_.find('\n') != std::string::npos) return;
    if (cancel != nullptr) cancel->check();
    if (std::chrono::steady_clock::now() > end) {
      throw Error(Code::kTimeout, fmt::format("a program that was started said nothing within {} s",
                                              timeout.count()));
    }
    if (output_.size() + errors_.size() > limits::kChildOutputBytesMax) {
      throw Error(Code::kRemote, "a program that was started says too much");
    }
    if (poll(ends.data(), ends.size(), kPollMs) <= 0) continue;
    if (ends[0].revents != 0 && !drain(ends[0].fd, output_)) ends[0].fd = -1;
    if (ends[1].revents != 0 && !drain(ends[1].fd, errors_)) ends[1].fd = -1;
  }
}

void ChildProcess::read_what_is_there() {
  for (auto [fd, text] :
       {std::pair(output_end_.get(), &output_), std::pair(errors_end_.get(), &errors_)}) {
    pollfd end{.fd = fd, .events = POLLIN, .revents = 0};
    while (output_.size() + errors_.size() <= limits::kChildOutputBytesMax &&
           poll(&end, 1, 0) > 0 && drain(fd, *text)) {
    }
  }
}

int ChildProcess::wait() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace lukskeep::cli
