// The program: picks the command, runs it, and turns errors into messages and exit statuses.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/session.h"

namespace lukskeep::cli {

// `arguments` without the program's name. Returns the exit status; throws nothing.
int run_program(const std::vector<std::string>& arguments) noexcept;

// Runs `work` with a session whose keeper saves what it changes to the user's archive, if there is
// one: also what it changed before it threw. `command` is what snapshots say made them.
void run_archiving(std::string_view command, Session session,
                   const std::function<void(const Session&)>& work);

}  // namespace lukskeep::cli
