#include "cli/compat_io.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/terminal.h"

namespace lukskeep::cli {
namespace {

constexpr int kCancelPollMs = 100;
constexpr std::size_t kReadBytes = std::size_t{64} << 10;

// 0 at the end of the input.
std::size_t read_input(std::span<std::byte> into, const CancelToken& cancel) {
  while (true) {
    cancel.check();
    pollfd waiting{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    const int ready = poll(&waiting, 1, kCancelPollMs);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    const ssize_t got = read(STDIN_FILENO, into.data(), into.size());
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == EINTR || errno == EAGAIN) continue;
    throw Error(Code::kIo, fmt::format("cannot read standard input: {}",
                                       std::generic_category().message(errno)));
  }
}

bool is_yes(std::string_view answer) { return answer == "y" || answer == "Y"; }

// Byte by byte: what follows the newline is the next question's.
std::optional<InputLine> read_line(const CancelToken& cancel) {
  InputLine line{.text = SecretBytes(limits::kPromptBytesMax + 1)};
  std::size_t have = 0;
  bool any = false;
  while (true) {
    std::byte& next = line.text.span()[have];
    if (read_input({&next, 1}, cancel) == 0) {
      line.ended = true;
      break;
    }
    any = true;
    if (next == std::byte{'\n'}) break;
    if (next == std::byte{0}) continue;
    if (++have > limits::kPromptBytesMax) {
      throw Error(
          Code::kInvalidArgument,
          fmt::format("a line on standard input is longer than {} bytes", limits::kPromptBytesMax),
          "long passphrases come from a file: -k FILE");
    }
  }
  if (!any) return std::nullopt;
  line.text.truncate(have);
  return line;
}

}  // namespace

std::string ShortOptions::value(char letter) const {
  const auto found = given.find(letter);
  return found == given.end() ? std::string() : found->second;
}

ShortOptions parse_short_options(std::span<const std::string> arguments, std::string_view letters) {
  ShortOptions options;
  std::size_t i = 0;
  for (; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word.size() < 2 || word[0] != '-') break;
    if (word == "--") {
      ++i;
      break;
    }
    for (std::size_t at = 1; at < word.size(); ++at) {
      const std::size_t known = word[at] == ':' ? std::string_view::npos : letters.find(word[at]);
      if (known == std::string_view::npos) {
        options.wrong = true;
        continue;
      }
      std::string& value = options.given[word[at]];
      if (known + 1 >= letters.size() || letters[known + 1] != ':') continue;
      if (at + 1 < word.size()) {
        value = word.substr(at + 1);
      } else if (++i < arguments.size()) {
        value = arguments[i];
      } else {
        options.wrong = true;
      }
      break;
    }
  }
  i = std::min(i, arguments.size());
  options.rest.assign(arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.end());
  return options;
}

void say(std::string_view line) {
  const std::string text = fmt::format("{}\n", line);
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;
    done += static_cast<std::size_t>(wrote);
  }
}

int compat_usage(std::string_view text, int status) {
  say(fmt::format("\nUsage: {}\n\nlukskeep-compat(7) describes the options", text));
  return status;
}

int compat_missing(std::string_view what, std::string_view text, int status) {
  say(fmt::format("Did not specify {}!", what));
  return compat_usage(text, status);
}

std::optional<InputLine> read_secret_line(std::string_view question, const CancelToken& cancel) {
  if (isatty(STDIN_FILENO) != 0) {
    if (auto terminal = Terminal::open()) {
      return InputLine{.text = terminal->ask_secret(question, cancel)};
    }
  }
  return read_line(cancel);
}

bool read_yes(std::string_view question, const CancelToken& cancel) {
  if (isatty(STDIN_FILENO) != 0) {
    if (auto terminal = Terminal::open()) return is_yes(terminal->ask(question, cancel));
  }
  const auto line = read_line(cancel);
  return line && is_yes(as_string_view(line->text.span()));
}

bool terminal_yes(std::string_view question, std::string_view hint, const CancelToken& cancel) {
  auto terminal = Terminal::open();
  if (!terminal) {
    throw Error(Code::kUnsafe, "there is no terminal to ask on", std::string(hint));
  }
  return is_yes(terminal->ask(question, cancel));
}

SecretBytes read_all_input(std::size_t bytes_max, const CancelToken& cancel) {
  SecretBytes bytes(std::min(kReadBytes, bytes_max + 1));
  std::size_t have = 0;
  while (true) {
    if (have == bytes.size()) {
      if (have > bytes_max) {
        throw Error(Code::kInvalidArgument,
                    fmt::format("standard input has more than {} bytes", bytes_max));
      }
      SecretBytes larger(std::min(bytes.size() * 2, bytes_max + 1));
      std::ranges::copy(bytes.span(), larger.data());
      bytes = std::move(larger);
    }
    const std::size_t got = read_input(bytes.span().subspan(have), cancel);
    if (got == 0) break;
    have += got;
  }
  bytes.truncate(have);
  return bytes;
}

std::optional<int> parse_slot(std::string_view text, int end) {
  int number = -1;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || stop != text.data() + text.size() || number < 0 || number >= end) {
    return std::nullopt;
  }
  return number;
}

}  // namespace lukskeep::cli
