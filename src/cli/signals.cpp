#include "cli/signals.h"

#include <csignal>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace lukskeep::cli {
namespace {

constexpr int kInterruptedStatus = 130;

CancelToken g_cancel;
volatile std::sig_atomic_t g_terminal_fd = -1;
termios g_terminal_saved{};

// Calls only what POSIX allows in a handler.
void on_signal(int) {
  if (!g_cancel.cancelled()) {
    g_cancel.cancel();
    return;
  }
  if (g_terminal_fd >= 0) tcsetattr(g_terminal_fd, TCSANOW, &g_terminal_saved);
  _exit(kInterruptedStatus);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action{};
  action.sa_handler = on_signal;  // without SA_RESTART: blocking calls return
  sigemptyset(&action.sa_mask);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    struct sigaction present{};
    // What the caller told us to ignore (nohup) stays ignored.
    if (sigaction(number, nullptr, &present) == 0 && present.sa_handler == SIG_IGN) continue;
    sigaction(number, &action, nullptr);
  }
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

const CancelToken& cancel_token() noexcept { return g_cancel; }

void forbid_core_dumps() {
  const rlimit none{.rlim_cur = 0, .rlim_max = 0};
  setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__
  // The leak checker of AddressSanitizer has to trace the process.
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

TerminalGuard::TerminalGuard(int fd, const termios& saved) noexcept {
  g_terminal_saved = saved;
  g_terminal_fd = fd;
}

TerminalGuard::~TerminalGuard() { g_terminal_fd = -1; }

}  // namespace lukskeep::cli
