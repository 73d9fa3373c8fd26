// The policies that are built in, as files that could have been written by hand.
#include <algorithm>
#include <array>

#include "luks/policy.h"

namespace lukskeep::luks {
namespace {

// Costs: cryptsetup never writes more than 4 GiB, 4 lanes or less than 1000 iterations by itself;
// --iter-time of ten seconds on a fast machine stays below the upper bounds.
constexpr std::string_view kUntrusted = R"(# Headers from strangers.
description = "nothing unencrypted, weakened, unfinished or absurdly dear"

versions = [1, 2]

# "linear" is not encrypted; flags and requirements belong to a re-encryption on its way, which
# a header can pretend in order to have data written or read in the clear.
segment_types = ["crypt"]
segment_flags = []
segments = { max = 1 }
requirements = []
keyslot_types = ["luks2"]
sector_sizes = [512, 1024, 2048, 4096]

# Needs the kernel: nothing here can open it, so nobody here should trust it.
integrity = false

# Sizes of keys in bits. No cipher_null, no ECB, no CBC with IVs that can be predicted, no counters
# that start again when a sector is written anew, no IVs that repeat after 2 TiB (plain), no 64-bit
# blocks, no key below 128 bits; and no name that this program does not know, such as capi:, which
# chooses an implementation.
[ciphers]
"aes-xts-plain64" = [256, 384, 512]
"aes-xts-plain64be" = [256, 384, 512]
"aes-xts-essiv:sha256" = [256, 384, 512]
"aes-cbc-essiv:sha256" = [128, 192, 256]
"serpent-xts-plain64" = [256, 384, 512]
"serpent-xts-plain64be" = [256, 384, 512]
"serpent-xts-essiv:sha256" = [256, 384, 512]
"serpent-cbc-essiv:sha256" = [128, 192, 256]
"twofish-xts-plain64" = [256, 384, 512]
"twofish-xts-plain64be" = [256, 384, 512]
"twofish-xts-essiv:sha256" = [256, 384, 512]
"twofish-cbc-essiv:sha256" = [128, 192, 256]
"camellia-xts-plain64" = [256, 384, 512]
"camellia-cbc-essiv:sha256" = [128, 192, 256]
"aria-xts-plain64" = [256, 384, 512]
"aria-cbc-essiv:sha256" = [128, 192, 256]
"sm4-xts-plain64" = [256]

[kdf.pbkdf2]
hashes = ["sha1", "sha224", "sha256", "sha384", "sha512", "sha3-224", "sha3-256", "sha3-384",
  "sha3-512", "ripemd160", "whirlpool", "blake2b-160", "blake2b-256", "blake2b-384", "blake2b-512",
  "blake2s-160", "blake2s-224", "blake2s-256", "sm3", "stribog256", "stribog512"]
iterations = { min = 1000, max = 100_000_000 }

[kdf.argon2i]
time = { min = 1, max = 1000 }
memory_kib = { min = 32, max = 4_194_304 }
parallel = { min = 1, max = 16 }
time_memory_kib = { max = 134_217_728 }

[kdf.argon2id]
time = { min = 1, max = 1000 }
memory_kib = { min = 32, max = 4_194_304 }
parallel = { min = 1, max = 16 }
time_memory_kib = { max = 134_217_728 }

# A short digest would let many keys pass for the volume key.
[digest]
hashes = ["sha1", "sha224", "sha256", "sha384", "sha512", "sha3-224", "sha3-256", "sha3-384",
  "sha3-512", "ripemd160", "whirlpool", "blake2b-160", "blake2b-256", "blake2b-384", "blake2b-512",
  "blake2s-160", "blake2s-224", "blake2s-256", "sm3", "stribog256", "stribog512"]
iterations = { min = 1000, max = 100_000_000 }
size_bytes = { min = 20, max = 64 }

[af]
stripes = { min = 4000, max = 4000 }
)";

constexpr std::array<std::string_view, 1> kNames = {"untrusted"};

}  // namespace

std::span<const std::string_view> builtin_policy_names() { return kNames; }

std::string_view builtin_policy_text(std::string_view name) {
  return name == kNames[0] ? kUntrusted : std::string_view();
}

}  // namespace lukskeep::luks
