#include "cli/session.h"

#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include "base/bytes.h"
#include "cli/terminal.h"

namespace lukskeep::cli {
namespace {

// False with errno set if not all of it could be written.
bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return true;
}

std::string to_text(const OrderedJson& json) {
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

OrderedJson error_json(const Error& error) {
  return {
      {"error",
       {{"code", code_name(error.code())}, {"message", error.message()}, {"hint", error.hint()}}}};
}

}  // namespace

void print(std::string_view text) {
  if (write_all(STDOUT_FILENO, text)) return;
  throw Error(
      errno == ENOSPC ? Code::kNoSpace : Code::kIo,
      fmt::format("cannot write to standard output: {}", std::generic_category().message(errno)));
}

void print_json(const OrderedJson& json) { print(to_text(json)); }

void show(const Session& session, const OrderedJson& json, std::string_view text) {
  if (session.json) {
    print_json(json);
  } else {
    print(text);
  }
}

void report(const Session& session, OrderedJson json, std::string_view text) {
  if (session.json) {
    json["dry_run"] = session.dry_run;
    print_json(json);
  } else if (!session.quiet) {
    print(fmt::format("{}{}\n", session.dry_run ? "dry run: " : "", text));
  }
}

void warn(std::string_view message) {
  static_cast<void>(write_all(STDERR_FILENO, fmt::format("lukskeep: warning: {}\n", message)));
}

void print_error(const Error& error, bool json) {
  std::string text = fmt::format("lukskeep: error: {}\n", error.message());
  if (!error.hint().empty()) text += fmt::format("lukskeep: hint: {}\n", error.hint());
  static_cast<void>(write_all(STDERR_FILENO, text));
  if (json) static_cast<void>(write_all(STDOUT_FILENO, to_text(error_json(error))));
}

void confirm(const Session& session, std::string_view question, const Error& refusal) {
  if (session.yes) return;
  if (session.dry_run) {
    return warn(fmt::format("{}: this would have to be confirmed", refusal.message()));
  }
  std::optional<Terminal> terminal = Terminal::open();
  if (!terminal) throw Error(refusal.code(), refusal.message(), "add --yes to do it nevertheless");
  const std::string answer =
      terminal->ask(fmt::format("{}\nType YES to go on: ", question), *session.cancel);
  if (answer != "YES") throw Error(refusal);
}

keys::Prompter terminal_prompter(const Session& session) {
  return [cancel = session.cancel](const keys::PromptRequest& request) {
    std::optional<Terminal> terminal = Terminal::open();
    if (!terminal) {
      throw Error(Code::kUsage, fmt::format("there is no terminal to ask for the {}", request.text),
                  "name a key source, e.g. --key file:PATH");
    }
    SecretBytes first = terminal->ask_secret(fmt::format("Enter {}: ", request.text), *cancel);
    if (!request.confirm || first.empty()) return first;
    const SecretBytes second =
        terminal->ask_secret(fmt::format("Repeat {}: ", request.text), *cancel);
    if (!equal_constant_time(first.span(), second.span())) {
      throw Error(Code::kUsage, "the two passphrases are not the same");
    }
    return first;
  };
}

}  // namespace lukskeep::cli
