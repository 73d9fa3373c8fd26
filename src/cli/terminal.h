// Questions on the terminal that controls the process, wherever its streams go.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

namespace lukskeep::cli {

class Terminal {
 public:
  // Absent if the process has no controlling terminal.
  static std::optional<Terminal> open();

  Terminal(Terminal&& other) noexcept;
  Terminal& operator=(Terminal&&) = delete;
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal();

  // One line without its newline, not shown while it is typed. Throws Error: kInterrupted (signal,
  // or end of input), kInvalidArgument (longer than limits::kPromptBytesMax), kIo.
  SecretBytes ask_secret(std::string_view question, const CancelToken& cancel);
  // One line, shown while it is typed. Throws likewise.
  std::string ask(std::string_view question, const CancelToken& cancel);
  void say(std::string_view text);

 private:
  explicit Terminal(int fd) noexcept : fd_(fd) {}
  SecretBytes read_line(const CancelToken& cancel);

  int fd_;
};

}  // namespace lukskeep::cli
