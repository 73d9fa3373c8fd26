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

// The ciphers measured, until the end of the program.
std::vector<std::unique_ptr<SectorCipher>>& ciphers() {
  static std::vector<std::unique_ptr<SectorCipher>> all;
  return all;
}

// Arguments: which cipher, bytes of a request, whether it encrypts.
void run(benchmark::State& state) {
  const SectorCipher& cipher = *ciphers().at(static_cast<std::size_t>(state.range(0)));
  Bytes data(static_cast<std::size_t>(state.range(1)));
  const bool encrypts = state.range(2) != 0;
  std::uint64_t sector = 0;
  while (state.KeepRunning()) {
    if (encrypts) {
      cipher.encrypt(sector, data);
    } else {
      cipher.decrypt(sector, data);
    }
    sector += data.size() / 512;
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(data.size()));
}

void add(std::vector<std::string>& names, const std::string& name,
         std::unique_ptr<SectorCipher> cipher) {
  names.push_back(fmt::format("{}/{}", name, cipher->kernel()));
  ciphers().push_back(std::move(cipher));
}

void add_aes(std::vector<std::string>& names, const char* spec_text, std::uint32_t key_bytes) {
  const CipherSpec spec = parse_cipher_spec(spec_text);
  const Bytes key = bench_key(key_bytes);
  for (const std::uint32_t sector : {512U, 4096U}) {
    const std::string name = fmt::format("{}/{}/{}", spec_text, key_bytes * 8, sector);
    add(names, name, make_openssl_per_sector(spec, key, sector));
    for (const AesKernel& kernel : aes_kernels()) {
      if (!cpu_features().has_all(kernel.needed)) continue;
      add(names, name, make_sector_cipher_on(kernel, spec, key, sector));
    }
  }
}

// Makes the ciphers; their names, in the same order.
std::vector<std::string> make_ciphers() {
  std::vector<std::string> names;
  add_aes(names, "aes-xts-plain64", 64);
  add_aes(names, "aes-cbc-essiv:sha256", 32);
  for (const char* text : {"serpent-xts-plain64", "twofish-xts-plain64", "camellia-xts-plain64"}) {
    add(names, fmt::format("{}/512/512", text),
        make_sector_cipher(parse_cipher_spec(text), bench_key(64), 512));
  }
  return names;
}

[[maybe_unused]] const bool kRegistered = [] {
  std::int64_t number = 0;
  for (const std::string& name : make_ciphers()) {
    benchmark::RegisterBenchmark(name.c_str(), run)
        ->ArgsProduct({{number++}, {4096, 65536, 1048576}, {0, 1}})
        ->ArgNames({"cipher", "request", "encrypt"})
        ->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
}  // namespace lukskeep::crypto
