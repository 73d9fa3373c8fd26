// Any bytes as a policy file: refused with kInvalidArgument, or a policy that is written and read
// to itself. Any bytes as the names in a header: judged without a throw.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "luks/policy.h"

namespace {

using namespace lukskeep;

// `name` wherever a header has one.
luks::Header header_of(const std::string& name) {
  luks::Header header;
  luks::Keyslot keyslot{.type_name = name, .key_size_bytes = 64};
  keyslot.area.encryption = name;
  keyslot.area.key_size_bytes = 64;
  keyslot.kdf.type_name = name;
  keyslot.kdf.hash = name;
  keyslot.af.hash = name;
  header.keyslots.emplace(0, keyslot);
  luks::Segment segment{.type_name = name, .encryption = name, .flags = {name}};
  header.segments.emplace(0, segment);
  luks::Digest digest{.type_name = name, .keyslots = {0}, .segments = {0}, .hash = name};
  digest.digest.resize(name.size() % 65);
  header.digests.emplace(0, digest);
  header.tokens.emplace(0, luks::Token{.type = name, .keyslots = {}, .json = "{}"});
  header.config.flags = {name};
  header.config.requirements = {name};
  return header;
}

void check_judgement(const luks::Policy& policy, const luks::Header& header) {
  for (const luks::Violation& violation : luks::judge(policy, header)) {
    // Fit for a terminal, whatever the header says.
    if (std::ranges::any_of(violation.message,
                            [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
      std::abort();
    }
  }
}

void check_policy(std::string_view text, const luks::Header& header) {
  luks::Policy policy;
  try {
    policy = luks::parse_policy(text, "input");
  } catch (const Error& error) {
    if (error.code() != Code::kInvalidArgument) std::abort();
    return;
  }
  // Not within the try: an Error from here is a finding.
  if (luks::parse_policy(luks::to_toml(policy), "again") != policy) std::abort();
  check_judgement(policy, header);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = as_string_view(std::as_bytes(std::span(data, size)));
  static const luks::Policy kUntrusted = luks::load_policy("untrusted");
  const luks::Header header = header_of(std::string(input.substr(0, 256)));
  check_judgement(kUntrusted, header);
  check_policy(input, header);
  return 0;
}
