// Another program, run by this one.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <sys/types.h>

#include <lukskeep/progress.h>

#include "storage/unique_fd.h"

namespace lukskeep::cli {

struct ChildSettings {
  std::string program;  // a path, or a name that is looked up in PATH
  std::vector<std::string> arguments;
  int stdin_fd = -1;             // what it reads; -1: nothing
  std::vector<int> descriptors;  // what it has besides, under the same numbers
  bool outlive = false;          // it is nobody's child: neither our end nor our terminal ends it
};

class ChildProcess {
 public:
  // Throws Error{kIo}; a program that is not there ends with status 127.
  explicit ChildProcess(const ChildSettings& settings);
  // Ends it unless it was let go: what is nobody's child is waited for a minute at most.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Reads until it has ended, or with `first_line` has written a line. Throws Error: kTimeout,
  // kInterrupted, kRemote (it says more than limits::kChildOutputBytesMax).
  void read_output(bool first_line, std::chrono::seconds timeout, const CancelToken* cancel);
  // Reads what is there already, without waiting.
  void read_what_is_there();
  // Its exit status, 128 + the signal that ended it; waits for its end, unless it is to outlive us.
  int wait();

  pid_t pid() const noexcept { return pid_; }
  const std::string& output() const noexcept { return output_; }
  // What it wrote to standard error.
  const std::string& errors() const noexcept { return errors_; }
  // It goes on when we have ended.
  void let_go() noexcept { pid_ = -1; }

 private:
  pid_t pid_ = -1;
  storage::UniqueFd process_;  // of one that is nobody's child: its number may become another's
  storage::UniqueFd output_end_;
  storage::UniqueFd errors_end_;
  std::string output_;
  std::string errors_;
};

}  // namespace lukskeep::cli
