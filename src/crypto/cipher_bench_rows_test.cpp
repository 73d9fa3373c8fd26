#include <algorithm>
#include <string>

#include <gtest/gtest.h>
#include <lukskeep/error.h>

#include "crypto/cipher_bench.h"
#include "crypto/cipher_test_tools.h"

namespace lukskeep::crypto {
namespace {

using std::chrono::milliseconds;

TEST(CipherBench, RowsOfAes) {
  const auto rows = bench_cipher({parse_cipher_spec("aes-xts-plain64"), 64, 512}, milliseconds(5));
  const std::size_t kernels = usable_kernels().size() + 1;
  ASSERT_EQ(rows.size(), 2 * kernels);
  EXPECT_EQ(rows[0].kernel, "openssl-per-sector");
  EXPECT_EQ(rows[0].direction, "encrypt");
  EXPECT_EQ(rows[1].direction, "decrypt");
  EXPECT_EQ(rows[2].kernel, "portable");
  EXPECT_EQ(rows.back().kernel, usable_kernels().front()->name);
  for (const CipherBenchRow& row : rows) {
    EXPECT_EQ(row.cipher, "aes-xts-plain64");
    EXPECT_EQ(row.key_bits, 512U);
    EXPECT_EQ(row.sector_bytes, 512U);
    EXPECT_GT(row.bytes_per_second, 1e5) << row.kernel;
    EXPECT_LT(row.bytes_per_second, 1e12) << row.kernel;
    EXPECT_NEAR(row.nanoseconds_per_sector() * row.bytes_per_second, 512e9, 1e3);
  }
}

TEST(CipherBench, RowsWithoutABaseline) {
  for (const auto& [cipher, key_bytes] :
       {std::pair{"aes-xts-plain64", 48U}, std::pair{"serpent-xts-plain64", 64U}}) {
    const auto rows = bench_cipher({parse_cipher_spec(cipher), key_bytes, 4096}, milliseconds(5));
    EXPECT_TRUE(std::ranges::none_of(
        rows, [](const CipherBenchRow& row) { return row.kernel == "openssl-per-sector"; }));
    EXPECT_EQ(rows.size(), cipher[0] == 's' ? 2 : 2 * usable_kernels().size());
  }
}

TEST(CipherBench, CanBeCancelled) {
  CancelToken cancel;
  cancel.cancel();
  try {
    bench_cipher({parse_cipher_spec("aes-xts-plain64"), 64, 512}, milliseconds(5), &cancel);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInterrupted);
  }
}

TEST(CipherBench, DefaultsCanAllBeMade) {
  for (const CipherBenchCase& c : default_cipher_bench_cases()) {
    EXPECT_NO_THROW(check_key_size(c.spec, c.key_size_bytes)) << to_string(c.spec);
  }
}

}  // namespace
}  // namespace lukskeep::crypto
