#include "nbde/shamir.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::nbde {
namespace {

std::vector<SecretBytes> pick(const std::vector<SecretBytes>& shares,
                              const std::vector<std::size_t>& wanted) {
  std::vector<SecretBytes> picked;
  for (const std::size_t i : wanted) picked.push_back(shares[i].clone());
  return picked;
}

Code code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return Code::kInternal;
}

TEST(SharedSecret, AnyThresholdOfSharesGivesTheKeyAndFewerDoNot) {
  SharedSecret secret = SharedSecret::make(3);
  std::vector<SecretBytes> shares;
  for (int i = 0; i < 5; ++i) shares.push_back(secret.new_share());
  const Bytes prime = secret.prime();
  EXPECT_EQ(prime.size(), 32U);
  SharedSecret::check_prime(prime);
  const SecretBytes key = secret.key();
  const std::vector<std::vector<std::size_t>> enough = {{0, 1, 2}, {4, 2, 0}, {1, 3, 4}};
  for (const auto& wanted : enough) {
    EXPECT_TRUE(
        equal_constant_time(SharedSecret(prime, pick(shares, wanted)).key().span(), key.span()));
  }
  EXPECT_FALSE(
      equal_constant_time(SharedSecret(prime, pick(shares, {0, 1})).key().span(), key.span()));
}

// Clevis cannot do this: shares are added to what was split before.
TEST(SharedSecret, AShareMadeLaterFitsTheFirstOnes) {
  SharedSecret secret = SharedSecret::make(2);
  std::vector<SecretBytes> shares;
  shares.push_back(secret.new_share());
  shares.push_back(secret.new_share());
  const Bytes prime = secret.prime();
  SharedSecret recovered(prime, pick(shares, {0, 1}));
  shares.push_back(recovered.new_share());
  EXPECT_TRUE(equal_constant_time(SharedSecret(prime, pick(shares, {2, 0})).key().span(),
                                  secret.key().span()));
}

TEST(SharedSecret, RefusesPrimesThatAreNone) {
  const std::vector<std::string> hostile = {
      "",
      "00",
      "02",  // a prime, but guessed at once
      "fffffffffffffffffffffffffffffffffe",
      "00ffffffffffffffffffffffffffffffff",  // written with a zero in front
      std::string((limits::kShareFieldBytesMax + 1) * 2, 'f'),
      "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe"};
  for (const std::string& hex : hostile) {
    EXPECT_EQ(code_of([&] { SharedSecret::check_prime(*from_hex(hex)); }), Code::kDamaged) << hex;
  }
  // 2^521 - 1: of another width than Clevis writes, and fine.
  Bytes mersenne(66, std::byte{0xff});
  mersenne[0] = std::byte{0x01};
  SharedSecret::check_prime(mersenne);
}

TEST(SharedSecret, RefusesSharesThatDoNotFit) {
  SharedSecret secret = SharedSecret::make(2);
  const Bytes prime = secret.prime();
  const SecretBytes good = secret.new_share();
  struct Row {
    std::string name;
    std::function<void(SecretBytes&)> change;
  };
  const std::vector<Row> rows = {{"shorter", [](SecretBytes& s) { s.truncate(63); }},
                                 {"empty", [](SecretBytes& s) { s.truncate(0); }},
                                 {"x is zero", [](SecretBytes& s) { wipe(s.span().first(32)); }},
                                 {"x is not below p",
                                  [](SecretBytes& s) {
                                    for (std::byte& b : s.span().first(32)) b = std::byte{0xff};
                                  }},
                                 {"y is not below p",
                                  [](SecretBytes& s) {
                                    for (std::byte& b : s.span().subspan(32)) b = std::byte{0xff};
                                  }},
                                 {"the same x", [&](SecretBytes& s) { s = good.clone(); }}};
  for (const Row& row : rows) {
    std::vector<SecretBytes> shares;
    shares.push_back(good.clone());
    shares.push_back(secret.new_share());
    row.change(shares.back());
    EXPECT_EQ(code_of([&] { SharedSecret(prime, shares); }), Code::kDamaged) << row.name;
  }
}

TEST(SharedSecret, TellsSharesThatCount) {
  SharedSecret secret = SharedSecret::make(2);
  std::vector<SecretBytes> others;
  others.push_back(secret.new_share());
  const SecretBytes next = secret.new_share();
  EXPECT_TRUE(is_share_beside(next.span(), 32, others));
  EXPECT_FALSE(is_share_beside(others[0].span(), 32, others));
  EXPECT_FALSE(is_share_beside(next.span().first(62), 32, others));
  EXPECT_FALSE(is_share_beside(SecretBytes(64).span(), 32, others));
}

}  // namespace
}  // namespace lukskeep::nbde
