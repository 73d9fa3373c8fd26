// Any bytes, as they are and behind the mark of each format: the inspector throws nothing, and says
// the same however they arrive.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "image/inspector.h"

namespace {

using namespace lukskeep;
using namespace std::string_view_literals;

std::string describe(const image::Report& report) {
  std::string text = report.format + report.variant + std::to_string(report.size_bytes);
  for (const image::Finding& finding : report.findings) {
    if (finding.what.empty() || !is_utf8(finding.what)) std::abort();
    text += finding.what;
  }
  return text;
}

std::string inspect(ByteView bytes, std::size_t chunk) {
  image::Inspector inspector;
  while (!bytes.empty()) {
    const ByteView part = bytes.first(std::min(chunk, bytes.size()));
    inspector.feed(part);
    bytes = bytes.subspan(part.size());
  }
  return describe(inspector.finish());
}

struct Start {
  std::size_t offset;
  std::string_view bytes;
};

// Where the magic of a format stands, with its version where that comes next.
constexpr std::array kStarts = {Start{0, "QFI\xfb\0\0\0\3"sv},
                                Start{0, "KDMV\1\0\0\0"sv},
                                Start{0, "conectix"sv},
                                Start{0, "vhdxfile"sv},
                                Start{64, "\x7f\x10\xda\xbe"sv},
                                Start{0, "WithouFreSpacExt"sv},
                                Start{0, "LUKS\xba\xbe\0\1"sv},
                                Start{0, "LUKS\xba\xbe\0\2"sv},
                                Start{32768, "\1CD001"sv},
                                Start{510,
                                      "\x55\xaa"
                                      "EFI PART\0\0\1\0\x5c\0\0\0"sv},
                                Start{0, "# Disk DescriptorFile\n"sv}};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  if (inspect(input, 97) != inspect(input, size)) std::abort();
  if (input.empty()) return 0;
  const Start& start = kStarts[std::to_integer<std::size_t>(input[0]) % kStarts.size()];
  Bytes bytes(std::max(start.offset + start.bytes.size() + 512, size));
  std::copy(input.begin(), input.end(), bytes.begin());
  std::copy_n(as_byte_view(start.bytes).begin(), start.bytes.size(),
              bytes.begin() + static_cast<std::ptrdiff_t>(start.offset));
  if (inspect(bytes, 4099) != inspect(bytes, bytes.size())) std::abort();
  return 0;
}
