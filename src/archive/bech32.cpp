#include "archive/bech32.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace lukskeep::archive {
namespace {

constexpr std::string_view kAlphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
constexpr std::size_t kChecksumChars = 6;
constexpr std::size_t kTextCharsMax = 256;

// BIP 173, "Checksum".
class Checksum {
 public:
  explicit Checksum(std::string_view prefix) {
    for (const char c : prefix) add(static_cast<std::uint8_t>(c) >> 5U);
    add(0);
    for (const char c : prefix) add(static_cast<std::uint8_t>(c) & 31U);
  }

  void add(std::uint32_t value) {
    constexpr std::array<std::uint32_t, 5> kGenerator = {0x3b6a57b2, 0x26508e6d, 0x1ea119fa,
                                                         0x3d4233dd, 0x2a1462b3};
    const std::uint32_t top = state_ >> 25U;
    state_ = ((state_ & 0x1ffffffU) << 5U) ^ value;
    for (std::size_t i = 0; i < kGenerator.size(); ++i) {
      if (((top >> i) & 1U) != 0) state_ ^= kGenerator[i];
    }
  }

  std::uint32_t state() const { return state_; }

 private:
  std::uint32_t state_ = 1;
};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }

}  // namespace

SecretBytes bech32_encode(std::string_view prefix, ByteView data) {
  const std::size_t groups = (data.size() * 8 + 4) / 5;
  SecretBytes text(prefix.size() + 1 + groups + kChecksumChars);
  std::size_t at = 0;
  const auto put = [&](char c) { text.span()[at++] = static_cast<std::byte>(c); };
  for (const char c : prefix) put(c);
  put('1');
  Checksum checksum(prefix);
  std::uint32_t bits = 0;
  unsigned count = 0;
  const auto put_group = [&](std::uint32_t group) {
    checksum.add(group);
    put(kAlphabet[group]);
  };
  for (const std::byte byte : data) {
    bits = (bits << 8U) | static_cast<std::uint32_t>(byte);
    for (count += 8; count >= 5; count -= 5) put_group((bits >> (count - 5)) & 31U);
    bits &= 0xffU;
  }
  if (count > 0) put_group((bits << (5 - count)) & 31U);
  for (std::size_t i = 0; i < kChecksumChars; ++i) checksum.add(0);
  const std::uint32_t sum = checksum.state() ^ 1U;
  for (std::size_t i = 0; i < kChecksumChars; ++i) put(kAlphabet[(sum >> (5 * (5 - i))) & 31U]);
  return text;
}

std::optional<SecretBytes> bech32_decode(std::string_view prefix, std::string_view text) {
  if (text.size() > kTextCharsMax || text.size() < prefix.size() + 1 + kChecksumChars) return {};
  if (std::ranges::any_of(text, is_lower) && std::ranges::any_of(text, is_upper)) return {};
  const bool prefixed = std::equal(prefix.begin(), prefix.end(), text.begin(),
                                   [](char a, char b) { return a == lower(b); });
  if (!prefixed || text[prefix.size()] != '1') return {};
  const std::string_view groups = text.substr(prefix.size() + 1);
  SecretBytes data((groups.size() - kChecksumChars) * 5 / 8);
  Checksum checksum(prefix);
  std::uint32_t bits = 0;
  unsigned count = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const std::size_t value = kAlphabet.find(lower(groups[i]));
    if (value == std::string_view::npos) return {};
    checksum.add(static_cast<std::uint32_t>(value));
    if (i >= groups.size() - kChecksumChars) continue;
    bits = (bits << 5U) | static_cast<std::uint32_t>(value);
    count += 5;
    if (count < 8) continue;
    count -= 8;
    data.span()[at++] = static_cast<std::byte>((bits >> count) & 0xffU);
    bits &= (1U << count) - 1;
  }
  const bool padded = count < 5 && bits == 0;
  if (checksum.state() != 1 || !padded || at != data.size()) return {};
  return data;
}

}  // namespace lukskeep::archive
