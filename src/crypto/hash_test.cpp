#include "crypto/hash.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep::crypto {
namespace {

struct Vector {
  std::string_view hash;
  std::string_view digest;
};

// FIPS 180-4, FIPS 202, RFC 1321, the RIPEMD-160 paper, ISO/IEC 10118-3 (Whirlpool, SM3); BLAKE2:
// RFC 7693 appendices A and B, the other sizes computed independently with Python's hashlib.
constexpr Vector kOfAbc[] = {
    {"md5", "900150983cd24fb0d6963f7d28e17f72"},
    {"ripemd160", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"},
    {"sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {"sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"},
    {"sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"sha384",
     "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c8"
     "25a7"},
    {"sha512",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3fe"
     "ebbd454d4423643ce80e2a9ac94fa54ca49f"},
    {"sha3-224", "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"},
    {"sha3-256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"},
    {"sha3-384",
     "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf22837"
     "6d25"},
    {"sha3-512",
     "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3"
     "934057340b4cf408d5a56592f8274eec53f0"},
    {"sm3", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"},
    {"whirlpool",
     "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c7181eebdb6c57e277d0e34957114"
     "cbd6c797fc9d95d8b582d225292076d4eef5"},
    {"blake2b-160", "384264f676f39536840523f284921cdc68b6846b"},
    {"blake2b-256", "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"},
    {"blake2b-384",
     "6f56a82c8e7ef526dfe182eb5212f7db9df1317e57815dbda46083fc30f54ee6c66ba83be64b302d7cba6ce15bb5"
     "56f4"},
    {"blake2b-512",
     "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533"
     "cc9518d38aa8dbf1925ab92386edd4009923"},
    {"blake2s-128", "aa4938119b1dc7b87cbad0ffd200d0ae"},
    {"blake2s-160", "5ae3b99be29b01834c3b508521ede60438f8de17"},
    {"blake2s-224", "0b033fc226df7abde29f67a05d3dc62cf271ef3dfea4d387407fbd55"},
    {"blake2s-256", "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"},
};

// RFC 6986 section 10.1: the message M1.
constexpr std::string_view kStribogMessage =
    "012345678901234567890123456789012345678901234567890123456789012";
constexpr Vector kOfStribogMessage[] = {
    {"stribog256", "9d151eefd8590b89daa6ba6cb74af9275dd051026bb149a452fd84e5e57b5500"},
    {"stribog512",
     "1b54d01a4af5b9d5cc3d86d68d285462b19abc2475222f35c085122be4ba1ffa00ad30f8767b3a82384c6574f024"
     "c311e2a481332b08ef7f41797891c1646f48"},
};

// FIPS 180 and FIPS 202 example files, the RIPEMD-160 paper, GB/T 32905 for SM3.
constexpr Vector kOfMillionTimesA[] = {
    {"ripemd160", "52783243c1697bdbe16d37f97f68f08325dc1528"},
    {"sha1", "34aa973cd4c4daa4f61eeb2bdbad27316534016f"},
    {"sha224", "20794655980c91d8bbb4c1ea97618a4bf03f42581948b2ee4ee7ad67"},
    {"sha256", "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    {"sha512",
     "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973ebde0ff244877ea60a4cb0432ce577"
     "c31beb009c5c2c49aa2e4eadb217ad8cc09b"},
    {"sha3-256", "5c8875ae474a3634ba4fd55ec85bffd661f32aca75c6d699d0cdcb6c115891c1"},
    {"sm3", "c8aaf89429554029e231941a2acc0ad61ff2a5acd8fadd25847a3a732b3b02c3"},
};

TEST(Hash, PublishedVectors) {
  for (const auto& [name, digest] : kOfAbc) {
    EXPECT_EQ(to_hex(hash(name, as_byte_view("abc"))), digest) << name;
  }
  for (const auto& [name, digest] : kOfStribogMessage) {
    EXPECT_EQ(to_hex(hash(name, as_byte_view(kStribogMessage))), digest) << name;
  }
  const std::string long_message(1'000'000, 'a');
  for (const auto& [name, digest] : kOfMillionTimesA) {
    EXPECT_EQ(to_hex(hash(name, as_byte_view(long_message))), digest) << name;
  }
}

TEST(Hash, EveryHashHasAVector) {
  std::vector<std::string> covered;
  for (const auto& row : kOfAbc) covered.emplace_back(row.hash);
  for (const auto& row : kOfStribogMessage) covered.emplace_back(row.hash);
  std::vector<std::string> listed;
  for (const HashInfo& info : all_hashes()) listed.push_back(info.name);
  EXPECT_THAT(listed, testing::UnorderedElementsAreArray(covered));
  EXPECT_TRUE(std::is_sorted(listed.begin(), listed.end()));
}

TEST(Hash, NamesIgnoreCaseAndKnowAnAlias) {
  EXPECT_EQ(require_hash("SHA256").name, "sha256");
  EXPECT_EQ(require_hash("Sha3-512").name, "sha3-512");
  EXPECT_EQ(require_hash("rmd160").name, "ripemd160");
  EXPECT_EQ(require_hash("RMD160").digest_bytes, 20U);
  EXPECT_EQ(hash("WHIRLPOOL", {}), hash("whirlpool", {}));
}

TEST(Hash, SizesAreThoseOfTheHash) {
  for (const HashInfo& info : all_hashes()) {
    SCOPED_TRACE(info.name);
    EXPECT_EQ(require_hash(info.name).digest_bytes, info.digest_bytes);
    EXPECT_EQ(Hash(info.name).digest_bytes(), info.digest_bytes);
    EXPECT_EQ(hash(info.name, {}).size(), info.digest_bytes);
    // A key of one block and that key behind zeroes are the same only up to the block's size
    // (RFC 2104 section 2): this pins block_bytes.
    const std::string key(info.block_bytes, '\0');
    const auto mac = [&](std::string_view k) {
      return to_hex(hmac(info.name, as_byte_view(k), {}).span());
    };
    EXPECT_EQ(mac(key), mac(""));
    EXPECT_NE(mac(key + '\0'), mac(""));
  }
}

TEST(Hash, UnknownNamesAreUnsupportedAndPrintable) {
  for (const std::string_view name :
       {"", "sha", "sha2566", "sha256 ", "crc32", "blake2b", "a\nb"}) {
    EXPECT_FALSE(find_hash(name)) << name;
    try {
      const Hash running(name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsupported);
      EXPECT_EQ(error.message().find('\n'), std::string::npos);
    }
  }
}

TEST(Hash, PiecesGiveTheSameAsTheWholeAndFinishStartsAfresh) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += static_cast<char>('a' + i % 26);
  for (const HashInfo& info : all_hashes()) {
    SCOPED_TRACE(info.name);
    const Bytes whole = hash(info.name, as_byte_view(text));
    Hash running(info.name);
    for (const std::size_t piece : {1U, 3U, 63U, 64U, 65U, 128U, 500U}) {
      for (std::string_view rest = text; !rest.empty();) {
        const std::string_view part = rest.substr(0, piece);
        running.update(as_byte_view(part));
        rest.remove_prefix(part.size());
      }
      Bytes digest(info.digest_bytes);
      running.finish(digest);
      EXPECT_EQ(digest, whole) << piece;
    }
    Hash moved(std::move(running));
    moved.update(as_byte_view(text));
    Bytes digest(info.digest_bytes + 1, std::byte{0xee});
    moved.finish(digest);
    EXPECT_EQ(digest.back(), std::byte{0xee});
    digest.pop_back();
    EXPECT_EQ(digest, whole);
  }
}

struct HmacVector {
  std::string_view hash;
  std::string key;
  std::string data;
  std::string_view mac;
};

TEST(Hmac, PublishedVectors) {
  const std::string jefe = "Jefe";
  const std::string question = "what do ya want for nothing?";
  const std::string large_key_data = "Test Using Larger Than Block-Size Key - Hash Key First";
  const std::string key80(80, '\xaa');
  const std::string key131(131, '\xaa');
  const HmacVector vectors[] = {
      // RFC 2202, RFC 2286.
      {"md5", jefe, question, "750c783e6ab0b503eaa86e310a5db738"},
      {"md5", key80, large_key_data, "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"},
      {"sha1", jefe, question, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
      {"sha1", key80, large_key_data, "aa4ae5e15272d00e95705637ce8a3b55ed402112"},
      {"ripemd160", jefe, question, "dda6c0213a485a9e24f4742064a7f033b43c4069"},
      {"ripemd160", key80, large_key_data, "6466ca07ac5eac29e1bd523e5ada7605b791fd8b"},
      // RFC 4231 test cases 1, 2 and 6.
      {"sha256", std::string(20, '\x0b'), "Hi There",
       "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
      {"sha224", jefe, question, "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44"},
      {"sha256", jefe, question,
       "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
      {"sha384", jefe, question,
       "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab"
       "2"
       "1649"},
      {"sha512", jefe, question,
       "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f"
       "0"
       "e6fdcaeab1a34d4a6b4b636e070a38bce737"},
      {"sha224", key131, large_key_data,
       "95e9a0db962095adaebe9b2d6f0dbce2d499f112f2d2b7273fa6870e"},
      {"sha256", key131, large_key_data,
       "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
      {"sha384", key131, large_key_data,
       "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f"
       "4"
       "4952"},
      {"sha512", key131, large_key_data,
       "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6"
       "a"
       "1e5295e64f73f63f0aec8b915a985d786598"},
      // Computed independently with Python's hmac.
      {"sha3-256", jefe, question,
       "c7d4072e788877ae3596bbb0da73b887c9171f93095b294ae857fbe2645e1ba5"},
  };
  for (const auto& v : vectors) {
    EXPECT_EQ(to_hex(hmac(v.hash, as_byte_view(v.key), as_byte_view(v.data)).span()), v.mac)
        << v.hash << " with a key of " << v.key.size();
  }
  EXPECT_THROW(hmac("nothing", {}, {}), Error);
}

}  // namespace
}  // namespace lukskeep::crypto
