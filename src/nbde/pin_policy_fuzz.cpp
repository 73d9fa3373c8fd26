// Any bytes as a policy in JSON or TOML, or as an option: refused as such, or a policy that is
// written and read to itself.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <span>
#include <string_view>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "nbde/pin_policy.h"

namespace {

using namespace lukskeep;

void check(const std::function<nbde::PinPolicy()>& parse) {
  nbde::PinPolicy policy;
  try {
    policy = parse();
  } catch (const Error& error) {
    if (error.code() != Code::kInvalidArgument && error.code() != Code::kUsage) std::abort();
    return;
  }
  const Json json = nbde::to_json(policy);
  // The JSON groups the pins: from there on it stays as it is.
  if (nbde::to_json(nbde::parse_pin_policy(json.dump(), nbde::pin_name(policy))) != json) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = as_string_view(std::as_bytes(std::span(data, size)));
  for (const char* pin : {"", "tpm2", "null"}) {
    check([&] { return nbde::parse_pin_policy(text, pin); });
  }
  check([&] { return nbde::parse_pin_policy_toml(text, "input"); });
  check([&] { return nbde::parse_tang_option(text); });
  check([&] { return nbde::parse_tpm2_option(text); });
  return 0;
}
