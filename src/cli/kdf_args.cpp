#include "cli/kdf_args.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "base/parallel_for.h"
#include "cli/units.h"

namespace lukskeep::cli {
namespace {

// As cryptsetup: 2000 ms, 1 GiB (cut to half of the machine's memory), at most 4 lanes.
constexpr std::uint32_t kIterTimeMsDefault = 2000;
constexpr std::uint32_t kMemoryKibDefault = 1024 * 1024;
constexpr std::uint32_t kParallelDefault = 4;

crypto::KdfType type_of(const KdfArgs& args, const KdfDefaults& defaults) {
  if (!args.type) return defaults.type;
  if (*args.type == "pbkdf2") return crypto::KdfType::kPbkdf2;
  if (*args.type == "argon2i") return crypto::KdfType::kArgon2i;
  return crypto::KdfType::kArgon2id;
}

void check(const KdfArgs& args, const KdfDefaults& defaults, crypto::KdfType type) {
  if (defaults.version == luks::Version::kLuks1 && type != crypto::KdfType::kPbkdf2) {
    throw Error(Code::kInvalidArgument,
                fmt::format("LUKS1 keyslots know only pbkdf2, not {}", crypto::kdf_name(type)));
  }
  if (type == crypto::KdfType::kPbkdf2 && (args.memory_kib || args.parallel)) {
    throw Error(Code::kUsage, "--pbkdf-memory and --pbkdf-parallel are for argon2, not for pbkdf2");
  }
  if (args.iterations && args.iter_time_ms) {
    throw Error(Code::kUsage, "--pbkdf-iterations and --iter-time contradict each other");
  }
  if (args.iter_time_ms == 0U) throw Error(Code::kUsage, "--iter-time must be above 0");
}

crypto::KdfCost forced_cost(const KdfArgs& args, std::uint32_t iterations, crypto::KdfType type,
                            const std::string& hash) {
  crypto::KdfCost cost;
  cost.type = type;
  cost.iterations = iterations;
  if (type == crypto::KdfType::kPbkdf2) {
    cost.hash = hash;
    return cost;
  }
  cost.memory_kib = args.memory_kib.value_or(crypto::cap_memory_kib(kMemoryKibDefault));
  cost.parallel = args.parallel.value_or(std::min(kParallelDefault, hardware_threads()));
  return cost;
}

}  // namespace

void KdfArgs::declare(Options& options) {
  options.heading("Key derivation");
  options.add({.name = "--pbkdf",
               .value = "TYPE",
               .help = "how the passphrase becomes a key (default: argon2id, LUKS1 pbkdf2)",
               .choices = {"pbkdf2", "argon2i", "argon2id"}},
              type);
  options.add({.name = "--iter-time",
               .value = "MS",
               .help = "choose costs that take about MS milliseconds here (default 2000)"},
              iter_time_ms);
  options.add({.name = "--pbkdf-iterations",
               .value = "N",
               .help = "exactly N iterations (argon2: the time cost), nothing measured"},
              iterations);
  options.add({.name = "--pbkdf-memory",
               .value = "SIZE",
               .help = "memory of argon2, in KiB or with unit (default up to 1GiB)"},
              [this](const std::string& value) { memory_kib = parse_memory_kib(value); });
  options.add({.name = "--pbkdf-parallel",
               .value = "N",
               .help = "lanes of argon2, 1 to 4 (default: one per CPU)"},
              parallel);
  options.add({.name = "--hash",
               .value = "NAME",
               .help = "hash of pbkdf2 and of the key splitter (default sha256)"},
              hash);
  options.heading("Options");
}

KdfDefaults kdf_defaults(luks::Version version) {
  KdfDefaults defaults;
  defaults.version = version;
  if (version == luks::Version::kLuks1) defaults.type = crypto::KdfType::kPbkdf2;
  return defaults;
}

KdfDefaults kdf_defaults(const luks::Header& header) {
  KdfDefaults defaults = kdf_defaults(header.version);
  if (header.version == luks::Version::kLuks1 && !header.digests.empty()) {
    defaults.hash = header.digests.begin()->second.hash;
  }
  if (!header.keyslots.empty()) {
    const std::uint32_t size = header.keyslots.begin()->second.area.key_size_bytes;
    if (size != 0) defaults.output_bytes = size;
  }
  return defaults;
}

crypto::KdfCost choose_cost(const Session& session, const KdfArgs& args,
                            const KdfDefaults& defaults) {
  const crypto::KdfType type = type_of(args, defaults);
  check(args, defaults, type);
  const std::string hash = args.hash.value_or(defaults.hash);
  if (args.iterations) return forced_cost(args, *args.iterations, type, hash);
  return crypto::calibrate(
      {.type = type,
       .hash = hash,
       .output_bytes = defaults.output_bytes,
       .target = std::chrono::milliseconds(args.iter_time_ms.value_or(kIterTimeMsDefault)),
       .memory_kib_max = args.memory_kib.value_or(kMemoryKibDefault),
       .parallel_max = args.parallel.value_or(kParallelDefault)},
      session.cancel);
}

std::string describe(const crypto::KdfCost& cost) {
  if (cost.type == crypto::KdfType::kPbkdf2) {
    return fmt::format("pbkdf2-{}, {} iterations", cost.hash, cost.iterations);
  }
  return fmt::format("{}, time {}, {}, {} lane{}", crypto::kdf_name(cost.type), cost.iterations,
                     human_size(cost.memory_kib * limits::kKiB), cost.parallel,
                     cost.parallel == 1 ? "" : "s");
}

}  // namespace lukskeep::cli
