#include "base/uuid.h"

#include <array>
#include <cctype>

#include <sys/random.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep {
namespace {

constexpr bool is_dash_place(std::size_t i) { return i == 8 || i == 13 || i == 18 || i == 23; }

}  // namespace

std::string random_uuid() {
  std::array<std::byte, 16> raw{};
  // Requests of up to 256 bytes are never cut short once the generator is seeded.
  if (getrandom(raw.data(), raw.size(), 0) != static_cast<ssize_t>(raw.size())) {
    throw Error(Code::kIo, "the system gives no random bytes");
  }
  raw[6] = (raw[6] & std::byte{0x0f}) | std::byte{0x40};
  raw[8] = (raw[8] & std::byte{0x3f}) | std::byte{0x80};
  std::string text = to_hex(raw);
  for (const std::size_t place : {8U, 13U, 18U, 23U}) text.insert(place, 1, '-');
  return text;
}

bool is_uuid(std::string_view text) noexcept {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool good =
        is_dash_place(i) ? text[i] == '-' : std::isxdigit(static_cast<unsigned char>(text[i])) != 0;
    if (!good) return false;
  }
  return true;
}

}  // namespace lukskeep
