// Bindings for people and for programs.
#pragma once

#include <string>

#include <lukskeep/error.h>

#include "base/json.h"
#include "nbde/binding.h"
#include "nbde/sealed_pin.h"

namespace lukskeep::cli {

// "good", "damaged", "orphan" (opens nothing), "unfinished" (of a rebind that was cut), "unknown"
// (of a pin that only the program that made it knows).
std::string binding_state(const nbde::Binding& binding);

OrderedJson binding_json(const nbde::Binding& binding);
// A line, and the tree of its pins below.
std::string binding_text(const nbde::Binding& binding);

OrderedJson error_json(const Error& error);

// "tang http://a", "2 of (…, …)": on one line.
std::string pin_summary(const nbde::SealedPin& pin);

}  // namespace lukskeep::cli
