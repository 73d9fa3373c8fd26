// What this process does about signals and core dumps.
#pragma once

#include <termios.h>

#include <lukskeep/progress.h>

namespace lukskeep::cli {

// SIGINT, SIGTERM, SIGHUP and SIGQUIT cancel the token below; a second one ends the process at once
// with status 130, the terminal restored. SIGPIPE is ignored: a closed pipe is an error of write.
void install_signal_handlers();

// Cancelled by the signals above.
const CancelToken& cancel_token() noexcept;

// The process leaves no core dump and cannot be traced: call before the first key is read.
void forbid_core_dumps();

// While one exists, a signal that ends the process at once restores `saved` on `fd` first.
class TerminalGuard {
 public:
  TerminalGuard(int fd, const termios& saved) noexcept;
  ~TerminalGuard();
  TerminalGuard(const TerminalGuard&) = delete;
  TerminalGuard& operator=(const TerminalGuard&) = delete;
};

}  // namespace lukskeep::cli
