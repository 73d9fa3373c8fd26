#include "server/nbd/system_log.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

#include <syslog.h>
#include <unistd.h>

namespace lukskeep::server {
namespace {

constexpr std::size_t kLineBytesMax = 2048;  // what is longer comes as several messages
// The stream, and with it this and the functions below, lives as long as the process: the plugin is
// linked so that it stays when nbdkit unloads it.
std::array<char, kLineBytesMax> g_line;

void log_lines(std::string_view text) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (!line.empty()) {
      ::syslog(LOG_ERR, "%.*s", static_cast<int>(line.size()), line.data());
    }
  }
}

ssize_t write_both(void*, const char* text, std::size_t size) {
  // Whoever started this may have gone, and its end of a pipe with it.
  static_cast<void>(!::write(STDERR_FILENO, text, size));
  log_lines({text, size});
  return static_cast<ssize_t>(size);
}

}  // namespace

void copy_errors_to_system_log() {
  ::openlog("lukskeep", LOG_PID, LOG_DAEMON);
  FILE* const both = ::fopencookie(nullptr, "w", {.write = write_both});
  if (both == nullptr) return;
  static_cast<void>(std::setvbuf(both, g_line.data(), _IOLBF, g_line.size()));
  // A variable, in glibc: nbdkit and the libraries in this process print to the same one.
  stderr = both;
}

}  // namespace lukskeep::server
