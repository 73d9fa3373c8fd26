// Every kernel of this machine against OpenSSL, one EVP call for each sector, and against the
// portable kernel where OpenSSL does not have the construction.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "crypto/aes_kernel.h"
#include "crypto/openssl_per_sector.h"
#include "crypto/sector_cipher.h"

namespace {

using lukskeep::Bytes;
using lukskeep::ByteView;
using lukskeep::MutableBytes;
namespace crypto = lukskeep::crypto;

constexpr std::array<const char*, 6> kCiphers = {"aes-xts-plain64", "aes-cbc-essiv:sha256",
                                                 "aes-cbc-plain64", "aes-ctr-plain64",
                                                 "aes-lrw-benbi",   "aes-xts-eboiv"};

// Hands out the input byte by byte, from the start again when it is used up.
class Input {
 public:
  explicit Input(ByteView bytes) : bytes_(bytes) {}

  std::byte next() {
    const std::byte b = bytes_[at_];
    at_ = (at_ + 1) % bytes_.size();
    return b;
  }
  std::size_t below(std::size_t bound) { return std::to_integer<std::size_t>(next()) % bound; }
  Bytes take(std::size_t size) {
    Bytes taken(size);
    std::ranges::generate(taken, [this] { return next(); });
    return taken;
  }

 private:
  ByteView bytes_;
  std::size_t at_ = 0;
};

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  Input input({reinterpret_cast<const std::byte*>(data), size});
  const crypto::CipherSpec spec = crypto::parse_cipher_spec(kCiphers.at(input.below(6)));
  const std::vector<std::uint32_t> key_sizes = crypto::key_sizes_bytes(spec);
  const std::uint32_t key_bytes = key_sizes.at(input.below(key_sizes.size()));
  const std::uint32_t sector = 512U << input.below(4);
  const std::size_t count = 1 + input.below(33);
  const std::size_t offset = input.below(64);
  const auto first = lukskeep::load_le<std::uint64_t>(input.take(8).data());
  const Bytes key = input.take(key_bytes);
  const Bytes plain = input.take(offset + count * sector);

  std::unique_ptr<crypto::SectorCipher> oracle = crypto::make_openssl_per_sector(spec, key, sector);
  const auto kernels = crypto::aes_kernels();
  if (!oracle) oracle = crypto::make_sector_cipher_on(kernels.back(), spec, key, sector);
  Bytes expected = plain;
  oracle->encrypt(first, MutableBytes(expected).subspan(offset));
  for (const crypto::AesKernel& kernel : kernels) {
    if (!crypto::cpu_features().has_all(kernel.needed)) continue;
    const auto cipher = crypto::make_sector_cipher_on(kernel, spec, key, sector);
    Bytes work = plain;
    cipher->encrypt(first, MutableBytes(work).subspan(offset));
    require(work == expected);
    cipher->decrypt(first, MutableBytes(work).subspan(offset));
    require(work == plain);
  }
  return 0;
}
