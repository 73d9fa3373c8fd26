// bench kdf, bench ciphers: what this machine does.
#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/command.h"
#include "cli/kdf_args.h"
#include "crypto/cipher_bench.h"
#include "crypto/cipher_spec.h"
#include "crypto/hash.h"
#include "crypto/kdf.h"

namespace lukskeep::cli {
namespace {

constexpr std::uint32_t kIterTimeMsDefault = 2000;
constexpr std::size_t kKeyBytes = 64;  // of aes-xts-plain64 with 512 bits
constexpr std::array<std::string_view, 6> kPbkdf2Hashes = {"sha1",      "sha256",    "sha512",
                                                           "ripemd160", "whirlpool", "sha3-256"};

class BenchKdf final : public Command {
 public:
  void declare(Options& options) override {
    options.add({.name = "--iter-time",
                 .value = "MS",
                 .help = "show the costs that take about MS milliseconds (default 2000)"},
                iter_time_ms_);
  }

  void run(const Session& session) override {
    if (iter_time_ms_ == 0U) throw Error(Code::kUsage, "--iter-time must be above 0");
    OrderedJson rows = OrderedJson::array();
    if (!session.json && !session.quiet) {
      print(fmt::format("costs that take {} ms here, for a key of {} bits\n\n", iter_time_ms(),
                        kKeyBytes * 8));
    }
    for (const std::string_view hash : kPbkdf2Hashes) {
      if (crypto::find_hash(hash)) {
        measure(session, {.type = crypto::KdfType::kPbkdf2, .hash = std::string(hash)}, rows);
      }
    }
    measure(session, {.type = crypto::KdfType::kArgon2i}, rows);
    measure(session, {.type = crypto::KdfType::kArgon2id}, rows);
    if (session.json) print_json({{"iter_time_ms", iter_time_ms()}, {"rows", rows}});
  }

 private:
  std::uint32_t iter_time_ms() const { return iter_time_ms_.value_or(kIterTimeMsDefault); }

  void measure(const Session& session, crypto::CalibrationRequest request,
               OrderedJson& rows) const {
    session.cancel->check();
    request.output_bytes = kKeyBytes;
    request.target = std::chrono::milliseconds(iter_time_ms());
    const crypto::KdfCost cost = crypto::calibrate(request, session.cancel);
    const double seconds = crypto::estimate_seconds(cost, kKeyBytes);
    OrderedJson row = {{"kdf", crypto::kdf_name(cost.type)}};
    std::string text = "  " + describe(cost);
    if (cost.type == crypto::KdfType::kPbkdf2) {
      const double rate = cost.iterations / seconds;
      row["hash"] = cost.hash;
      row["iterations"] = cost.iterations;
      row["iterations_per_second"] = rate;
      text += fmt::format("  ({:.2f} million a second)", rate / 1e6);
    } else {
      row["time"] = cost.iterations;
      row["memory_kib"] = cost.memory_kib;
      row["parallel"] = cost.parallel;
    }
    row["key_bits"] = kKeyBytes * 8;
    row["seconds"] = seconds;
    rows.push_back(row);
    // Line by line: the next one takes its time.
    if (!session.json) print(text + "\n");
  }

  std::optional<std::uint32_t> iter_time_ms_;
};

class BenchCiphers final : public Command {
 public:
  void declare(Options& options) override {
    options.add({.name = "--cipher", .value = "NAME", .help = "only this cipher"}, cipher_);
    options.add({.name = "--key-size", .value = "BITS", .help = "only this size of key"},
                key_bits_);
    options.add_size({.name = "--sector-size", .value = "SIZE", .help = "only this size of sector"},
                     sector_bytes_);
    options.add({.name = "--row-time",
                 .value = "MS",
                 .help = "measure each row for MS milliseconds (default 100)"},
                row_time_ms_);
  }

  void run(const Session& session) override {
    OrderedJson rows = OrderedJson::array();
    if (!session.json) {
      print(fmt::format("{:<24} {:>4}  {:>6}  {:<8} {:<20} {:>7} {:>9}\n", "cipher", "key",
                        "sector", "way", "kernel", "GB/s", "ns/sector"));
    }
    for (const crypto::CipherBenchCase& one : cases()) {
      session.cancel->check();
      for (const auto& row : crypto::bench_cipher(one, row_time(), session.cancel)) {
        rows.push_back(to_json(row));
        if (!session.json) print(to_text(row));
      }
    }
    if (session.json) print_json(rows);
  }

 private:
  std::chrono::milliseconds row_time() const {
    constexpr std::uint32_t row_time_ms_default = 100;
    return std::chrono::milliseconds(std::max(1U, row_time_ms_.value_or(row_time_ms_default)));
  }

  std::vector<crypto::CipherBenchCase> cases() const {
    std::vector<crypto::CipherBenchCase> cases = crypto::default_cipher_bench_cases();
    if (cipher_) {
      const crypto::CipherSpec spec = crypto::parse_cipher_spec(*cipher_);
      std::erase_if(cases, [&](const auto& one) { return one.spec != spec; });
      if (cases.empty()) cases = cases_of(spec);
    }
    std::erase_if(cases, [&](const auto& one) {
      return (key_bits_ && one.key_size_bytes * 8 != *key_bits_) ||
             (sector_bytes_ && one.sector_size_bytes != *sector_bytes_);
    });
    if (cases.empty()) {
      throw Error(Code::kInvalidArgument, "no cipher has that key size and sector size");
    }
    return cases;
  }

  // A cipher that the usual list leaves out: with each of its keys.
  static std::vector<crypto::CipherBenchCase> cases_of(const crypto::CipherSpec& spec) {
    std::vector<crypto::CipherBenchCase> cases;
    for (const std::uint32_t key_size : crypto::key_sizes_bytes(spec)) {
      for (const std::uint32_t sector_size : {512U, 4096U}) {
        cases.push_back(
            {.spec = spec, .key_size_bytes = key_size, .sector_size_bytes = sector_size});
      }
    }
    return cases;
  }

  static OrderedJson to_json(const crypto::CipherBenchRow& row) {
    return {{"cipher", row.cipher},
            {"key_bits", row.key_bits},
            {"sector_bytes", row.sector_bytes},
            {"direction", row.direction},
            {"kernel", row.kernel},
            {"bytes_per_second", row.bytes_per_second},
            {"ns_per_sector", row.nanoseconds_per_sector()}};
  }

  static std::string to_text(const crypto::CipherBenchRow& row) {
    return fmt::format("{:<24} {:>4}  {:>6}  {:<8} {:<20} {:>7.2f} {:>9.0f}\n", row.cipher,
                       row.key_bits, row.sector_bytes, row.direction, row.kernel,
                       row.bytes_per_second / 1e9, row.nanoseconds_per_sector());
  }

  std::optional<std::string> cipher_;
  std::optional<std::uint32_t> key_bits_;
  std::optional<std::uint64_t> sector_bytes_;
  std::optional<std::uint32_t> row_time_ms_;
};

}  // namespace

std::unique_ptr<Command> make_bench_kdf() { return std::make_unique<BenchKdf>(); }
std::unique_ptr<Command> make_bench_ciphers() { return std::make_unique<BenchCiphers>(); }

}  // namespace lukskeep::cli
