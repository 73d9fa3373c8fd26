// Text that holds secrets, built and taken apart without leaving copies behind.
#pragma once

#include <optional>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::keys {

// Grows; old memory is wiped. One thread at a time.
class SecretText {
 public:
  SecretText& add(std::string_view text);
  SecretText& add_hex(ByteView bytes);     // lower case
  SecretText& add_base64(ByteView bytes);  // RFC 4648 section 4, padded
  // A JSON string with its quotes. `text` must be UTF-8.
  SecretText& add_json(std::string_view text);

  ByteView view() const noexcept { return bytes_.span().first(size_); }
  SecretBytes take();

 private:
  MutableBytes grow(std::size_t more_bytes);

  SecretBytes bytes_;
  std::size_t size_ = 0;
};

SecretBytes secret_hex(ByteView bytes);
SecretBytes secret_base64(ByteView bytes);
// Absent unless `text` is what secret_hex (of any case) or secret_base64 writes, and not empty.
std::optional<SecretBytes> from_secret_hex(std::string_view text);
std::optional<SecretBytes> from_secret_base64(std::string_view text);

}  // namespace lukskeep::keys
