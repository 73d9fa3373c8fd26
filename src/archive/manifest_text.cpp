#include "archive/manifest_text.h"

#include <algorithm>

#include "base/bytes.h"

namespace lukskeep::archive {
namespace {

constexpr std::string_view kMark = "\xef\xbf\xbd";  // U+FFFD
constexpr std::size_t kHexDigits = 2;

// Of the character at the start of `text`, in bytes; 0 if there is none.
std::size_t character_bytes(std::string_view text) {
  for (std::size_t size = 1; size <= std::min<std::size_t>(4, text.size()); ++size) {
    if (is_utf8(text.substr(0, size))) return size;
  }
  return 0;
}

}  // namespace

std::string manifest_text(std::string_view bytes, std::size_t bytes_max) {
  bytes = bytes.substr(0, bytes_max);
  std::string text;
  while (!bytes.empty()) {
    const std::size_t size = character_bytes(bytes);
    if (size != 0 && bytes.substr(0, size) != kMark) {
      text += bytes.substr(0, size);
      bytes.remove_prefix(size);
    } else {
      text += kMark;
      text += to_hex(as_byte_view(bytes.substr(0, 1)));
      bytes.remove_prefix(1);
    }
  }
  return text;
}

std::string manifest_bytes(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    const std::string_view digits = text.substr(std::min(kMark.size(), text.size()), kHexDigits);
    const auto byte =
        text.starts_with(kMark) && digits.size() == kHexDigits ? from_hex(digits) : std::nullopt;
    if (byte) {
      bytes += as_string_view(*byte);
      text.remove_prefix(kMark.size() + kHexDigits);
    } else {
      bytes += text.front();
      text.remove_prefix(1);
    }
  }
  return bytes;
}

}  // namespace lukskeep::archive
