#include "archive/age.h"

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "archive/bech32.h"
#include "crypto/random.h"

namespace lukskeep::archive {
namespace {

std::vector<AgeIdentity> identities_of(std::string_view text) {
  return parse_age_identities(as_byte_view(text), "test");
}

Code code_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return Code::kInternal;
}

// BIP 173, "Test vectors": valid checksums.
TEST(Bech32, ChecksumsOfTheSpecification) {
  EXPECT_TRUE(bech32_decode("a", "A12UEL5L"));
  EXPECT_TRUE(bech32_decode("a", "a12uel5l"));
  EXPECT_FALSE(bech32_decode("a", "a12uel5m"));
  EXPECT_FALSE(bech32_decode("a", "a12Uel5l"));
  EXPECT_FALSE(bech32_decode("b", "a12uel5l"));
  EXPECT_TRUE(bech32_decode("abcdef", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw"));
}

TEST(Bech32, RoundTrips) {
  for (std::size_t size = 0; size < 70; ++size) {
    const Bytes data = crypto::random_bytes(size);
    const SecretBytes text = bech32_encode("age", data);
    const SecretBytes back =
        bech32_decode("age", as_string_view(text.span())).value_or(SecretBytes());
    EXPECT_TRUE(equal_constant_time(back.span(), data)) << size;
  }
}

constexpr std::string_view kIdentity =
    "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

TEST(Age, AKeyMadeOfKnownBytes) {
  // The scalar is 32 times 0x42: its text is in age's own testkit.
  const auto identities = identities_of(kIdentity);
  ASSERT_EQ(identities.size(), 1U);
  EXPECT_EQ(Bytes(identities[0].scalar.span().begin(), identities[0].scalar.span().end()),
            Bytes(32, std::byte{0x42}));
  EXPECT_EQ(as_string_view(to_text(identities[0]).span()), kIdentity);
  const AgeRecipient recipient = recipient_of(identities[0]);
  EXPECT_EQ(to_string(recipient), "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj");
  EXPECT_EQ(parse_age_recipient(to_string(recipient)), recipient);
}

TEST(Age, SealsToSeveralAndEachOpens) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{65535},
                                 std::size_t{65536}, std::size_t{65537}, std::size_t{300000}}) {
    const Bytes plain = crypto::random_bytes(size);
    std::vector<AgeIdentity> keys;
    std::vector<AgeRecipient> recipients;
    for (int i = 0; i < 3; ++i) {
      keys.push_back(make_age_identity());
      recipients.push_back(recipient_of(keys.back()));
    }
    const Bytes sealed = age_seal(plain, recipients);
    for (const AgeIdentity& key : keys) {
      EXPECT_EQ(age_open(sealed, {&key, 1}, "x"), plain) << size;
    }
    const AgeIdentity stranger = make_age_identity();
    EXPECT_FALSE(age_open(sealed, {&stranger, 1}, "x"));
    EXPECT_FALSE(age_open(sealed, {}, "x"));
  }
}

TEST(Age, EveryChangeAndCutIsNoticed) {
  const AgeIdentity key = make_age_identity();
  const AgeRecipient recipient = recipient_of(key);
  const Bytes sealed = age_seal(crypto::random_bytes(100), {&recipient, 1});
  for (std::size_t at = 0; at < sealed.size(); ++at) {
    Bytes changed = sealed;
    changed[at] ^= std::byte{1};
    // A change of the wrapped key leaves no recipient; all others are damage.
    try {
      EXPECT_FALSE(age_open(changed, {&key, 1}, "x")) << at;
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == Code::kDamaged || error.code() == Code::kUnsupported) << at;
    }
    EXPECT_EQ(code_of([&] { age_open(ByteView(sealed).first(at), {&key, 1}, "x"); }),
              Code::kDamaged)
        << at;
  }
}

TEST(Age, WrongTextsAreRefusedByLine) {
  EXPECT_EQ(code_of([] { parse_age_recipient("age1qqqq"); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([] { parse_age_recipients("# a\n\nage1x\n", "file"); }),
            Code::kInvalidArgument);
  EXPECT_EQ(code_of([] { identities_of("AGE-SECRET-KEY-1QQQQ"); }), Code::kInvalidArgument);
  try {
    identities_of("# c\nAGE-SECRET-KEY-1WRONG");
  } catch (const Error& error) {
    EXPECT_EQ(error.message().find("WRONG"), std::string::npos);
    EXPECT_NE(error.message().find("line 2"), std::string::npos);
  }
  EXPECT_EQ(code_of([] { age_seal({}, {}); }), Code::kInvalidArgument);
}

}  // namespace
}  // namespace lukskeep::archive
