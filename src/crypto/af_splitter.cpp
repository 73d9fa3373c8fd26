#include "crypto/af_splitter.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "crypto/hash.h"
#include "crypto/random.h"
#include "crypto/xor_bytes.h"

namespace lukskeep::crypto {
namespace {

// The H of LUKS1 §2.4: a block wider than the digest is hashed piece by piece, each piece behind
// its big-endian number; the last, shorter piece keeps as many digest bytes as it had.
class Diffuser {
 public:
  explicit Diffuser(std::string_view hash) : hash_(hash), digest_(hash_.digest_bytes()) {}

  void apply(MutableBytes block) {
    for (std::uint32_t number = 0; !block.empty(); ++number) {
      const auto piece = block.first(std::min(block.size(), digest_.size()));
      std::array<std::byte, sizeof(number)> counter;
      store_be(counter.data(), number);
      hash_.update(counter);
      hash_.update(piece);
      hash_.finish(digest_.span());
      std::copy_n(digest_.data(), piece.size(), piece.data());
      block = block.subspan(piece.size());
    }
  }

 private:
  Hash hash_;
  SecretBytes digest_;
};

void check_stripes(std::uint32_t stripes) {
  if (stripes == 0) throw Error(Code::kInvalidArgument, "a split key needs at least 1 stripe");
}

}  // namespace

SecretBytes af_split(ByteView key, std::uint32_t stripes, std::string_view hash) {
  check_stripes(stripes);
  if (key.empty()) throw Error(Code::kInvalidArgument, "an empty key cannot be split");
  if (key.size() > std::numeric_limits<std::size_t>::max() / stripes) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a key of {} bytes is too long for {} stripes", key.size(), stripes));
  }
  Diffuser diffuser(hash);
  SecretBytes material = random_secret(key.size() * stripes);
  SecretBytes sum(key.size());
  const std::size_t last = key.size() * (stripes - 1);
  for (std::size_t offset = 0; offset < last; offset += key.size()) {
    xor_bytes(sum.data(), material.data() + offset, sum.size());
    diffuser.apply(sum.span());
  }
  xor_bytes(sum.data(), key.data(), sum.size());
  std::copy_n(sum.data(), sum.size(), material.data() + last);
  return material;
}

SecretBytes af_merge(ByteView material, std::uint32_t stripes, std::string_view hash) {
  check_stripes(stripes);
  if (material.empty() || material.size() % stripes != 0) {
    throw Error(Code::kInvalidArgument,
                fmt::format("{} bytes cannot be a key in {} stripes", material.size(), stripes));
  }
  Diffuser diffuser(hash);
  const std::size_t key_bytes = material.size() / stripes;
  SecretBytes key(key_bytes);
  const std::size_t last = material.size() - key_bytes;
  for (std::size_t offset = 0; offset < last; offset += key_bytes) {
    xor_bytes(key.data(), material.data() + offset, key_bytes);
    diffuser.apply(key.span());
  }
  xor_bytes(key.data(), material.data() + last, key_bytes);
  return key;
}

}  // namespace lukskeep::crypto
