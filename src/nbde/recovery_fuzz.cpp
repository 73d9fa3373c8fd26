// Any bytes as a request, an answer or a state of a recovery: refused as such, or written and read
// to itself in every form.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "crypto/hash.h"
#include "nbde/recovery.h"
#include "nbde/recovery_kit.h"
#include "nbde/recovery_text.h"

namespace {

using namespace lukskeep;

template <typename Parse>
void check(std::string_view text, const Parse& parse) {
  decltype(parse(text)) kit;
  try {
    kit = parse(text);
  } catch (const Error& error) {
    if (error.code() != Code::kInvalidArgument) std::abort();
    return;
  }
  // Not within the try: an Error from here is a finding.
  const Bytes packed = nbde::pack(kit);
  if (parse(nbde::to_json(kit).dump()) != kit) std::abort();
  if (parse(nbde::to_spoken_lines(packed, "X")) != kit) std::abort();
  if (parse(nbde::to_qr_text(packed)) != kit) std::abort();
}

void check_both(std::string_view text) {
  check(text, [](std::string_view t) { return nbde::parse_recovery_request(t, "input"); });
  check(text, [](std::string_view t) { return nbde::parse_recovery_answer(t, "input"); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView bytes = std::as_bytes(std::span(data, size));
  check_both(as_string_view(bytes));
  // Past the alphabet and the checksum.
  Bytes packed(bytes.begin(), bytes.end());
  const Bytes digest = crypto::hash("sha256", packed);
  packed.insert(packed.end(), digest.begin(), digest.begin() + 4);
  check_both(nbde::to_qr_text(packed));
  try {
    const auto state = nbde::parse_recovery_state(bytes, "input");
    static_cast<void>(nbde::parse_recovery_state(nbde::to_text(state).span(), "again"));
  } catch (const Error& error) {
    if (error.code() != Code::kInvalidArgument) std::abort();
  }
  return 0;
}
