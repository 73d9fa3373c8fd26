#include "crypto/cipher_bench.h"

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <memory>
#include <utility>

#include "base/bytes.h"
#include "crypto/aes_kernel.h"
#include "crypto/openssl_per_sector.h"
#include "crypto/sector_cipher.h"

namespace lukskeep::crypto {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kBufferBytes = std::size_t{1} << 20;
constexpr unsigned kTurns = 5;

struct Contestant {
  std::unique_ptr<SectorCipher> cipher;
  bool encrypts = true;
  std::vector<double> bytes_per_second;
};

// The values do not matter for the speed; the halves of an XTS key must differ.
Bytes bench_key(std::uint32_t size_bytes) {
  Bytes key(size_bytes);
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(7 * i + 1);
  return key;
}

std::vector<Contestant> contestants(const CipherBenchCase& test_case) {
  const Bytes key = bench_key(test_case.key_size_bytes);
  const std::uint32_t sector = test_case.sector_size_bytes;
  std::vector<Contestant> all;
  const auto add = [&all](const auto& make) {
    for (const bool encrypts : {true, false}) {
      if (auto cipher = make()) all.push_back({std::move(cipher), encrypts, {}});
    }
  };
  add([&] { return make_openssl_per_sector(test_case.spec, key, sector); });
  const std::span<const AesKernel> kernels = aes_kernels();
  for (auto kernel = kernels.rbegin(); kernel != kernels.rend(); ++kernel) {
    // Kernels differ for AES only; the last one stands for them all.
    const bool differs = test_case.spec.cipher == BlockCipher::kAes;
    if (!cpu_features().has_all(kernel->needed) || (!differs && kernel != kernels.rbegin()))
      continue;
    add([&] { return make_sector_cipher_on(*kernel, test_case.spec, key, sector); });
  }
  return all;
}

// Time that this thread really ran: what else the machine does counts as little as possible.
double thread_seconds() {
  timespec now{};
  static_cast<void>(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now));
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double measure(const Contestant& contestant, MutableBytes buffer, Clock::duration span) {
  const Clock::time_point start = Clock::now();
  const double start_seconds = thread_seconds();
  std::size_t done_bytes = 0;
  do {
    if (contestant.encrypts) {
      contestant.cipher->encrypt(done_bytes / 512, buffer);
    } else {
      contestant.cipher->decrypt(done_bytes / 512, buffer);
    }
    done_bytes += buffer.size();
  } while (Clock::now() - start < span);
  return static_cast<double>(done_bytes) / (thread_seconds() - start_seconds);
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

}  // namespace

std::vector<CipherBenchCase> default_cipher_bench_cases() {
  static constexpr std::pair<const char*, std::uint32_t> kDefaults[] = {
      {"aes-xts-plain64", 32},      {"aes-xts-plain64", 64},     {"aes-cbc-essiv:sha256", 16},
      {"aes-cbc-essiv:sha256", 32}, {"serpent-xts-plain64", 64}, {"twofish-xts-plain64", 64},
      {"camellia-xts-plain64", 64}, {"aria-xts-plain64", 64},    {"sm4-xts-plain64", 32},
      {"cast5-cbc-plain64", 16},
  };
  std::vector<CipherBenchCase> cases;
  for (const auto& [text, key_bytes] : kDefaults) {
    for (const std::uint32_t sector : {512U, 4096U}) {
      cases.push_back({parse_cipher_spec(text), key_bytes, sector});
    }
  }
  return cases;
}

std::vector<CipherBenchRow> bench_cipher(const CipherBenchCase& test_case,
                                         std::chrono::milliseconds per_row,
                                         const CancelToken* cancel) {
  std::vector<Contestant> all = contestants(test_case);
  Bytes buffer(kBufferBytes);
  for (unsigned turn = 0; turn < kTurns; ++turn) {
    for (Contestant& contestant : all) {
      if (cancel != nullptr) cancel->check();
      contestant.bytes_per_second.push_back(measure(contestant, buffer, per_row / kTurns));
    }
  }
  std::vector<CipherBenchRow> rows;
  rows.reserve(all.size());
  for (const Contestant& contestant : all) {
    rows.push_back({.cipher = to_string(test_case.spec),
                    .key_bits = test_case.key_size_bytes * 8,
                    .sector_bytes = test_case.sector_size_bytes,
                    .direction = contestant.encrypts ? "encrypt" : "decrypt",
                    .kernel = std::string(contestant.cipher->kernel()),
                    .bytes_per_second = median(contestant.bytes_per_second)});
  }
  return rows;
}

}  // namespace lukskeep::crypto
