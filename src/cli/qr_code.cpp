#include "cli/qr_code.h"

#include <cerrno>
#include <memory>

#include <fmt/format.h>
#include <qrencode.h>

#include <lukskeep/error.h>

#include "base/shared_library.h"

namespace lukskeep::cli {
namespace {

constexpr std::size_t kMargin = 4;  // modules, ISO 18004

struct QrLibrary {
  decltype(&::QRcode_encodeString) encode;
  decltype(&::QRcode_free) free;
};

const QrLibrary& qr_library() {
  static const QrLibrary library = [] {
    const SharedLibrary file("libqrencode.so.4", "draws QR codes", "libqrencode4");
    QrLibrary loaded{};
    file.resolve("QRcode_encodeString", loaded.encode);
    file.resolve("QRcode_free", loaded.free);
    return loaded;
  }();
  return library;
}

// With the margin, which is light.
bool is_dark(const QrCode& code, std::size_t row, std::size_t column) {
  if (row < kMargin || column < kMargin) return false;
  row -= kMargin;
  column -= kMargin;
  return row < code.width && column < code.width && code.dark[row * code.width + column];
}

}  // namespace

QrCode make_qr_code(std::string_view text) {
  const QrLibrary& library = qr_library();
  const std::unique_ptr<QRcode, decltype(library.free)> made(
      library.encode(std::string(text).c_str(), 0, QR_ECLEVEL_L, QR_MODE_8, 1), library.free);
  if (made == nullptr) {
    if (errno == ENOMEM) throw Error(Code::kOutOfMemory, "out of memory for a QR code");
    throw Error(Code::kInvalidArgument,
                fmt::format("{} characters are too many for a QR code", text.size()),
                "send the file, or ask fewer servers: --slot N");
  }
  QrCode code{.width = static_cast<std::size_t>(made->width), .dark = {}};
  for (std::size_t i = 0; i < code.width * code.width; ++i) {
    code.dark.push_back((made->data[i] & 1U) != 0);
  }
  return code;
}

std::string qr_terminal_text(const QrCode& code) {
  const std::size_t size = code.width + 2 * kMargin;
  std::string text;
  for (std::size_t row = 0; row < size; row += 2) {
    for (std::size_t column = 0; column < size; ++column) {
      const bool above = !is_dark(code, row, column);
      const bool below = row + 1 < size && !is_dark(code, row + 1, column);
      text += above && below ? "█" : above ? "▀" : below ? "▄" : " ";
    }
    text += '\n';
  }
  return text;
}

std::string qr_svg(const QrCode& code) {
  const std::size_t size = code.width + 2 * kMargin;
  std::string path;
  for (std::size_t row = 0; row < size; ++row) {
    for (std::size_t column = 0; column < size; ++column) {
      if (is_dark(code, row, column)) path += fmt::format("M{} {}h1v1h-1z", column, row);
    }
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {0}\" width=\"{1}\" "
      "height=\"{1}\" shape-rendering=\"crispEdges\">\n<rect width=\"{0}\" height=\"{0}\" "
      "fill=\"#fff\"/>\n<path d=\"{2}\"/>\n</svg>\n",
      size, size * 8, path);
}

}  // namespace lukskeep::cli
