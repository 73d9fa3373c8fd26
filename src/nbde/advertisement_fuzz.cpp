// Advertisements: whatever a server answers is accepted or refused with an Error.
#include <cstddef>
#include <cstdint>

#include <lukskeep/error.h>

#include "nbde/advertisement.h"

namespace {

// Refused is as good as accepted; anything but an Error is a fault.
template <typename Call>
void try_to(const Call& call) {
  try {
    call();
  } catch (const lukskeep::Error& error) {
    static_cast<void>(error.code());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lukskeep;
  const ByteView bytes = std::as_bytes(std::span(data, size));
  const std::string_view text = as_string_view(bytes);
  try_to([&] {
    const auto advertisement = nbde::parse_advertisement(text, "input");
    static_cast<void>(nbde::find_key(advertisement.keys, "x"));
  });
  // Signatures stop nearly every input above; the key set behind them is read here too.
  try_to([&] {
    for (const nbde::EcKey& key : nbde::parse_key_set(parse_json(text, "input"), "input")) {
      static_cast<void>(nbde::parse_public_key(nbde::public_jwk(key), "again"));
    }
  });
  try_to([&] { static_cast<void>(nbde::private_jwk_text(nbde::parse_ec_key(bytes, "input"))); });
  return 0;
}
