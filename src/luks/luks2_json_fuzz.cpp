// Any text as the JSON of LUKS2, without a binary header around it, and as a token: refused with an
// Error, or a model that passes validation, is written, and read again as itself.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <lukskeep/error.h>

#include "luks/luks2_codec.h"
#include "luks/luks2_json.h"

namespace {

using namespace lukskeep;

luks::Header binary_header() {
  luks::Header header;
  header.uuid = "f9e8ff4e-2046-43b6-9cd5-5920909ef019";
  header.metadata_size_bytes = 0x4000;
  header.sequence_id = 1;
  return header;
}

void check_json(std::string_view text) {
  luks::Header header = binary_header();
  try {
    luks::decode_luks2_json(text, "input", header);
    luks::check_luks2_rules(header, "input");
  } catch (const Error&) {
    return;
  }
  // Not within the try: an Error from here is a finding.
  luks::validate_luks2(header, "model");
  const std::string json = luks::luks2_json(header);
  luks::Header again = binary_header();
  luks::decode_luks2_json(json, "again", again);
  if (again != header || luks::luks2_json(again) != json) std::abort();
}

void check_token(std::string_view text) {
  luks::Token token;
  try {
    token = luks::parse_token(text, "input");
  } catch (const Error&) {
    return;
  }
  if (luks::parse_token(token.json, "again") != token) std::abort();
  luks::Token changed = token;
  luks::set_token_keyslots(changed, {0, 31});
  if (luks::parse_token(changed.json, "changed") != changed) std::abort();
  luks::set_token_keyslots(changed, token.keyslots);
  if (luks::parse_token(changed.json, "changed back").keyslots != token.keyslots) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = as_string_view(std::as_bytes(std::span(data, size)));
  check_json(text);
  check_token(text);
  return 0;
}
