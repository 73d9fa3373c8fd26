// What --help, `help` and the completion say about commands.
#pragma once

#include <string>

#include "cli/command.h"

namespace lukskeep::cli {

// "Usage: …", what the command does, its arguments and options.
std::string command_help(const CommandEntry& entry);
// The commands that start with `noun`, e.g. "key"; empty text if there is none.
std::string noun_help(std::string_view noun);
std::string program_help();

OrderedJson help_json();

// The entry called `name` ("key add"), or null.
const CommandEntry* find_command(std::string_view name);

// The completion script for bash.
std::string bash_completion();

}  // namespace lukskeep::cli
