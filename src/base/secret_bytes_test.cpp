#include <lukskeep/secret_bytes.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep {
namespace {

static_assert(!std::is_copy_constructible_v<SecretBytes>);
static_assert(!std::is_copy_assignable_v<SecretBytes>);
static_assert(std::is_nothrow_move_constructible_v<SecretBytes>);
static_assert(std::is_nothrow_move_assignable_v<SecretBytes>);

SecretBytes secret(std::string_view text) { return SecretBytes(as_byte_view(text)); }
std::string text_of(const SecretBytes& bytes) { return std::string(as_string_view(bytes.span())); }

// The VmFlags of the mapping that `address` is in (proc(5), smaps).
std::string flags_at(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    if (inside && line.starts_with("VmFlags:")) return line + " ";
    // A mapping starts with "START-END ", other lines with "Name:".
    const std::size_t dash = line.find('-');
    if (dash == std::string::npos || line.find(':') < dash) continue;
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    inside = at >= std::stoull(line, nullptr, 16) &&
             at < std::stoull(line.substr(dash + 1), nullptr, 16);
  }
  return {};
}

// Not with RLIMIT_MEMLOCK 0, nor under AddressSanitizer, which makes mlock do nothing.
bool locking_works() {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* probe = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool works = mlock(probe, page) == 0 && flags_at(probe).find(" lo ") != std::string::npos;
  munmap(probe, page);
  return works;
}

TEST(SecretBytes, StartsZeroedOrAsACopy) {
  EXPECT_TRUE(SecretBytes().empty());
  EXPECT_TRUE(SecretBytes(0).empty());
  const SecretBytes zeroes(5000);
  EXPECT_EQ(zeroes.size(), 5000U);
  EXPECT_TRUE(all_zero(zeroes.span()));
  EXPECT_EQ(text_of(secret("passphrase")), "passphrase");
  EXPECT_TRUE(secret("").empty());
}

TEST(SecretBytes, MovesAndLeavesNothingBehind) {
  SecretBytes from = secret("one");
  const std::byte* place = from.data();
  SecretBytes to = std::move(from);
  EXPECT_EQ(to.data(), place);
  // NOLINTBEGIN(bugprone-use-after-move,clang-analyzer-cplusplus.Move): that is the contract
  EXPECT_TRUE(from.empty());
  EXPECT_EQ(from.data(), nullptr);
  // NOLINTEND(bugprone-use-after-move,clang-analyzer-cplusplus.Move)
  SecretBytes other = secret("two");
  other = std::move(to);
  EXPECT_EQ(text_of(other), "one");
  SecretBytes& self = other;
  other = std::move(self);
  EXPECT_EQ(text_of(other), "one");
}

TEST(SecretBytes, CloneIsIndependent) {
  SecretBytes one = secret("same");
  const SecretBytes two = one.clone();
  one.data()[0] = std::byte{'S'};
  EXPECT_EQ(text_of(two), "same");
  EXPECT_TRUE(SecretBytes().clone().empty());
}

TEST(SecretBytes, TruncateWipesWhatItCutsOff) {
  SecretBytes bytes = secret("secret");
  const std::byte* place = bytes.data();
  bytes.truncate(10);
  EXPECT_EQ(text_of(bytes), "secret");
  bytes.truncate(2);
  EXPECT_EQ(text_of(bytes), "se");
  EXPECT_TRUE(all_zero({place + 2, 4}));  // still the object's own page
  bytes.truncate(0);
  EXPECT_TRUE(bytes.empty());
  EXPECT_TRUE(all_zero({place, 6}));
}

TEST(SecretBytes, StaysOutOfDumpsAndSwap) {
  const SecretBytes bytes(100);
  const std::string flags = flags_at(bytes.data());
  ASSERT_FALSE(flags.empty());
  EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;  // not in core dumps
  EXPECT_NE(flags.find(" wf "), std::string::npos) << flags;  // wiped on fork
  if (locking_works()) {
    EXPECT_NE(flags.find(" lo "), std::string::npos) << flags;
  }
}

TEST(SecretBytes, ForkedChildrenSeeNothing) {
  const SecretBytes bytes = secret("secret");
  const pid_t child = fork();
  if (child == 0) _exit(all_zero(bytes.span()) ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(text_of(bytes), "secret");
}

TEST(SecretBytes, SizesBeyondMemoryAreAnError) {
  for (const std::size_t size : {SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX / 2}) {
    try {
      const SecretBytes bytes(size);
      FAIL() << size;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kOutOfMemory);
    }
  }
}

TEST(SecretBytes, ConstantTimeComparisonIsAComparison) {
  const auto equal = [](std::string_view a, std::string_view b) {
    return equal_constant_time(as_byte_view(a), as_byte_view(b));
  };
  EXPECT_TRUE(equal("", ""));
  EXPECT_TRUE(equal("abc", "abc"));
  EXPECT_FALSE(equal("abc", "abd"));
  EXPECT_FALSE(equal("abc", "bbc"));
  EXPECT_FALSE(equal("abc", "ab"));
  EXPECT_FALSE(equal("", "a"));
  // Differences that cancel in a sum or an exclusive or must not cancel here.
  EXPECT_FALSE(equal("ab", "ba"));
  EXPECT_FALSE(equal("\x01\x01", "\x02\x02"));
  EXPECT_FALSE(equal(std::string_view("\x80\0", 2), std::string_view("\0\0", 2)));
}

TEST(SecretBytes, WipeWritesZeroes) {
  Bytes bytes(100, std::byte{7});
  wipe(MutableBytes(bytes).subspan(1, 98));
  EXPECT_EQ(bytes.front(), std::byte{7});
  EXPECT_EQ(bytes.back(), std::byte{7});
  EXPECT_TRUE(all_zero(ByteView(bytes).subspan(1, 98)));
  wipe({});
}

}  // namespace
}  // namespace lukskeep
