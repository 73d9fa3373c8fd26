#include "keys/secret_text.h"

#include <algorithm>
#include <utility>

#include <openssl/evp.h>

namespace lukskeep::keys {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::byte as_byte(char c) { return static_cast<std::byte>(c); }

}  // namespace

MutableBytes SecretText::grow(std::size_t more_bytes) {
  if (size_ + more_bytes > bytes_.size()) {
    SecretBytes larger(std::max(2 * bytes_.size(), size_ + more_bytes + 256));
    std::ranges::copy(view(), larger.data());
    bytes_ = std::move(larger);
  }
  const MutableBytes room = bytes_.span().subspan(size_, more_bytes);
  size_ += more_bytes;
  return room;
}

SecretText& SecretText::add(std::string_view text) {
  std::ranges::copy(as_byte_view(text), grow(text.size()).begin());
  return *this;
}

SecretText& SecretText::add_hex(ByteView bytes) {
  auto out = grow(2 * bytes.size()).begin();
  for (const std::byte byte : bytes) {
    *out++ = as_byte(kHexDigits[std::to_integer<std::size_t>(byte >> 4)]);
    *out++ = as_byte(kHexDigits[std::to_integer<std::size_t>(byte & std::byte{15})]);
  }
  return *this;
}

SecretText& SecretText::add_base64(ByteView bytes) {
  if (bytes.empty()) return *this;
  const std::size_t size = (bytes.size() + 2) / 3 * 4;
  // OpenSSL writes a zero byte behind it.
  const MutableBytes out = grow(size + 1);
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                  reinterpret_cast<const unsigned char*>(bytes.data()),
                  static_cast<int>(bytes.size()));
  --size_;
  return *this;
}

SecretText& SecretText::add_json(std::string_view text) {
  add("\"");
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      const MutableBytes out = grow(2);
      out[0] = as_byte('\\');
      out[1] = as_byte(c);
    } else if (code < 0x20) {
      add("\\u00").add_hex(ByteView(reinterpret_cast<const std::byte*>(&c), 1));
    } else {
      grow(1)[0] = as_byte(c);
    }
  }
  return add("\"");
}

SecretBytes SecretText::take() {
  bytes_.truncate(size_);
  size_ = 0;
  return std::exchange(bytes_, {});
}

SecretBytes secret_hex(ByteView bytes) { return SecretText().add_hex(bytes).take(); }
SecretBytes secret_base64(ByteView bytes) { return SecretText().add_base64(bytes).take(); }

std::optional<SecretBytes> from_secret_hex(std::string_view text) {
  if (text.empty() || text.size() % 2 != 0) return std::nullopt;
  SecretBytes bytes(text.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int high = digit_value(text[2 * i]);
    const int low = digit_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes.data()[i] = static_cast<std::byte>(high * 16 + low);
  }
  return bytes;
}

std::optional<SecretBytes> from_secret_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  SecretBytes bytes(text.size() / 4 * 3);
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  if (size < 0) return std::nullopt;
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  bytes.truncate(static_cast<std::size_t>(size) - padding);
  // OpenSSL is generous with white space and padding.
  const SecretBytes again = secret_base64(bytes.span());
  if (as_string_view(again.span()) != text) return std::nullopt;
  return bytes;
}

}  // namespace lukskeep::keys
