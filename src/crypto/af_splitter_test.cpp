#include "crypto/af_splitter.h"

#include <string_view>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "crypto/hash.h"
#include "crypto/random.h"

namespace lukskeep::crypto {
namespace {

// Bytes that anybody can make again: number i is i * 7 + i / 256 * 13 + 5.
Bytes test_material(std::size_t size_bytes) {
  Bytes bytes(size_bytes);
  for (std::size_t i = 0; i < size_bytes; ++i) {
    bytes[i] = static_cast<std::byte>((i * 7 + i / 256 * 13 + 5) & 0xff);
  }
  return bytes;
}

Code code_of(const auto& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  return Code::kInternal;
}

TEST(AfSplitter, MergesAsLuks1Section2_4Says) {
  struct {
    std::string_view hash;
    std::size_t key_bytes;
    std::uint32_t stripes;
    std::string_view key;
  } const vectors[] = {
      // Computed independently with Python's hashlib.
      {"sha1", 64, 5,
       "a2a8cb6307e1bb63d2178f0985722d7900e0363457b7a2ebacf69028d2be1d60fe2d0ef58c73a969d305e31977b"
       "8"
       "fa4d570a0ef75d675c83de50c4df99c1bbc0"},
      {"sha256", 64, 5,
       "3d463b10abf8396f4aeda4e192876c6ddbb8b5f76dba7f0bd3b69fcb94aea8f76742e31db9fb94898a1951fee01"
       "3"
       "8e9a466d6d6b302e18f52b1db6ef44121a63"},
      {"sha256", 32, 4000, "56fdee4b365158b1ebf6818c4ac5f559024b2bd9296e5fa809270b584bfe6b15"},
      {"sha512", 33, 3, "6de3d8322a0a5d49660a0e455b488fe5dfc86c0f30e31daf190a45714340300c1d"},
      {"ripemd160", 16, 4000, "03cfa73abd848ee266d232111f8a6226"},
      {"sha1", 1, 2, "15"},
      {"sha256", 100, 7,
       "8415512a2012bf58b4bca44a2f86b2a2d3b01e31c14cac9d66aa71d2bc358cdb1a363ceecb15764ece850270180"
       "59"
       "a29393e448d601ff38cd639ee09eb204fce9123a177bc1e6948dfc22e97ec551bcad707e4ed2abd73958070e38c"
       "ca"
       "95e7c326f56725"},
  };
  for (const auto& v : vectors) {
    const Bytes material = test_material(v.key_bytes * v.stripes);
    EXPECT_EQ(to_hex(af_merge(material, v.stripes, v.hash).span()), v.key)
        << v.hash << ' ' << v.key_bytes << ' ' << v.stripes;
  }
}

TEST(AfSplitter, RoundTripsWithEveryHash) {
  for (const HashInfo& info : all_hashes()) {
    for (const std::size_t key_bytes : {1U, 16U, 19U, 20U, 21U, 32U, 33U, 64U, 127U, 512U}) {
      for (const std::uint32_t stripes : {1U, 2U, 7U}) {
        SCOPED_TRACE(testing::Message() << info.name << ' ' << key_bytes << ' ' << stripes);
        const SecretBytes key = random_secret(key_bytes);
        const SecretBytes material = af_split(key.span(), stripes, info.name);
        EXPECT_EQ(material.size(), key_bytes * stripes);
        EXPECT_TRUE(
            equal_constant_time(af_merge(material.span(), stripes, info.name).span(), key.span()));
      }
    }
  }
}

TEST(AfSplitter, EveryStripeIsNeeded) {
  constexpr std::uint32_t kStripes = 9;
  const SecretBytes key = random_secret(32);
  SecretBytes material = af_split(key.span(), kStripes, "sha256");
  for (std::uint32_t stripe = 0; stripe < kStripes; ++stripe) {
    std::byte& victim = material.data()[stripe * key.size() + stripe];
    victim ^= std::byte{1};
    EXPECT_FALSE(
        equal_constant_time(af_merge(material.span(), kStripes, "sha256").span(), key.span()))
        << stripe;
    victim ^= std::byte{1};
  }
  // Two splits of one key share nothing.
  const SecretBytes other = af_split(key.span(), kStripes, "sha256");
  EXPECT_FALSE(equal_constant_time(material.span().first(32), other.span().first(32)));
}

TEST(AfSplitter, RefusesWhatIsNoSplitKey) {
  const Bytes key(32);
  EXPECT_EQ(code_of([&] { af_split(key, 0, "sha256"); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([&] { af_split({}, 4000, "sha256"); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([&] { af_split(key, 4000, "sha257"); }), Code::kUnsupported);
  EXPECT_EQ(code_of([&] { af_merge(key, 0, "sha256"); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([&] { af_merge(key, 3, "sha256"); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([&] { af_merge({}, 1, "sha256"); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([&] { af_merge(key, 2, "sha257"); }), Code::kUnsupported);
}

}  // namespace
}  // namespace lukskeep::crypto
