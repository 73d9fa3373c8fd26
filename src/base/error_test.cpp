#include <lukskeep/error.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/progress.h>

namespace lukskeep {
namespace {

constexpr auto kCodes = static_cast<unsigned>(Code::kInternal) + 1;

TEST(Error, CarriesCodeMessageAndHint) {
  const Error error(Code::kNoSpace, "cannot write 'x'", "free some space");
  EXPECT_EQ(error.code(), Code::kNoSpace);
  EXPECT_EQ(error.message(), "cannot write 'x'");
  EXPECT_EQ(error.hint(), "free some space");
  EXPECT_STREQ(error.what(), "cannot write 'x'");
  EXPECT_EQ(Error(Code::kIo, "m").hint(), "");
}

TEST(Error, NamesAreDistinctLowerCaseWords) {
  std::set<std::string_view> names;
  for (unsigned i = 0; i < kCodes; ++i) {
    const std::string_view name = code_name(static_cast<Code>(i));
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_FALSE(name.empty());
    EXPECT_TRUE(std::ranges::all_of(name, [](char c) {
      return (c >= 'a' && c <= 'z') || c == '-';
    })) << name;
  }
  EXPECT_EQ(code_name(Code::kWrongPassphrase), "wrong-passphrase");
  EXPECT_EQ(code_name(Code::kNotLuks), "not-luks");
  EXPECT_EQ(code_name(Code::kKdfLimit), "kdf-limit");
  EXPECT_EQ(code_name(Code::kInternal), "internal");
}

// What scripts rely on: the statuses of cryptsetup (0 to 5) and ours.
TEST(Error, ExitStatusesAreTheDocumentedOnes) {
  for (unsigned i = 0; i < kCodes; ++i) {
    const int status = exit_status(static_cast<Code>(i));
    EXPECT_TRUE((status >= 1 && status <= 7) || status == 130) << i;
  }
  EXPECT_EQ(exit_status(Code::kUsage), 1);
  EXPECT_EQ(exit_status(Code::kWrongPassphrase), 2);
  EXPECT_EQ(exit_status(Code::kPermissionDenied), 2);
  EXPECT_EQ(exit_status(Code::kOutOfMemory), 3);
  EXPECT_EQ(exit_status(Code::kNotLuks), 4);
  EXPECT_EQ(exit_status(Code::kDamaged), 4);
  EXPECT_EQ(exit_status(Code::kUnsupported), 4);
  EXPECT_EQ(exit_status(Code::kIo), 4);
  EXPECT_EQ(exit_status(Code::kExists), 5);
  EXPECT_EQ(exit_status(Code::kBusy), 5);
  EXPECT_EQ(exit_status(Code::kUnsafe), 6);
  EXPECT_EQ(exit_status(Code::kKdfLimit), 6);
  EXPECT_EQ(exit_status(Code::kLastKeyslot), 6);
  EXPECT_EQ(exit_status(Code::kRemote), 7);
  EXPECT_EQ(exit_status(Code::kTimeout), 7);
  EXPECT_EQ(exit_status(Code::kInterrupted), 130);
}

TEST(Error, OtherWorldsHaveTheirNumbers) {
  for (unsigned i = 0; i < kCodes; ++i) {
    EXPECT_GE(http_status(static_cast<Code>(i)), 400) << i;
    EXPECT_LE(http_status(static_cast<Code>(i)), 599) << i;
    EXPECT_GT(nbd_errno(static_cast<Code>(i)), 0) << i;
  }
  EXPECT_EQ(http_status(Code::kNotFound), 404);
  EXPECT_EQ(http_status(Code::kNoSpace), 507);
  EXPECT_EQ(nbd_errno(Code::kNoSpace), ENOSPC);
  EXPECT_EQ(nbd_errno(Code::kReadOnly), EPERM);
  EXPECT_EQ(nbd_errno(Code::kIo), EIO);
}

TEST(CancelToken, ThrowsOnceCancelled) {
  CancelToken token;
  EXPECT_FALSE(token.cancelled());
  EXPECT_NO_THROW(token.check());
  token.cancel();
  EXPECT_TRUE(token.cancelled());
  try {
    token.check();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInterrupted);
  }
}

}  // namespace
}  // namespace lukskeep
