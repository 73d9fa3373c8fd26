#include "cli/program.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/keeper.h"
#include "base/bytes.h"
#include "cli/archive_args.h"
#include "cli/backing_keys.h"
#include "cli/command.h"
#include "cli/help_text.h"
#include "cli/mirrors.h"
#include "cli/session.h"
#include "cli/signals.h"
#include "cli/volume_access.h"

namespace lukskeep::cli {
namespace {

using Arguments = std::span<const std::string>;

bool asks_for(Arguments arguments, std::string_view option) {
  const auto end = std::find(arguments.begin(), arguments.end(), "--");
  return std::find(arguments.begin(), end, option) != end;
}

struct Chosen {
  const CommandEntry* entry = nullptr;
  Arguments rest;
};

// One word or two: "info", "key add".
Chosen choose_command(Arguments arguments) {
  if (const CommandEntry* entry = find_command(arguments[0])) {
    return {.entry = entry, .rest = arguments.subspan(1)};
  }
  if (arguments.size() > 1) {
    const std::string two_words = fmt::format("{} {}", arguments[0], arguments[1]);
    if (const CommandEntry* entry = find_command(two_words)) {
      return {.entry = entry, .rest = arguments.subspan(2)};
    }
  }
  return {};
}

[[noreturn]] void refuse_command(Arguments arguments) {
  const std::string& word = arguments[0];
  if (word.starts_with("-")) {
    throw Error(Code::kUsage, fmt::format("'{}' stands before the command", printable(word)),
                "write 'lukskeep COMMAND … [OPTION…]'; 'lukskeep help' lists the commands");
  }
  if (noun_help(word).empty()) {
    throw Error(Code::kUsage, fmt::format("there is no command '{}'", printable(word)),
                "'lukskeep help' lists the commands");
  }
  const std::string hint = fmt::format("'lukskeep help {}' lists the verbs", word);
  if (arguments.size() == 1 || arguments[1].starts_with("-")) {
    throw Error(Code::kUsage, fmt::format("'lukskeep {}' wants a verb", word), hint);
  }
  throw Error(Code::kUsage,
              fmt::format("there is no command '{} {}'", word, printable(arguments[1])), hint);
}

int show_help(const std::string& text) {
  print(text);
  return EXIT_SUCCESS;
}

// The exit status.
int run_command(const Chosen& chosen) {
  if (asks_for(chosen.rest, "--help")) return show_help(command_help(*chosen.entry));
  Outcome outcome;
  Session session{.cancel = &cancel_token(), .outcome = &outcome};
  const std::unique_ptr<Command> command = chosen.entry->make();
  try {
    options_of(*chosen.entry, *command, session).parse(chosen.rest);
  } catch (const Error& error) {
    if (error.code() != Code::kUsage || !error.hint().empty()) throw;
    throw Error(Code::kUsage, error.message(),
                fmt::format("'lukskeep {} --help' lists what it takes", chosen.entry->name));
  }
  use_backing_keys(session);
  if (chosen.entry->archives && !session.no_archive && !session.dry_run) {
    run_archiving(chosen.entry->name, session,
                  [&](const Session& archiving) { command->run(archiving); });
  } else {
    command->run(session);
  }
  return outcome.exit_status;
}

int run(Arguments arguments) {
  if (arguments.empty()) {
    throw Error(Code::kUsage, "no command is given", "'lukskeep help' lists the commands");
  }
  const Chosen chosen = choose_command(arguments);
  if (chosen.entry != nullptr) return run_command(chosen);
  if (arguments[0] == "--help" || arguments[0] == "-h") return show_help(program_help());
  if (arguments[0] == "--version") {
    return run_command({.entry = find_command("version"), .rest = arguments.subspan(1)});
  }
  if (asks_for(arguments, "--help") && !noun_help(arguments[0]).empty()) {
    return show_help(noun_help(arguments[0]));
  }
  refuse_command(arguments);
}

int fail(const Error& error, bool json) {
  print_error(error, json);
  return exit_status(error.code());
}

int run_and_report(const std::vector<std::string>& arguments) {
  const bool json = asks_for(arguments, "--json");
  try {
    return run(arguments);
  } catch (const Error& error) {
    return fail(error, json);
  } catch (const std::bad_alloc&) {
    return fail(Error(Code::kOutOfMemory, "out of memory"), json);
  } catch (const std::exception& error) {
    return fail(Error(Code::kInternal, fmt::format("internal error: {}", error.what()),
                      "this is a fault of lukskeep: please report it"),
                json);
  }
}

}  // namespace

void run_archiving(std::string_view command, Session session,
                   const std::function<void(const Session&)>& work) {
  const std::optional<std::string> directory = default_store();
  if (!directory) return work(session);
  archive::Keeper keeper(
      *directory, default_identity, std::string(command),
      [](const std::string& path) { return storage::open_location(path, with_named_files({})); });
  session.keeper = &keeper;
  const auto tell_of_made = [&] {
    if (keeper.made_with()) tell_of_new_archive(session, *directory, *keeper.made_with());
  };
  try {
    work(session);
  } catch (...) {
    // What failed may have got far enough to change a header; if not there is nothing to say of it.
    static_cast<void>(keeper.after());
    tell_of_made();
    if (keeper.used_store() != nullptr) settle_mirrors(session, *keeper.used_store());
    throw;
  }
  for (const std::string& problem : keeper.after()) warn(problem);
  tell_of_made();
  if (keeper.used_store() != nullptr) settle_mirrors(session, *keeper.used_store());
}

int run_program(const std::vector<std::string>& arguments) noexcept {
  try {
    return run_and_report(arguments);
  } catch (...) {
    // Not even the message could be made.
    return exit_status(Code::kOutOfMemory);
  }
}

}  // namespace lukskeep::cli
