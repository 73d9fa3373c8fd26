#include "cli/terminal.h"

#include <cerrno>
#include <cstddef>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/signals.h"

namespace lukskeep::cli {
namespace {

constexpr int kCancelPollMs = 100;

// Echo off, and no suspending: a shell would find its terminal without echo.
class SilentTerminal {
 public:
  explicit SilentTerminal(int fd) : fd_(fd), saved_(read_state(fd)), guard_(fd, saved_) {
    termios silent = saved_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHOE | ECHOK | ECHONL);
    silent.c_lflag |= ICANON | ISIG;
    silent.c_cc[VSUSP] = _POSIX_VDISABLE;
    tcsetattr(fd_, TCSAFLUSH, &silent);
  }
  ~SilentTerminal() { tcsetattr(fd_, TCSAFLUSH, &saved_); }
  SilentTerminal(const SilentTerminal&) = delete;
  SilentTerminal& operator=(const SilentTerminal&) = delete;

 private:
  static termios read_state(int fd) {
    termios state{};
    if (tcgetattr(fd, &state) != 0) {
      throw Error(Code::kIo, fmt::format("cannot switch off the echo of the terminal: {}",
                                         std::generic_category().message(errno)));
    }
    return state;
  }

  int fd_;
  termios saved_;
  TerminalGuard guard_;
};

}  // namespace

std::optional<Terminal> Terminal::open() {
  const int fd = ::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return {};
  return Terminal(fd);
}

Terminal::Terminal(Terminal&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Terminal::~Terminal() {
  if (fd_ >= 0) close(fd_);
}

void Terminal::say(std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = write(fd_, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;  // a terminal that went away shows nothing
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

SecretBytes Terminal::ask_secret(std::string_view question, const CancelToken& cancel) {
  const SilentTerminal silent(fd_);
  say(question);
  try {
    SecretBytes line = read_line(cancel);
    say("\n");
    return line;
  } catch (const Error&) {
    say("\n");
    throw;
  }
}

std::string Terminal::ask(std::string_view question, const CancelToken& cancel) {
  say(question);
  const SecretBytes line = read_line(cancel);
  return std::string(as_string_view(line.span()));
}

SecretBytes Terminal::read_line(const CancelToken& cancel) {
  SecretBytes line(limits::kPromptBytesMax + 1);
  std::size_t have = 0;
  while (true) {
    cancel.check();
    pollfd waiting{.fd = fd_, .events = POLLIN, .revents = 0};
    const int ready = poll(&waiting, 1, kCancelPollMs);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    // Byte by byte: what follows the newline belongs to the next question.
    std::byte& next = line.span()[have];
    const ssize_t got = read(fd_, &next, 1);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) {
      throw Error(Code::kIo, fmt::format("cannot read from the terminal: {}",
                                         std::generic_category().message(errno)));
    }
    if (got == 0) throw Error(Code::kInterrupted, "no line was entered");
    if (next == std::byte{'\n'}) break;
    if (++have > limits::kPromptBytesMax) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("the line is longer than {} bytes", limits::kPromptBytesMax),
                  "long passphrases come from a file: file:PATH");
    }
  }
  line.truncate(have);
  return line;
}

}  // namespace lukskeep::cli
