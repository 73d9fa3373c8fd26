#include <string>
#include <vector>

#include "cli/compat.h"
#include "cli/program.h"
#include "cli/signals.h"

int main(int argc, char** argv) {
  lukskeep::cli::forbid_core_dumps();
  lukskeep::cli::install_signal_handlers();
  const std::vector<std::string> arguments(argv + (argc > 0), argv + argc);
  const auto status = lukskeep::cli::run_compat(argc > 0 ? argv[0] : "", arguments);
  return status ? *status : lukskeep::cli::run_program(arguments);
}
