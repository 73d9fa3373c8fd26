// Key derivation: PBKDF2 (RFC 8018 section 5.2) and Argon2 (RFC 9106), their costs and limits.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::crypto {

enum class KdfType : std::uint8_t { kPbkdf2, kArgon2i, kArgon2id };

// "pbkdf2", "argon2i", "argon2id".
std::string_view kdf_name(KdfType type) noexcept;

struct KdfCost {
  KdfType type = KdfType::kPbkdf2;
  std::string hash;              // pbkdf2 only
  std::uint32_t iterations = 0;  // pbkdf2: iterations; argon2: time cost
  std::uint32_t memory_kib = 0;  // argon2 only
  std::uint32_t parallel = 0;    // argon2 only: lanes
};

// Derives `out.size()` bytes. Argon2 runs version 0x13 with its lanes on at most `threads` threads;
// PBKDF2 computes the independent blocks of its output side by side. Both look at `cancel` (may be
// null): PBKDF2 every few ten thousand iterations, Argon2 before it starts.
// Throws Error: kUnsupported (hash), kInvalidArgument (a cost outside the RFC's bounds),
// kOutOfMemory (naming the amount and what to do), kInterrupted.
void derive(const KdfCost& cost, ByteView passphrase, ByteView salt, MutableBytes out,
            unsigned threads = 1, const CancelToken* cancel = nullptr);

// Seconds that deriving `output_bytes` takes on this machine, estimated from a short run of the
// same KDF (a few milliseconds of work, cached per process): within a factor of two.
double estimate_seconds(const KdfCost& cost, std::size_t output_bytes);

// What a keyslot may cost before anybody starts to work on it.
struct KdfLimit {
  std::uint32_t seconds_max = 300;  // by estimate_seconds
  std::uint32_t memory_kib_max = 4 * 1024 * 1024;
};

// Throws Error: kDamaged for a cost that no KDF could work with; kKdfLimit for one beyond the
// bounds of base/limits.h on iterations, time and lanes, and (with a hint how to allow it) if the
// memory or the estimated seconds exceed `limit`; kUnsupported (hash). `what` names the keyslot in
// the message. Cheap: derives nothing but the estimate, and that only for costs that a slow machine
// might not manage.
void check_limit(const KdfCost& cost, std::size_t output_bytes, const KdfLimit& limit,
                 std::string_view what);

// What several attempts may take together, so that a header with many keyslots is no way around the
// limit on each. Not for several threads.
class KdfBudget {
 public:
  struct Work {
    KdfCost cost;
    std::size_t output_bytes = 0;
  };

  explicit KdfBudget(const KdfLimit& limit) : seconds_max_(limit.seconds_max) {}

  // Takes one attempt, each of whose parts has passed check_limit. Throws kKdfLimit, and takes
  // nothing, if by estimate_seconds it does not fit with what was taken before. `what` names it in
  // the message. As cheap as check_limit.
  void take(std::vector<Work> attempt, std::string_view what);

 private:
  double seconds_max_;
  double slow_seconds_ = 0;  // what it would take on a very slow machine
  std::vector<Work> taken_;
};

struct CalibrationRequest {
  KdfType type = KdfType::kArgon2id;
  std::string hash = "sha256";  // pbkdf2 only
  std::size_t output_bytes = 64;
  std::chrono::milliseconds target{2000};      // --iter-time
  std::uint32_t memory_kib_max = 1024 * 1024;  // cut to half of the machine's RAM
  std::uint32_t parallel_max = 4;              // cut to its CPUs
};

// Costs that take cryptsetup about `target` on this machine, chosen as it does: PBKDF2 at the speed
// of OpenSSL on one thread (ours is faster, but the volume is to be opened elsewhere too), never
// below 1000 iterations; Argon2 time at least 4, memory first raised to its maximum, then time.
KdfCost calibrate(const CalibrationRequest& request, const CancelToken* cancel = nullptr);

// Smaller of `memory_kib` and half of the machine's physical memory.
std::uint32_t cap_memory_kib(std::uint32_t memory_kib);

}  // namespace lukskeep::crypto
