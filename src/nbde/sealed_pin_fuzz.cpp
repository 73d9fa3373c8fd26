// Any bytes as a JWE, and as the header of one: described or refused; what is described is written
// and read to itself.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/bytes.h"
#include "nbde/jwe.h"
#include "nbde/sealed_pin.h"

namespace {

using namespace lukskeep;

bool is_refusal(const Error& error) {
  return error.code() == Code::kDamaged || error.code() == Code::kUnsupported ||
         error.code() == Code::kInvalidArgument;
}

void check(std::string_view compact) {
  nbde::Jwe jwe;
  nbde::SealedPin pin;
  try {
    jwe = nbde::parse_compact_jwe(compact, "input");
    pin = nbde::describe(jwe, "input");
  } catch (const Error& error) {
    if (!is_refusal(error)) std::abort();
    return;
  }
  // Not within the try: an Error from here is a finding.
  if (nbde::parse_compact_jwe(nbde::to_compact(jwe), "again") != jwe) std::abort();
  if (nbde::parse_flattened_jwe(nbde::to_flattened(jwe), "again") != jwe) std::abort();
  static_cast<void>(nbde::to_json(pin));
  try {
    static_cast<void>(nbde::policy_of(pin));
  } catch (const Error& error) {
    if (!is_refusal(error)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView bytes = std::as_bytes(std::span(data, size));
  check(as_string_view(bytes));
  check(to_base64url(bytes) + "..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA");
  return 0;
}
