#include "crypto/kdf.h"

#include <limits>

#include <argon2.h>
#include <fmt/format.h>

#include <lukskeep/error.h>

#include "crypto/hash.h"
#include "crypto/kdf_argon2.h"
#include "crypto/kdf_fault.h"
#include "crypto/kdf_pbkdf2.h"

namespace lukskeep::crypto {
namespace {

constexpr std::uint64_t kUint32Max = std::numeric_limits<std::uint32_t>::max();

void check_cost(const KdfCost& cost) {
  if (const std::string fault = cost_fault(cost); !fault.empty()) {
    throw Error(Code::kInvalidArgument, fault);
  }
}

void check_pbkdf2_output(const KdfCost& cost, std::size_t size_bytes) {
  const std::uint64_t size_max = kUint32Max * require_hash(cost.hash).digest_bytes;
  if (size_bytes == 0 || size_bytes > size_max) {
    throw Error(Code::kInvalidArgument,
                fmt::format("pbkdf2-{} cannot derive {} bytes", cost.hash, size_bytes));
  }
}

void check_argon2_sizes(const KdfCost& cost, ByteView passphrase, ByteView salt, MutableBytes out) {
  const auto check = [&](std::string_view what, std::size_t size, std::size_t size_min) {
    if (size < size_min || size > kUint32Max) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{} cannot take {} of {} bytes", kdf_name(cost.type), what, size));
    }
  };
  check("an output", out.size(), ARGON2_MIN_OUTLEN);
  check("a salt", salt.size(), ARGON2_MIN_SALT_LENGTH);
  check("a passphrase", passphrase.size(), ARGON2_MIN_PWD_LENGTH);
}

}  // namespace

std::string_view kdf_name(KdfType type) noexcept {
  switch (type) {
    case KdfType::kPbkdf2:
      return "pbkdf2";
    case KdfType::kArgon2i:
      return "argon2i";
    case KdfType::kArgon2id:
      return "argon2id";
  }
  return "";
}

std::string cost_fault(const KdfCost& cost) {
  if (cost.iterations == 0) {
    return fmt::format("{} with {} is impossible", kdf_name(cost.type),
                       cost.type == KdfType::kPbkdf2 ? "0 iterations" : "a time cost of 0");
  }
  if (cost.type == KdfType::kPbkdf2) return {};
  if (cost.parallel < ARGON2_MIN_LANES || cost.parallel > ARGON2_MAX_LANES) {
    return fmt::format("{} with {} lanes is impossible", kdf_name(cost.type), cost.parallel);
  }
  // RFC 9106 section 3.1: at least 8 KiB a lane.
  const std::uint64_t memory_kib_min = std::uint64_t{8} * cost.parallel;
  if (cost.memory_kib < memory_kib_min) {
    return fmt::format("{} with {} KiB of memory is impossible: {} lanes need {}",
                       kdf_name(cost.type), cost.memory_kib, cost.parallel, memory_kib_min);
  }
  return {};
}

void derive(const KdfCost& cost, ByteView passphrase, ByteView salt, MutableBytes out,
            unsigned threads, const CancelToken* cancel) {
  check_cost(cost);
  if (cancel != nullptr) cancel->check();
  if (cost.type == KdfType::kPbkdf2) {
    check_pbkdf2_output(cost, out.size());
    pbkdf2(cost.hash, cost.iterations, passphrase, salt, out, threads, cancel);
    return;
  }
  check_argon2_sizes(cost, passphrase, salt, out);
  argon2(cost, passphrase, salt, out, threads);
}

}  // namespace lukskeep::crypto
