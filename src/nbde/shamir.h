// Shamir's secret sharing as Clevis' pin sss does it: a random polynomial of degree threshold - 1
// modulo a prime p of 256 bits. Its value at 0 is the content key; a share is a point of it, x and
// y in the width of p, one behind the other.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::nbde {

// A polynomial that is known whole. Not synchronised.
class SharedSecret {
 public:
  // A new one that `threshold` (at least 1) shares determine.
  static SharedSecret make(std::size_t threshold);

  // Throws Error{kDamaged} unless `prime` is a prime of at most limits::kShareFieldBytesMax bytes,
  // large enough for a content key's strength.
  static void check_prime(ByteView prime);

  // From as many shares as determine it; `prime` has passed check_prime. Throws Error{kDamaged} if
  // one has another length than 2 * prime.size(), an x that is 0 or repeated, or a number that is
  // not below the prime.
  SharedSecret(ByteView prime, const std::vector<SecretBytes>& shares);

  SharedSecret(SharedSecret&&) noexcept;
  SharedSecret& operator=(SharedSecret&&) noexcept;
  ~SharedSecret();

  // Big endian, without leading zeros.
  Bytes prime() const;
  // kContentKeyBytes. Throws Error{kDamaged} if the value at 0 is longer.
  SecretBytes key() const;
  // A point that this object has not seen before.
  SecretBytes new_share();

 private:
  struct State;
  explicit SharedSecret(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

// Whether `share` has the right form and an x that none of `others` (of the right form) has.
bool is_share_beside(ByteView share, std::size_t prime_bytes,
                     const std::vector<SecretBytes>& others) noexcept;

}  // namespace lukskeep::nbde
