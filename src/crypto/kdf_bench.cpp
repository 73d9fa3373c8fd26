// PBKDF2 and Argon2 against what other LUKS programs call.
#include <array>
#include <string>

#include <argon2.h>
#include <benchmark/benchmark.h>
#include <openssl/evp.h>

#include "base/parallel_for.h"
#include "crypto/hash.h"
#include "crypto/kdf.h"

namespace lukskeep::crypto {
namespace {

constexpr std::uint32_t kIterations = 200'000;
constexpr std::size_t kKeyBytes = 64;  // a volume key of AES-256-XTS
constexpr std::uint32_t kArgon2Time = 4;
constexpr std::uint32_t kArgon2MemoryKib = 64 * 1024;
constexpr std::array<std::byte, 32> kSalt{};

void set_iterations_per_second(benchmark::State& state) {
  state.SetItemsProcessed(state.iterations() * kIterations);
}

void pbkdf2_ours(benchmark::State& state, const std::string& hash, unsigned threads) {
  const KdfCost cost{.type = KdfType::kPbkdf2, .hash = hash, .iterations = kIterations};
  std::array<std::byte, kKeyBytes> out{};
  while (state.KeepRunning()) derive(cost, as_byte_view("passphrase"), kSalt, out, threads);
  set_iterations_per_second(state);
}

void pbkdf2_openssl(benchmark::State& state, const char* hash) {
  const EVP_MD* digest = EVP_get_digestbyname(hash);
  std::array<unsigned char, kKeyBytes> out{};
  while (state.KeepRunning()) {
    PKCS5_PBKDF2_HMAC("passphrase", 10, reinterpret_cast<const unsigned char*>(kSalt.data()),
                      static_cast<int>(kSalt.size()), static_cast<int>(kIterations), digest,
                      static_cast<int>(out.size()), out.data());
  }
  set_iterations_per_second(state);
}

void argon2id_ours(benchmark::State& state) {
  const KdfCost cost{.type = KdfType::kArgon2id,
                     .iterations = kArgon2Time,
                     .memory_kib = kArgon2MemoryKib,
                     .parallel = hardware_threads()};
  std::array<std::byte, kKeyBytes> out{};
  while (state.KeepRunning()) {
    derive(cost, as_byte_view("passphrase"), kSalt, out, hardware_threads());
  }
}

void argon2id_library(benchmark::State& state) {
  std::array<unsigned char, kKeyBytes> out{};
  while (state.KeepRunning()) {
    argon2id_hash_raw(kArgon2Time, kArgon2MemoryKib, hardware_threads(), "passphrase", 10,
                      kSalt.data(), kSalt.size(), out.data(), out.size());
  }
}

const bool kRegistered = [] {
  for (const char* hash : {"sha1", "sha256", "sha512", "sha3-256"}) {
    const std::string name = std::string("pbkdf2-64-bytes/") + hash;
    benchmark::RegisterBenchmark((name + "/openssl").c_str(), pbkdf2_openssl, hash)->UseRealTime();
    benchmark::RegisterBenchmark((name + "/one-thread").c_str(), pbkdf2_ours, hash, 1U)
        ->UseRealTime();
    benchmark::RegisterBenchmark((name + "/all-threads").c_str(), pbkdf2_ours, hash,
                                 hardware_threads())
        ->UseRealTime();
  }
  for (const char* hash : {"ripemd160", "whirlpool", "blake2b-512"}) {
    benchmark::RegisterBenchmark((std::string("pbkdf2-64-bytes/") + hash + "/one-thread").c_str(),
                                 pbkdf2_ours, hash, 1U)
        ->UseRealTime();
  }
  benchmark::RegisterBenchmark("argon2id-64-mib/libargon2", argon2id_library)->UseRealTime();
  benchmark::RegisterBenchmark("argon2id-64-mib/ours", argon2id_ours)->UseRealTime();
  return true;
}();

}  // namespace
}  // namespace lukskeep::crypto
