// Any bytes as one metadata copy: refused with an Error, or a header that is encoded and decoded to
// itself. The bytes are tried as they are, as primary and as secondary, and then with everything
// put right that chance would never find (magic, size, place, checksum), so that the JSON is
// reached.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include <lukskeep/error.h>

#include "crypto/hash.h"
#include "luks/luks2_codec.h"

namespace {

using namespace lukskeep;

constexpr std::size_t kCopyBytes = 0x4000;

void check_encodes(const luks::Header& header) {
  const Bytes salt(64, std::byte{1});
  for (const auto copy : {luks::Luks2Copy::kPrimary, luks::Luks2Copy::kSecondary}) {
    const bool primary = copy == luks::Luks2Copy::kPrimary;
    Bytes again;
    try {
      again = luks::encode_luks2(header, copy, salt);
    } catch (const Error& error) {
      // The array form of "requirements" is shorter than the one we write.
      if (error.code() == Code::kNoSpace) return;
      throw;
    }
    const std::uint64_t offset = primary ? 0 : header.metadata_size_bytes;
    if (luks::decode_luks2(again, offset, "again") != header) std::abort();
  }
}

void check(ByteView bytes, std::uint64_t offset_bytes) {
  luks::Header header;
  try {
    (void)luks::decode_luks2_prefix(bytes, offset_bytes, "input");
    header = luks::decode_luks2(bytes, offset_bytes, "input");
  } catch (const Error&) {
    return;
  }
  check_encodes(header);
}

void put_right(Bytes& copy) {
  constexpr std::array<unsigned char, 8> kStart = {'L', 'U', 'K', 'S', 0xba, 0xbe, 0, 2};
  std::transform(kStart.begin(), kStart.end(), copy.begin(),
                 [](unsigned char c) { return static_cast<std::byte>(c); });
  copy.resize(kCopyBytes);
  store_be(&copy[8], std::uint64_t{kCopyBytes});
  store_be(&copy[256], std::uint64_t{0});
  copy.back() = std::byte{0};
  const ByteView name = as_byte_view("sha256");
  std::fill_n(copy.begin() + 72, 32, std::byte{0});
  std::copy(name.begin(), name.end(), copy.begin() + 72);
  std::fill_n(copy.begin() + 448, 64, std::byte{0});
  const Bytes sum = crypto::hash("sha256", copy);
  std::copy(sum.begin(), sum.end(), copy.begin() + 448);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  check(input, 0);
  check(input, kCopyBytes);
  Bytes copy(input.begin(), input.end());
  copy.resize(std::max<std::size_t>(copy.size(), 512));
  put_right(copy);
  check(copy, 0);
  return 0;
}
