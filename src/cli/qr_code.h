// QR codes, by libqrencode, which is loaded when one is first wanted.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lukskeep::cli {

struct QrCode {
  std::size_t width = 0;
  std::vector<bool> dark;  // width * width modules, row by row
};

// `text` of digits, capitals and " $%*+-./:". Throws Error: kUnsupported (the library is not
// installed), kInvalidArgument (longer than the largest code, some 4 000 characters).
QrCode make_qr_code(std::string_view text);

// Two modules a character, light on dark as terminals are, with the margin that readers want.
std::string qr_terminal_text(const QrCode& code);
std::string qr_svg(const QrCode& code);

}  // namespace lukskeep::cli
