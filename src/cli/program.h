// The program: picks the command, runs it, and turns errors into messages and exit statuses.
#pragma once

#include <string>
#include <vector>

namespace lukskeep::cli {

// `arguments` without the program's name. Returns the exit status; throws nothing.
int run_program(const std::vector<std::string>& arguments) noexcept;

}  // namespace lukskeep::cli
