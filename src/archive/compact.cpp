#include "archive/compact.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "crypto/hash.h"
#include "luks/layout.h"
#include "luks/luks1_codec.h"

namespace lukskeep::archive {
namespace {

// Copies a range of `from` to the same place in `to`; what is outside of them is passed over.
void keep_range(const Bytes& from, Bytes& to, std::uint64_t offset_bytes,
                std::uint64_t size_bytes) {
  const std::uint64_t start = std::min<std::uint64_t>(offset_bytes, from.size());
  const std::uint64_t end = start + std::min<std::uint64_t>(size_bytes, from.size() - start);
  std::copy(from.begin() + static_cast<std::ptrdiff_t>(start),
            from.begin() + static_cast<std::ptrdiff_t>(end),
            to.begin() + static_cast<std::ptrdiff_t>(start));
}

}  // namespace

Capture capture_compact(const luks::HeaderFile& file, const std::string& path) {
  Capture taken = capture(file, path);
  // The report says which copy is bad, not what else somebody may need for a rescue.
  if (!file.report().problems.empty()) return taken;
  const luks::Header& header = file.header();
  Bytes kept(taken.header.size());
  const std::uint64_t metadata_bytes = header.version == luks::Version::kLuks1
                                           ? luks::kLuks1HeaderBytes
                                           : 2 * header.metadata_size_bytes;
  keep_range(taken.header, kept, 0, metadata_bytes);
  for (const auto& [id, keyslot] : header.keyslots) {
    keep_range(taken.header, kept, keyslot.area.offset_bytes, keyslot.area.size_bytes);
  }
  taken.header = std::move(kept);
  taken.manifest.sha256 = to_hex(crypto::hash("sha256", taken.header));
  return taken;
}

}  // namespace lukskeep::archive
