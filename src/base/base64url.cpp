#include "base/base64url.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace lukskeep {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

int value_of(char c) noexcept {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '-') return 62;
  if (c == '_') return 63;
  return -1;
}

constexpr std::size_t text_size(std::size_t bytes) noexcept { return (bytes * 8 + 5) / 6; }
constexpr std::size_t byte_count(std::size_t chars) noexcept { return chars * 6 / 8; }

// `put` takes one character after the other.
template <typename Put>
void encode(ByteView bytes, const Put& put) {
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t have = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group = (group << 8) | (j < have ? std::to_integer<std::uint32_t>(bytes[i + j]) : 0);
    }
    for (std::size_t j = 0; j <= have; ++j) put(kAlphabet[(group >> (18 - 6 * j)) & 63]);
  }
}

// `out` has byte_count(text.size()) bytes. False if `text` is not canonical.
bool decode(std::string_view text, MutableBytes out) {
  if (text.size() % 4 == 1) return false;
  std::uint32_t bits = 0;
  unsigned have = 0;
  std::size_t at = 0;
  for (const char c : text) {
    const int value = value_of(c);
    if (value < 0) return false;
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    have += 6;
    if (have < 8) continue;
    have -= 8;
    out[at++] = static_cast<std::byte>((bits >> have) & 0xff);
    bits &= (1U << have) - 1;
  }
  // Bits below the last byte must be zero, or two texts would mean the same bytes.
  return bits == 0;
}

}  // namespace

std::string to_base64url(ByteView bytes) {
  std::string text;
  text.reserve(text_size(bytes.size()));
  encode(bytes, [&text](char c) { text += c; });
  return text;
}

std::optional<Bytes> from_base64url(std::string_view text) {
  Bytes bytes(byte_count(text.size()));
  if (!decode(text, bytes)) return std::nullopt;
  return bytes;
}

SecretBytes secret_to_base64url(ByteView bytes) {
  SecretBytes text(text_size(bytes.size()));
  std::byte* at = text.data();
  encode(bytes, [&at](char c) { *at++ = static_cast<std::byte>(c); });
  return text;
}

std::optional<SecretBytes> secret_from_base64url(std::string_view text) {
  SecretBytes bytes(byte_count(text.size()));
  if (!decode(text, bytes.span())) return std::nullopt;
  return bytes;
}

}  // namespace lukskeep
