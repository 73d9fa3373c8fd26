// Progress of long work on standard error: a bar for people, JSON lines for programs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include <lukskeep/progress.h>

#include "cli/options.h"
#include "cli/session.h"

namespace lukskeep::cli {

struct ProgressArgs {
  std::string mode = "auto";
  void declare(Options& options);
};

class ProgressDisplay {
 public:
  // "auto" shows a bar if standard error is a terminal and --quiet is not given.
  ProgressDisplay(const ProgressArgs& args, const Session& session);
  // Takes the bar away: what comes next starts at the beginning of an empty line.
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  // Empty if nothing is to be shown. Refers to this object.
  ProgressCallback callback();

 private:
  enum class Mode : std::uint8_t { kNone, kBar, kJson };

  void show_bar(const ProgressEvent& event);
  void show_json(const ProgressEvent& event);

  Mode mode_ = Mode::kNone;
  std::chrono::steady_clock::time_point started_;
  bool bar_shown_ = false;
};

// The bar's line for a terminal of `columns`; no control characters. Exposed for tests.
std::string progress_line(const ProgressEvent& event, double seconds, std::size_t columns);

}  // namespace lukskeep::cli
