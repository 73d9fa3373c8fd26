#include <string>
#include <vector>

#include "cli/program.h"
#include "cli/signals.h"

int main(int argc, char** argv) {
  lukskeep::cli::forbid_core_dumps();
  lukskeep::cli::install_signal_handlers();
  return lukskeep::cli::run_program(std::vector<std::string>(argv + (argc > 0), argv + argc));
}
