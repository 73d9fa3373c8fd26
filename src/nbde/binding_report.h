// What is wrong with the bindings of a volume, or will be: found before it is needed.
#pragma once

#include <string>
#include <vector>

#include "luks/header_file.h"
#include "nbde/binding.h"
#include "nbde/seal.h"

namespace lukskeep::nbde {

struct BindingFinding {
  // "orphan", "damaged", "unfinished", "pending", "saved", "unknown-pin", "weak", "rotated",
  // "untrusted", "down", "fails" (a share does not open), "no-spare"
  std::string code;
  int keyslot = -1;
  std::string url;  // of the server that it is about
  std::string problem;
  std::string advice;  // may be empty
};

// With `ask`, every share is asked to open, and every Tang server for its keys, all within the
// limits of `context`; else only what the header says. What was opened is wiped at once. Throws
// what list_bindings throws, and kInterrupted.
std::vector<BindingFinding> report_bindings(const luks::HeaderFile& file, const PinContext& context,
                                            bool ask);

}  // namespace lukskeep::nbde
