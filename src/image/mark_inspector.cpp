// Formats that are known by a mark alone: compressed ones, and those that nobody should be sent.
#include <array>

#include <fmt/format.h>

#include "image/probe.h"

namespace lukskeep::image {
namespace {

using namespace std::string_view_literals;

struct Mark {
  std::string_view format;
  std::string_view bytes;
  std::string_view finding;
  std::string_view what;
  std::uint64_t from_end_bytes = 0;  // 0: the mark is at the start
};

// QEMU takes all but the compressed ones for what they are if nobody names the format.
constexpr std::array kMarks = {
    Mark{"qed", "QED\0"sv, "qed-format", "QED images name backing files"},
    Mark{"parallels", "ParallelsVM"sv, "unsupported-format", "a disk bundle of Parallels"},
    Mark{"bochs", "Bochs Virtual HD Image"sv, "unsupported-format", "an image of Bochs"},
    Mark{"cloop", "#!/bin/sh\n#V2.0 Format\n"sv, "unsupported-format", "a compressed loop image"},
    Mark{"cowd", "COWD"sv, "unsupported-format", "a sparse disk of old VMware ESX"},
    Mark{"dmg", "koly"sv, "unsupported-format", "a disk image of macOS", 512},
    Mark{"gzip", "\x1f\x8b\x08"sv, "compressed", "what it compresses was not looked at"},
    Mark{"zstd", "\x28\xb5\x2f\xfd"sv, "compressed", "what it compresses was not looked at"},
    Mark{"xz", "\xfd\x37zXZ\0"sv, "compressed", "what it compresses was not looked at"},
};

class MarkProbe final : public Probe {
 public:
  explicit MarkProbe(const Mark& mark) : mark_(mark) {}

  void head(ByteView head) override {
    if (mark_.from_end_bytes == 0 && has_mark(head, 0, mark_.bytes)) found();
  }
  void finish(const StreamEnd& end) override {
    if (mark_.from_end_bytes == 0 || end.tail.size() < mark_.from_end_bytes) return;
    if (has_mark(end.tail, end.tail.size() - mark_.from_end_bytes, mark_.bytes)) found();
  }

 private:
  void found() {
    match_.format = mark_.format;
    add(mark_.finding, std::string(mark_.what));
  }

  const Mark& mark_;
};

}  // namespace

std::vector<std::unique_ptr<Probe>> make_mark_probes() {
  std::vector<std::unique_ptr<Probe>> probes;
  probes.reserve(kMarks.size());
  for (const Mark& mark : kMarks) probes.push_back(std::make_unique<MarkProbe>(mark));
  return probes;
}

}  // namespace lukskeep::image
