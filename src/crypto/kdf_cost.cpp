// What deriving costs on this machine: estimates, limits and calibration.
#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <map>
#include <mutex>
#include <string>

#include <fmt/format.h>
#include <openssl/evp.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "base/parallel_for.h"
#include "crypto/hash.h"
#include "crypto/hash_algorithms.h"
#include "crypto/kdf.h"
#include "crypto/kdf_fault.h"

namespace lukskeep::crypto {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kBenchSaltBytes = 32;
constexpr std::uint32_t kPbkdf2IterationsMin = 1000;  // NIST SP 800-132 section 5.2
constexpr std::uint32_t kArgon2TimeMin = 4;
constexpr std::uint32_t kArgon2MemoryKibMin = 32;

// The shortest run whose duration says something about longer ones.
constexpr double kProbeSeconds = 0.002;
constexpr double kTrialSeconds = 0.25;

double seconds_of_this_thread() {
  timespec now{};
  static_cast<void>(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now));
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void derive_for_bench(const KdfCost& cost, MutableBytes out, unsigned threads,
                      const CancelToken* cancel) {
  constexpr std::array<std::byte, kBenchSaltBytes> kSalt{};
  derive(cost, as_byte_view("benchmark"), kSalt, out, threads, cancel);
}

// Processor time, so that other work on the machine does not make an estimate refuse a keyslot.
double probe_seconds(const KdfCost& cost, std::size_t output_bytes) {
  SecretBytes out(output_bytes);
  const double start = seconds_of_this_thread();
  derive_for_bench(cost, out.span(), 1, nullptr);
  return seconds_of_this_thread() - start;
}

// Remembers one measurement per name.
class ProbeCache {
 public:
  template <typename Measure>
  double get(const std::string& name, Measure measure) {
    const std::lock_guard lock(mutex_);
    const auto found = values_.find(name);
    if (found != values_.end()) return found->second;
    return values_.emplace(name, measure()).first->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, double> values_;
};

double pbkdf2_seconds_per_iteration(const HashInfo& hash) {
  static ProbeCache cache;
  return cache.get(hash.name, [&] {
    KdfCost cost{.type = KdfType::kPbkdf2, .hash = hash.name, .iterations = 1000};
    double seconds = probe_seconds(cost, hash.digest_bytes);
    while (seconds < kProbeSeconds) {
      cost.iterations *= 4;
      seconds = probe_seconds(cost, hash.digest_bytes);
    }
    return seconds / cost.iterations;
  });
}

// For one KiB of memory in one pass.
double argon2_seconds_per_kib(KdfType type) {
  static ProbeCache cache;
  return cache.get(std::string(kdf_name(type)), [&] {
    const KdfCost cost{.type = type, .iterations = 1, .memory_kib = 8 * 1024, .parallel = 1};
    constexpr std::size_t kOutputBytes = 32;
    return probe_seconds(cost, kOutputBytes) / cost.memory_kib;
  });
}

// Independent pieces of equal work one after another on the processors of this machine.
double rounds(std::size_t pieces) {
  const std::size_t threads = std::min<std::size_t>(pieces, hardware_threads());
  return std::ceil(static_cast<double>(pieces) / static_cast<double>(threads));
}

std::string human_duration(double seconds) {
  constexpr double kMinute = 60;
  constexpr double kHour = 60 * kMinute;
  constexpr double kDay = 24 * kHour;
  if (seconds < 2 * kMinute) return fmt::format("{:.0f} seconds", std::ceil(seconds));
  if (seconds < 2 * kHour) return fmt::format("{:.0f} minutes", seconds / kMinute);
  if (seconds < 2 * kDay) return fmt::format("{:.0f} hours", seconds / kHour);
  return fmt::format("{:.0f} days", seconds / kDay);
}

// Which bound of base/limits.h `cost` exceeds; empty if none. Memory has a limit of the caller's.
std::string cost_excess(const KdfCost& cost) {
  const auto excess = [](std::string_view what, std::uint32_t value, std::uint32_t value_max) {
    return value <= value_max ? std::string()
                              : fmt::format("{} {}, at most {}", value, what, value_max);
  };
  if (cost.type == KdfType::kPbkdf2) {
    return excess("pbkdf2 iterations", cost.iterations, limits::kPbkdf2IterationsMax);
  }
  const auto time = excess("argon2 passes", cost.iterations, limits::kArgon2TimeMax);
  return time.empty() ? excess("argon2 lanes", cost.parallel, limits::kArgon2ParallelMax) : time;
}

// Seconds on a very slow machine: as long as they are within the limit nothing needs to be
// measured.
double slow_machine_seconds(const KdfCost& cost, std::size_t output_bytes) {
  constexpr double kBlocksPerSecondMin = 1e5;     // PBKDF2 iterations of one block
  constexpr double kArgon2KibPerSecondMin = 1e5;  // memory filled, counted in each pass
  return cost.type == KdfType::kPbkdf2
             ? cost.iterations * (1 + static_cast<double>(output_bytes) / 16) / kBlocksPerSecondMin
             : double{1} * cost.memory_kib * cost.iterations / kArgon2KibPerSecondMin;
}

// Seconds that the other programs of the field take: one thread, OpenSSL's own PBKDF2. Ours is
// faster; a volume calibrated to it would open slowly everywhere else.
double timed_peer_pbkdf2(const KdfCost& cost, std::size_t output_bytes) {
  const HashAlgorithm& hash = require_hash_algorithm(cost.hash);
  SecretBytes out(output_bytes);
  const auto start = Clock::now();
  if (hash.evp_name == nullptr) {
    derive_for_bench(cost, out.span(), 1, nullptr);
  } else {
    constexpr std::string_view kPassphrase = "benchmark";
    constexpr std::array<unsigned char, kBenchSaltBytes> kSalt{};
    EVP_MD* md = EVP_MD_fetch(nullptr, hash.evp_name, nullptr);
    const int done = PKCS5_PBKDF2_HMAC(
        kPassphrase.data(), static_cast<int>(kPassphrase.size()), kSalt.data(),
        static_cast<int>(kSalt.size()), static_cast<int>(cost.iterations), md,
        static_cast<int>(output_bytes), reinterpret_cast<unsigned char*>(out.data()));
    EVP_MD_free(md);
    if (done != 1)
      throw Error(Code::kInternal, fmt::format("cannot time pbkdf2 with {}", cost.hash));
  }
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double timed_derive(const KdfCost& cost, std::size_t output_bytes, const CancelToken* cancel) {
  SecretBytes out(output_bytes);
  const auto start = Clock::now();
  derive_for_bench(cost, out.span(), hardware_threads(), cancel);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::uint32_t clamp_count(double value, std::uint32_t value_min, std::uint32_t value_max) {
  return static_cast<std::uint32_t>(
      std::clamp(value, static_cast<double>(value_min), static_cast<double>(value_max)));
}

KdfCost calibrate_pbkdf2(const CalibrationRequest& request, double target,
                         const CancelToken* cancel) {
  KdfCost cost{.type = KdfType::kPbkdf2,
               .hash = require_hash(request.hash).name,
               .iterations = kPbkdf2IterationsMin};
  const double enough = std::min(kTrialSeconds, target);
  if (cancel != nullptr) cancel->check();
  double seconds = timed_peer_pbkdf2(cost, request.output_bytes);
  while (seconds < enough && cost.iterations < limits::kPbkdf2IterationsMax / 4) {
    if (cancel != nullptr) cancel->check();
    cost.iterations *= 4;
    seconds = timed_peer_pbkdf2(cost, request.output_bytes);
  }
  cost.iterations = clamp_count(cost.iterations * target / seconds, kPbkdf2IterationsMin,
                                limits::kPbkdf2IterationsMax);
  return cost;
}

// The cost whose work (memory times passes) is `work`: as much memory as allowed, since memory is
// what makes guessing expensive, and only then more passes.
KdfCost argon2_cost_for(KdfCost cost, double work, std::uint32_t memory_kib_min,
                        std::uint32_t memory_kib_max) {
  cost.memory_kib = clamp_count(work / kArgon2TimeMin, memory_kib_min, memory_kib_max);
  cost.iterations =
      clamp_count(std::round(work / cost.memory_kib), kArgon2TimeMin, limits::kArgon2TimeMax);
  return cost;
}

KdfCost calibrate_argon2(const CalibrationRequest& request, double target,
                         const CancelToken* cancel) {
  KdfCost cost{.type = request.type, .iterations = kArgon2TimeMin};
  cost.parallel = std::clamp(request.parallel_max, 1U,
                             std::min(hardware_threads(), limits::kArgon2ParallelMax));
  const std::uint32_t memory_kib_min = std::max(kArgon2MemoryKibMin, 8 * cost.parallel);
  const std::uint32_t memory_kib_max =
      std::max(memory_kib_min,
               std::min(cap_memory_kib(request.memory_kib_max), limits::kArgon2MemoryKibMax));
  const auto scaled = [&](double factor) {
    const double work = static_cast<double>(cost.memory_kib) * cost.iterations * factor;
    return argon2_cost_for(cost, work, memory_kib_min, memory_kib_max);
  };
  const auto same = [&](const KdfCost& other) {
    return other.memory_kib == cost.memory_kib && other.iterations == cost.iterations;
  };

  // First a run that is long enough to be measured, at most 16 times the work of the last one.
  cost.memory_kib = memory_kib_min;
  const double enough = std::min(kTrialSeconds, target);
  double seconds = timed_derive(cost, request.output_bytes, cancel);
  while (seconds < enough) {
    const KdfCost next = scaled(std::clamp(1.1 * enough / seconds, 2.0, 16.0));
    if (same(next)) return cost;
    cost = next;
    seconds = timed_derive(cost, request.output_bytes, cancel);
  }
  // Time is not quite proportional to work (caches, page faults): correct what is off.
  constexpr double kTolerance = 0.05;
  constexpr int kCorrectionsMax = 3;
  for (int i = 0; i < kCorrectionsMax && std::abs(seconds - target) > kTolerance * target; ++i) {
    const KdfCost next = scaled(target / seconds);
    if (same(next)) break;
    cost = next;
    seconds = timed_derive(cost, request.output_bytes, cancel);
  }
  return cost;
}

}  // namespace

double estimate_seconds(const KdfCost& cost, std::size_t output_bytes) {
  if (cost.type == KdfType::kPbkdf2) {
    const HashInfo hash = require_hash(cost.hash);
    const std::size_t blocks = std::max<std::size_t>(
        1, output_bytes / hash.digest_bytes + (output_bytes % hash.digest_bytes != 0 ? 1 : 0));
    return pbkdf2_seconds_per_iteration(hash) * cost.iterations * rounds(blocks);
  }
  const std::uint32_t lanes = std::max(1U, cost.parallel);
  return argon2_seconds_per_kib(cost.type) * cost.memory_kib * cost.iterations * rounds(lanes) /
         lanes;
}

void check_limit(const KdfCost& cost, std::size_t output_bytes, const KdfLimit& limit,
                 std::string_view what) {
  if (const std::string fault = cost_fault(cost); !fault.empty()) {
    throw Error(Code::kDamaged, fmt::format("{}: {}", what, fault));
  }
  if (const std::string excess = cost_excess(cost); !excess.empty()) {
    throw Error(Code::kKdfLimit, fmt::format("{} asks for {} are accepted", what, excess),
                "no option allows more");
  }
  if (cost.type != KdfType::kPbkdf2 && cost.memory_kib > limit.memory_kib_max) {
    throw Error(Code::kKdfLimit,
                fmt::format("{} asks for {} MiB of memory, the limit is {} MiB", what,
                            cost.memory_kib / 1024, limit.memory_kib_max / 1024),
                "raise the limit with --kdf-limit if you trust this header");
  }
  if (cost.type == KdfType::kPbkdf2) require_hash(cost.hash);
  if (slow_machine_seconds(cost, output_bytes) < limit.seconds_max) return;
  const double seconds = estimate_seconds(cost, output_bytes);
  if (seconds > limit.seconds_max) {
    throw Error(Code::kKdfLimit,
                fmt::format("{} would take about {} to try, the limit is {}", what,
                            human_duration(seconds), human_duration(limit.seconds_max)),
                "raise the limit with --kdf-limit if you trust this header");
  }
}

void KdfBudget::take(std::vector<Work> attempt, std::string_view what) {
  const bool first = taken_.empty();
  const std::size_t taken_before = taken_.size();
  double slow_seconds = slow_seconds_;
  for (Work& work : attempt) {
    slow_seconds += slow_machine_seconds(work.cost, work.output_bytes);
    taken_.push_back(std::move(work));
  }
  double seconds = 0;
  if (slow_seconds >= seconds_max_) {
    for (const Work& work : taken_) seconds += estimate_seconds(work.cost, work.output_bytes);
  }
  if (seconds <= seconds_max_) {
    slow_seconds_ = slow_seconds;
    return;
  }
  taken_.resize(taken_before);
  throw Error(
      Code::kKdfLimit,
      fmt::format("{} would take about {} to try{}, the limit is {}", what, human_duration(seconds),
                  first ? "" : " with those before it", human_duration(seconds_max_)),
      "raise the limit with --kdf-limit if you trust this header");
}

KdfCost calibrate(const CalibrationRequest& request, const CancelToken* cancel) {
  const double target = std::chrono::duration<double>(request.target).count();
  if (target <= 0) {
    throw Error(Code::kInvalidArgument, "the time that unlocking shall take must be positive");
  }
  return request.type == KdfType::kPbkdf2 ? calibrate_pbkdf2(request, target, cancel)
                                          : calibrate_argon2(request, target, cancel);
}

}  // namespace lukskeep::crypto
