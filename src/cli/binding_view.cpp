#include "cli/binding_view.h"

#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/bytes.h"
#include "cli/pin_args.h"

namespace lukskeep::cli {
namespace {

// Absent if what is sealed says nothing that could be shown; `problem` then says why.
std::optional<nbde::SealedPin> try_describe(const nbde::Binding& binding, std::string& problem) {
  problem = binding.problem;
  if (!binding.jwe) return std::nullopt;
  try {
    return nbde::describe(*binding.jwe, "the binding");
  } catch (const Error& error) {
    if (error.code() != Code::kDamaged && error.code() != Code::kUnsupported) throw;
    problem = error.message();
    return std::nullopt;
  }
}

template <typename T>
OrderedJson or_null(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

}  // namespace

std::string binding_state(const nbde::Binding& binding) {
  if (binding.orphan) return "orphan";
  std::string problem;
  const auto pin = try_describe(binding, problem);
  if (!pin) return "damaged";
  if (binding.replaces || binding.leftover) return "unfinished";
  return nbde::is_known_pin(pin->pin) ? "good" : "unknown";
}

OrderedJson binding_json(const nbde::Binding& binding) {
  std::string problem;
  const auto pin = try_describe(binding, problem);
  OrderedJson json = {
      {"keyslot", binding.keyslot < 0 ? OrderedJson(nullptr) : OrderedJson(binding.keyslot)},
      {"token", or_null(binding.token)},
      {"state", binding_state(binding)},
      {"replaces", or_null(binding.replaces)},
      {"pin", pin ? nbde::to_json(*pin) : OrderedJson(nullptr)}};
  if (!problem.empty()) json["problem"] = problem;
  return json;
}

std::string binding_text(const nbde::Binding& binding) {
  std::string problem;
  const auto pin = try_describe(binding, problem);
  std::string text =
      binding.keyslot < 0 ? "  no keyslot" : fmt::format("  keyslot {}", binding.keyslot);
  if (binding.token) text += fmt::format(", token {}", *binding.token);
  text += ": " + binding_state(binding);
  if (binding.replaces) text += fmt::format(", to take the place of {}", *binding.replaces);
  if (!problem.empty()) text += ", " + problem;
  text += "\n";
  return pin ? text + pin_tree_text(*pin, 1) : text;
}

OrderedJson error_json(const Error& error) {
  return {{"code", code_name(error.code())}, {"message", error.message()}, {"hint", error.hint()}};
}

std::string pin_summary(const nbde::SealedPin& pin) {
  const std::string state = pin.state == nbde::ShareState::kConfirmed
                                ? ""
                                : fmt::format(" ({})", nbde::share_state_name(pin.state));
  if (pin.pin == "tang") return fmt::format("tang {}{}", printable(pin.url, 256), state);
  if (pin.pin == "tpm2" && !pin.tpm2.pcrs.empty()) {
    return fmt::format("tpm2 with PCRs {}{}", fmt::join(pin.tpm2.pcrs, "+"), state);
  }
  if (pin.pin != "sss") return printable(pin.pin) + state;
  std::string shares;
  for (const nbde::SealedPin& share : pin.shares) {
    shares += fmt::format("{}{}", shares.empty() ? "" : ", ", pin_summary(share));
  }
  return fmt::format("{} of ({})", pin.threshold, shares);
}

}  // namespace lukskeep::cli
