// What programs that stand in for shell scripts share: arguments as getopts takes them, and what
// `read` reads.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

namespace lukskeep::cli {

// Options of one letter, up to the first word that is none, as getopts(1).
struct ShortOptions {
  std::map<char, std::string> given;  // the last value of each; of flags empty
  std::vector<std::string> rest;
  bool wrong = false;  // one that is not known, or without its value

  bool has(char letter) const { return given.contains(letter); }
  // Empty if it was not given.
  std::string value(char letter) const;
};

// `letters` as getopts: "fd:" takes -f, and -d with a value.
ShortOptions parse_short_options(std::span<const std::string> arguments, std::string_view letters);

// Standard error, with a newline; what cannot be written is lost.
void say(std::string_view line);

// Says how the program is called, and gives `status`.
int compat_usage(std::string_view text, int status);
// The same, after what was not given ("a device").
int compat_missing(std::string_view what, std::string_view text, int status);

// A line from standard input without its newline, NUL bytes left out; where that is a terminal,
// `question` is asked there, and secret lines are not shown. Absent at the end of the input. Throws
// Error: kInterrupted, kInvalidArgument (too long), kIo.
struct InputLine {
  SecretBytes text;
  bool ended = false;  // there was no newline
};
std::optional<InputLine> read_secret_line(std::string_view question, const CancelToken& cancel);
// Whether the answer to a question on standard input is y or Y. False at the end of the input.
bool read_yes(std::string_view question, const CancelToken& cancel);
// The same from the terminal, wherever standard input comes from. Throws Error{kUnsafe} with `hint`
// if there is none.
bool terminal_yes(std::string_view question, std::string_view hint, const CancelToken& cancel);

// Standard input to its end. Throws Error{kInvalidArgument} beyond `bytes_max`.
SecretBytes read_all_input(std::size_t bytes_max, const CancelToken& cancel);

// A keyslot or token number; absent if `text` is none below `end`.
std::optional<int> parse_slot(std::string_view text, int end);

}  // namespace lukskeep::cli
