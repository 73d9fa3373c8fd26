// Byte strings, big and little endian integers, hex and base64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lukskeep {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline ByteView as_byte_view(std::string_view text) noexcept {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string_view as_string_view(ByteView bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The caller guarantees that `p` has sizeof(T) bytes.
template <typename T>
T load_be(const std::byte* p) noexcept {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>((value << 8) | static_cast<T>(p[i]));
  }
  return value;
}

template <typename T>
void store_be(std::byte* p, T value) noexcept {
  for (std::size_t i = sizeof(T); i-- > 0; value = static_cast<T>(value >> 8)) {
    p[i] = static_cast<std::byte>(value & 0xff);
  }
}

template <typename T>
T load_le(const std::byte* p) noexcept {
  T value = 0;
  for (std::size_t i = sizeof(T); i-- > 0;) {
    value = static_cast<T>((value << 8) | static_cast<T>(p[i]));
  }
  return value;
}

template <typename T>
void store_le(std::byte* p, T value) noexcept {
  for (std::size_t i = 0; i < sizeof(T); ++i, value = static_cast<T>(value >> 8)) {
    p[i] = static_cast<std::byte>(value & 0xff);
  }
}

bool all_zero(ByteView bytes) noexcept;

// Lower-case hex, two digits a byte. Not for secrets.
std::string to_hex(ByteView bytes);
// Absent if `text` has an odd length or a character that is no hex digit.
std::optional<Bytes> from_hex(std::string_view text);

// Standard alphabet with padding, no line breaks (RFC 4648 section 4). Not for secrets.
std::string to_base64(ByteView bytes);
// Absent unless `text` is exactly what to_base64 writes for some bytes.
std::optional<Bytes> from_base64(std::string_view text);

// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool is_utf8(std::string_view text) noexcept;

// `text` with control characters, quotes and bytes that are no UTF-8 written as \xNN, cut to
// `size_max` bytes: strings from headers and the network go through this into messages.
std::string printable(std::string_view text, std::size_t size_max = 64);

}  // namespace lukskeep
