// Sector ciphers by kernel and request size: what small requests cost, and what batches gain.
#include <string>

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include "crypto/aes_kernel.h"
#include "crypto/openssl_per_sector.h"
#include "crypto/sector_cipher.h"

namespace lukskeep::crypto {
namespace {

Bytes bench_key(std::uint32_t size_bytes) {
  Bytes key(size_bytes);
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(7 * i + 1);
  return key;
}

void run(benchmark::State& state, const SectorCipher& cipher, std::size_t request_bytes,
         bool encrypts) {
  Bytes data(request_bytes);
  std::uint64_t sector = 0;
  while (state.KeepRunning()) {
    if (encrypts) {
      cipher.encrypt(sector, data);
    } else {
      cipher.decrypt(sector, data);
    }
    benchmark::DoNotOptimize(data.data());
    sector += request_bytes / 512;
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(request_bytes));
}

void add(const std::string& name, const std::shared_ptr<SectorCipher>& cipher) {
  for (const std::size_t request : {std::size_t{4096}, std::size_t{65536}, std::size_t{1048576}}) {
    for (const bool encrypts : {true, false}) {
      const std::string full = fmt::format("{}/{}/{}/{}", name, cipher->kernel(),
                                           encrypts ? "encrypt" : "decrypt", request);
      benchmark::RegisterBenchmark(
          full.c_str(), [=](benchmark::State& state) { run(state, *cipher, request, encrypts); });
    }
  }
}

void add_aes(const char* spec_text, std::uint32_t key_bytes) {
  const CipherSpec spec = parse_cipher_spec(spec_text);
  const Bytes key = bench_key(key_bytes);
  for (const std::uint32_t sector : {512U, 4096U}) {
    const std::string name = fmt::format("{}/{}/{}", spec_text, key_bytes * 8, sector);
    add(name, make_openssl_per_sector(spec, key, sector));
    for (const AesKernel& kernel : aes_kernels()) {
      if (!cpu_features().has_all(kernel.needed)) continue;
      add(name, make_sector_cipher_on(kernel, spec, key, sector));
    }
  }
}

[[maybe_unused]] const bool kRegistered = [] {
  add_aes("aes-xts-plain64", 64);
  add_aes("aes-cbc-essiv:sha256", 32);
  for (const char* text : {"serpent-xts-plain64", "twofish-xts-plain64", "camellia-xts-plain64"}) {
    add(fmt::format("{}/512/512", text),
        make_sector_cipher(parse_cipher_spec(text), bench_key(64), 512));
  }
  return true;
}();

}  // namespace
}  // namespace lukskeep::crypto
