// That no branch and no address in the AES kernels depends on a key or on data: valgrind's
// memcheck reports every jump and every access that depends on bytes declared undefined.
#include <cstdlib>
#include <string>

#include <unistd.h>

#include <gtest/gtest.h>

#include "crypto/cipher_test_tools.h"
#include "crypto/sector_cipher.h"

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define LUKSKEEP_HAS_VALGRIND 1
#else
#define LUKSKEEP_HAS_VALGRIND 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define LUKSKEEP_HAS_ASAN 1
#else
#define LUKSKEEP_HAS_ASAN 0
#endif

namespace lukskeep::crypto {
namespace {

#if LUKSKEEP_HAS_VALGRIND && !LUKSKEEP_HAS_ASAN

void make_secret(MutableBytes bytes) { VALGRIND_MAKE_MEM_UNDEFINED(bytes.data(), bytes.size()); }
void make_public(MutableBytes bytes) { VALGRIND_MAKE_MEM_DEFINED(bytes.data(), bytes.size()); }

// The kernels that valgrind's CPU has: AES-NI, but no VAES.
void use_secrets(const char* name) {
  const CipherSpec spec = parse_cipher_spec(name);
  unsigned kernels = 0;
  for (const AesKernel* kernel : usable_kernels()) {
    if (kernel->functions == nullptr) continue;  // OpenSSL's code is not ours to check
    ++kernels;
    for (const std::uint32_t key_bytes : key_sizes_bytes(spec)) {
      Bytes key = pattern(key_bytes, 1);
      const Bytes plain = pattern(std::size_t{9} * 512, 2);
      Bytes data = plain;
      make_secret(key);
      make_secret(data);
      const auto cipher = make_sector_cipher_on(*kernel, spec, key, 512);
      cipher->encrypt(3, data);
      cipher->decrypt(3, data);
      make_public(data);
      EXPECT_EQ(data, plain) << name << " " << kernel->name;
    }
  }
  EXPECT_GE(kernels, 1U);
}

// Valgrind has to find something where there is something, or its silence would mean nothing.
TEST(ConstantTime, DISABLED_BranchesOnASecret) {
  Bytes secret = pattern(16, 1);
  make_secret(secret);
  unsigned count = 0;
  for (const std::byte b : secret) {
    if (b == std::byte{0x5a}) ++count;
  }
  VALGRIND_MAKE_MEM_DEFINED(&count, sizeof(count));
  EXPECT_LE(count, 16U);
}

TEST(ConstantTime, DISABLED_UsesSecrets) {
  ASSERT_NE(RUNNING_ON_VALGRIND, 0U);
  // Not essiv: hashes of keys are OpenSSL's code too.
  for (const char* name : {"aes-xts-plain64", "aes-cbc-plain64", "aes-cbc-eboiv", "aes-ctr-plain64",
                           "aes-lrw-benbi"}) {
    use_secrets(name);
  }
}

int run_under_valgrind(const std::string& test) {
  const std::string command =
      "valgrind --quiet --error-exitcode=9 --leak-check=no /proc/" + std::to_string(getpid()) +
      "/exe --gtest_also_run_disabled_tests --gtest_filter=ConstantTime.DISABLED_" + test +
      " > /dev/null 2>&1";
  // NOLINTNEXTLINE(cert-env33-c): nothing of the command comes from outside
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ConstantTime, Kernels) {
  if (aes_kernels().size() == 1) GTEST_SKIP() << "skipped: built without the SIMD kernels";
  // NOLINTNEXTLINE(cert-env33-c)
  if (std::system("command -v valgrind > /dev/null") != 0) {
    GTEST_SKIP() << "skipped: valgrind is not installed";
  }
  EXPECT_EQ(run_under_valgrind("BranchesOnASecret"), 9);
  EXPECT_EQ(run_under_valgrind("UsesSecrets"), 0);
}

#else

TEST(ConstantTime, Kernels) {
  GTEST_SKIP() << "skipped: valgrind's headers are not installed, or this is built with ASan";
}

#endif

}  // namespace
}  // namespace lukskeep::crypto
