// Any bytes: decode_luks1 refuses them with an Error, or gives a header that is encoded and decoded
// to itself.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include <lukskeep/error.h>

#include "luks/luks1_codec.h"

namespace {

using namespace lukskeep;

void check(ByteView bytes) {
  luks::Header header;
  try {
    header = luks::decode_luks1(bytes, "input");
  } catch (const Error&) {
    return;
  }
  // Not within the try: an Error from here is a finding.
  const Bytes again = luks::encode_luks1(header);
  if (luks::decode_luks1(again, "again") != header) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  check(input);
  // The same as the rest of a header: the magic and the version need not be found by chance.
  constexpr std::array<unsigned char, 8> kStart = {'L', 'U', 'K', 'S', 0xba, 0xbe, 0, 1};
  Bytes header(luks::kLuks1HeaderBytes);
  std::copy_n(input.begin(), std::min(input.size(), header.size()), header.begin());
  std::transform(kStart.begin(), kStart.end(), header.begin(),
                 [](unsigned char c) { return static_cast<std::byte>(c); });
  check(header);
  return 0;
}
