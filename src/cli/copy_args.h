// What `encrypt` and `decrypt` have in common: the options of the copy, pipes, the target.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <lukskeep/device.h>
#include <lukskeep/header.h>

#include "cli/options.h"
#include "cli/progress_display.h"
#include "cli/session.h"
#include "storage/copy.h"

namespace lukskeep::cli {

// A path that means standard input or output.
inline bool is_pipe(const std::string& path) { return path == "-"; }

// --holes, --limit-rate, --direct, --progress.
struct CopyArgs {
  std::string holes = "fill";
  bool direct = false;
  std::optional<std::uint64_t> rate_limit_bytes;
  ProgressArgs progress;

  void declare(Options& options);
  bool keep_holes() const { return holes == "keep"; }
  storage::CopyOptions copy_options(const Session& session, std::string_view phase) const;
};

// Payloads go to files and pipes, not onto screens; and standard output holds one thing only.
void check_stdout_is_free(const Session& session);
// Says on standard error, if the payload of `header` on `payload` has holes, what they decrypt to.
void warn_of_holes(const luks::Header& header, const Device& payload);
// Two things cannot both be read from standard input.
void check_stdin_is_free(const std::string& key_source);

}  // namespace lukskeep::cli
