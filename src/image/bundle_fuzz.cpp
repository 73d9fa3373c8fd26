// Any bytes as the manifest of a bundle, and as a bundle whose signer is trusted but whose
// signature cannot fit: an error or values that are written again as they were read, nothing else.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include <lukskeep/error.h>

#include "image/bundle.h"

namespace {

using namespace lukskeep;

class Source final : public image::BundleSource {
 public:
  explicit Source(ByteView bytes) : bytes_(bytes) {}
  void read(MutableBytes out) override {
    if (out.size() > bytes_.size()) throw Error(Code::kTooSmall, "it ends before");
    std::copy_n(bytes_.begin(), out.size(), out.begin());
    bytes_ = bytes_.subspan(out.size());
  }
  void skip(std::uint64_t) override { std::abort(); }

 private:
  ByteView bytes_;
};

void decode(ByteView input) {
  try {
    const auto manifest = image::decode_manifest(as_string_view(input), "input");
    const std::string text = image::encode_manifest(manifest);
    if (image::encode_manifest(image::decode_manifest(text, "again")) != text) std::abort();
  } catch (const Error&) {
    return;
  }
}

void read_head(ByteView input) {
  if (input.size() < 56) return;
  crypto::Ed25519PublicKey signer;
  std::copy_n(input.begin() + 24, 32, signer.bytes.begin());
  try {
    Source source(input);
    image::read_bundle_head(source, std::span(&signer, 1), "input");
  } catch (const Error&) {
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  decode(input);
  read_head(input);
  return 0;
}
