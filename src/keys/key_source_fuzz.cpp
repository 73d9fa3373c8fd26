// Any text either parses to a source that its own spelling parses back to, or throws Error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <lukskeep/error.h>

#include "keys/key_source.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using lukskeep::keys::KeySource;
  const std::string_view uri(reinterpret_cast<const char*>(data), size);
  KeySource source;
  try {
    source = lukskeep::keys::parse_key_source(uri);
  } catch (const lukskeep::Error& error) {
    if (error.code() != lukskeep::Code::kUsage && error.code() != lukskeep::Code::kUnsupported) {
      std::abort();
    }
    return 0;
  }
  if (lukskeep::keys::parse_key_source(lukskeep::keys::to_string(source)) != source) std::abort();
  return 0;
}
