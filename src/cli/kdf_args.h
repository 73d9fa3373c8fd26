// The options that say how a new keyslot derives its key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <lukskeep/header.h>

#include "cli/options.h"
#include "cli/session.h"
#include "crypto/kdf.h"
#include "luks/keyslots.h"

namespace lukskeep::cli {

// --pbkdf, --pbkdf-iterations, --pbkdf-memory, --pbkdf-parallel, --iter-time, --hash.
struct KdfArgs {
  std::optional<std::string> type;
  std::optional<std::uint32_t> iterations;
  std::optional<std::uint32_t> memory_kib;
  std::optional<std::uint32_t> parallel;
  std::optional<std::uint32_t> iter_time_ms;
  std::optional<std::string> hash;

  void declare(Options& options);
};

// What applies where no option says otherwise.
struct KdfDefaults {
  luks::Version version = luks::Version::kLuks2;
  crypto::KdfType type = crypto::KdfType::kArgon2id;
  std::string hash = "sha256";
  std::size_t output_bytes = 64;  // the size of the key that encrypts the keyslot area
};

// Defaults of a new volume, or of a new keyslot in `header`.
KdfDefaults kdf_defaults(luks::Version version);
KdfDefaults kdf_defaults(const luks::Header& header);

// Forced costs as they are, others measured on this machine: takes about --iter-time. Throws
// Error{kUsage} for options that contradict each other.
crypto::KdfCost choose_cost(const Session& session, const KdfArgs& args,
                            const KdfDefaults& defaults);

// "argon2id, time 4, 1 GiB, 4 lanes" or "pbkdf2-sha256, 1000 iterations".
std::string describe(const crypto::KdfCost& cost);

}  // namespace lukskeep::cli
