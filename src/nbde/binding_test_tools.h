// Bindings that need no server, for tests: sealed by the pin "null".
#pragma once

#include <string_view>

#include "nbde/seal.h"

namespace lukskeep::nbde::testing {

inline Jwe seal_null(ByteView plain) {
  return seal(PinPolicy{.pin = NullPin{}}, plain, PinContext{});
}

inline Jwe null_jwe(std::string_view plain) { return seal_null(as_byte_view(plain)); }

inline SecretBytes open_null(const Jwe& jwe) { return unseal(jwe, PinContext{}); }

}  // namespace lukskeep::nbde::testing
