#include "luks/guess_rate.h"

#include <cmath>
#include <string_view>

#include "base/limits.h"
#include "crypto/hash.h"

namespace lukskeep::luks {
namespace {

constexpr double kMemoryBytesPerSecond = 1.008e12;
constexpr double kCacheFactor = 5;
constexpr std::uint32_t kCacheKib = 128;
constexpr double kLettersAndDigits = 62;

double hashes_per_second(std::string_view name) {
  if (name == "sha1") return 50.6e9;
  if (name == "sha512" || name == "sha384") return 7.5e9;
  return 22.0e9;
}

}  // namespace

std::optional<double> guesses_per_second(const Kdf& kdf, std::uint32_t area_key_size_bytes) {
  if (kdf.type == Kdf::Type::kUnknown || kdf.iterations == 0) return {};
  if (kdf.type == Kdf::Type::kPbkdf2) {
    const auto hash = crypto::find_hash(kdf.hash);
    if (!hash) return {};
    const double blocks = std::ceil(static_cast<double>(area_key_size_bytes) /
                                    static_cast<double>(hash->digest_bytes));
    return hashes_per_second(hash->name) / (2.0 * kdf.iterations * std::fmax(blocks, 1));
  }
  if (kdf.memory_kib == 0) return {};
  const double bandwidth = kMemoryBytesPerSecond * (kdf.memory_kib <= kCacheKib ? kCacheFactor : 1);
  const double traffic = 2.0 * kdf.iterations * static_cast<double>(kdf.memory_kib * limits::kKiB);
  return bandwidth / traffic;
}

double seconds_to_find(int length, double guesses_per_second) {
  return std::pow(kLettersAndDigits, length) / 2 / guesses_per_second;
}

}  // namespace lukskeep::luks
