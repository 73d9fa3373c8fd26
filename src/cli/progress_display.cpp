#include "cli/progress_display.h"

#include <algorithm>
#include <string_view>

#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/json.h"
#include "cli/units.h"

namespace lukskeep::cli {
namespace {

constexpr std::size_t kBarCellsMax = 40;
constexpr std::string_view kClearLine = "\r\x1b[K";

// A terminal that went away is no reason to stop the work.
void to_stderr(std::string_view text) {
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

std::size_t terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

void ProgressArgs::declare(Options& options) {
  options.add({.name = "--progress",
               .value = "WHEN",
               .help = "auto: a bar on a terminal; json: lines for programs; none",
               .choices = {"auto", "json", "none"}},
              mode);
}

ProgressDisplay::ProgressDisplay(const ProgressArgs& args, const Session& session)
    : started_(std::chrono::steady_clock::now()) {
  if (args.mode == "json") mode_ = Mode::kJson;
  if (args.mode == "auto" && !session.quiet && isatty(STDERR_FILENO) == 1) mode_ = Mode::kBar;
}

ProgressDisplay::~ProgressDisplay() {
  if (bar_shown_) to_stderr(kClearLine);
}

ProgressCallback ProgressDisplay::callback() {
  if (mode_ == Mode::kBar) return [this](const ProgressEvent& event) { show_bar(event); };
  if (mode_ == Mode::kJson) return [this](const ProgressEvent& event) { show_json(event); };
  return {};
}

void ProgressDisplay::show_bar(const ProgressEvent& event) {
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started_;
  bar_shown_ = true;
  to_stderr(
      fmt::format("{}{}", kClearLine, progress_line(event, elapsed.count(), terminal_columns())));
}

void ProgressDisplay::show_json(const ProgressEvent& event) {
  OrderedJson json = {{"phase", event.phase}, {"done_bytes", event.done_bytes}};
  if (event.total_bytes) json["total_bytes"] = *event.total_bytes;
  to_stderr(OrderedJson{{"progress", json}}.dump() + "\n");
}

std::string progress_line(const ProgressEvent& event, double seconds, std::size_t columns) {
  const double rate = seconds > 0 ? static_cast<double>(event.done_bytes) / seconds : 0;
  const std::string speed = fmt::format("{}/s", human_size(static_cast<std::uint64_t>(rate)));
  if (!event.total_bytes) {
    return fmt::format("{}  {}  {}", event.phase, human_size(event.done_bytes), speed)
        .substr(0, columns);
  }
  const std::uint64_t total = std::max<std::uint64_t>(*event.total_bytes, 1);
  const std::uint64_t done = std::min(event.done_bytes, total);
  const double part = static_cast<double>(done) / static_cast<double>(total);
  std::string tail = fmt::format(" {:3.0f} %  {}", part * 100, speed);
  if (rate > 0 && done < total) {
    const double left = static_cast<double>(total - done) / rate;
    tail += fmt::format("  {} left", human_duration(static_cast<std::uint64_t>(left) + 1));
  }
  const std::size_t fixed = event.phase.size() + tail.size() + 4;
  if (fixed + 4 >= columns) return fmt::format("{}{}", event.phase, tail).substr(0, columns);
  const std::size_t cells = std::min(kBarCellsMax, columns - fixed);
  const auto full = static_cast<std::size_t>(part * static_cast<double>(cells));
  return fmt::format("{}  [{}{}]{}", event.phase, std::string(full, '='),
                     std::string(cells - full, ' '), tail);
}

}  // namespace lukskeep::cli
