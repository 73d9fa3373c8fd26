#include "crypto/kdf.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "base/parallel_for.h"
#include "crypto/hash.h"
#include "crypto/kdf_memory.h"

namespace lukskeep::crypto {
namespace {

using testing::HasSubstr;

constexpr std::uint32_t kHuge = std::numeric_limits<std::uint32_t>::max();

KdfCost pbkdf2_cost(std::string_view hash, std::uint32_t iterations) {
  return {.type = KdfType::kPbkdf2, .hash = std::string(hash), .iterations = iterations};
}

KdfCost argon2_cost(KdfType type, std::uint32_t time, std::uint32_t memory_kib,
                    std::uint32_t parallel) {
  return {.type = type, .iterations = time, .memory_kib = memory_kib, .parallel = parallel};
}

std::string derived(const KdfCost& cost, ByteView passphrase, ByteView salt,
                    std::size_t output_bytes, unsigned threads = 1) {
  // One byte more than derive() may touch.
  Bytes out(output_bytes + 1, std::byte{0xee});
  derive(cost, passphrase, salt, MutableBytes(out).first(output_bytes), threads);
  EXPECT_EQ(out.back(), std::byte{0xee});
  out.pop_back();
  return to_hex(out);
}

Error error_of(const auto& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  return Error(Code::kInternal, "nothing was thrown");
}

// RFC 8018 section 5.2, word by word over hmac().
std::string pbkdf2_by_the_book(std::string_view hash, std::uint32_t iterations, ByteView passphrase,
                               ByteView salt, std::size_t output_bytes) {
  Bytes out;
  for (std::uint32_t block = 1; out.size() < output_bytes; ++block) {
    Bytes first(salt.begin(), salt.end());
    first.resize(salt.size() + 4);
    store_be(first.data() + salt.size(), block);
    SecretBytes u = hmac(hash, passphrase, first);
    SecretBytes sum = u.clone();
    for (std::uint32_t i = 1; i < iterations; ++i) {
      u = hmac(hash, passphrase, u.span());
      for (std::size_t b = 0; b < sum.size(); ++b) sum.data()[b] ^= u.data()[b];
    }
    out.insert(out.end(), sum.span().begin(), sum.span().end());
  }
  out.resize(output_bytes);
  return to_hex(out);
}

TEST(Pbkdf2, PublishedVectors) {
  struct {
    std::string_view hash;
    std::uint32_t iterations;
    std::string passphrase;
    std::string salt;
    std::string_view key;
  } const vectors[] = {
      // RFC 6070.
      {"sha1", 1, "password", "salt", "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
      {"sha1", 2, "password", "salt", "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
      {"sha1", 4096, "password", "salt", "4b007901b765489abead49d926f721d065a429c1"},
      {"sha1", 4096, "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt",
       "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"},
      {"sha1", 4096, std::string("pass\0word", 9), std::string("sa\0lt", 5),
       "56fa6aa75548099dcc37d7f03425e0c3"},
      // RFC 7914 section 11.
      {"sha256", 1, "passwd", "salt",
       "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d7"
       "7"
       "ef317c71b845b1e30bd509112041d3a19783"},
      {"sha256", 80000, "Password", "NaCl",
       "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56a1d425a1225833549adb841b51c"
       "9"
       "b3176a272bdebba1d078478f62b397f33c8d"},
  };
  for (const auto& v : vectors) {
    EXPECT_EQ(derived(pbkdf2_cost(v.hash, v.iterations), as_byte_view(v.passphrase),
                      as_byte_view(v.salt), v.key.size() / 2),
              v.key)
        << v.hash << ' ' << v.iterations;
  }
}

TEST(Pbkdf2, AgreesWithPythonsHashlib) {
  // hashlib.pbkdf2_hmac(HASH, b"k" * 200, bytes(range(32)), 1000, 20)
  constexpr std::pair<std::string_view, std::string_view> kVectors[] = {
      {"sha1", "296c4abdcc84d8d3e2c1a9359b0c093de3491496"},
      {"sha224", "115a5b50e9201a2a344cef80e11fc45912bbe22d"},
      {"sha256", "ec7296ed5a8f0eb14485077ba48d0e211cbd3671"},
      {"sha384", "090eef4d92af8e7e156789bb4a20d04dd4f7197c"},
      {"sha512", "a7befea82486091e9497896ed68221fa61790612"},
      {"sha3-224", "e17065c1a44fe6850f1f21c5c5aa6fb417a85590"},
      {"sha3-256", "36abe922e899a94e3c0588e85833dc29504b0591"},
      {"sha3-384", "da61c3486bfccc2b6ae474b0a7a6ec6fdef96f88"},
      {"sha3-512", "60e3195da1c95a9bfbf945fe9ffc1a676903b286"},
      {"ripemd160", "b08563fbf7c7aadb69fc3218f1cb8a23d9b9ef0f"},
      {"md5", "8ce26b60da8548f3254e94b1f40b586ba75360ad"},
      {"sm3", "5571a86e05f8e123efa793263ed15445ed7f5a10"},
      {"blake2b-512", "3d205e51307617b013915a91509ecf1ca24b630e"},
      {"blake2s-256", "3c81b37c3556ce91a6a4275679e86d9096a90322"},
  };
  Bytes salt(32);
  for (std::size_t i = 0; i < salt.size(); ++i) salt[i] = static_cast<std::byte>(i);
  for (const auto& [hash, key] : kVectors) {
    EXPECT_EQ(derived(pbkdf2_cost(hash, 1000), as_byte_view(std::string(200, 'k')), salt, 20), key)
        << hash;
  }
}

TEST(Pbkdf2, EveryHashFollowsTheBookAtEverySizeAndThreadCount) {
  const Bytes salt(17, std::byte{0x5a});
  for (const HashInfo& info : all_hashes()) {
    for (const std::size_t passphrase_bytes : {std::size_t{0}, std::size_t{1}, info.block_bytes - 1,
                                               info.block_bytes, info.block_bytes + 1}) {
      const std::string passphrase(passphrase_bytes, 'p');
      for (const std::size_t output_bytes :
           {std::size_t{1}, info.digest_bytes - 1, info.digest_bytes, info.digest_bytes + 1,
            3 * info.digest_bytes, std::size_t{64}}) {
        SCOPED_TRACE(testing::Message() << info.name << " passphrase " << passphrase_bytes
                                        << " output " << output_bytes);
        for (const std::uint32_t iterations : {1U, 3U}) {
          const std::string expected = pbkdf2_by_the_book(
              info.name, iterations, as_byte_view(passphrase), salt, output_bytes);
          for (const unsigned threads : {0U, 1U, 4U}) {
            EXPECT_EQ(derived(pbkdf2_cost(info.name, iterations), as_byte_view(passphrase), salt,
                              output_bytes, threads),
                      expected)
                << iterations << " iterations, " << threads << " threads";
          }
        }
      }
    }
  }
}

TEST(Pbkdf2, StopsWhenCancelled) {
  Bytes out(64);
  CancelToken before;
  before.cancel();
  EXPECT_EQ(error_of([&] { derive(pbkdf2_cost("sha256", 1), {}, {}, out, 1, &before); }).code(),
            Code::kInterrupted);
  // Without the look at the token this would run for minutes (sha256) or hours (whirlpool).
  for (const std::string_view hash : {"sha256", "whirlpool"}) {
    for (const unsigned threads : {1U, 2U}) {
      CancelToken during;
      std::jthread canceller([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        during.cancel();
      });
      const auto run = [&] {
        Bytes long_out(2 * require_hash(hash).digest_bytes);
        derive(pbkdf2_cost(hash, kHuge), as_byte_view("x"), {}, long_out, threads, &during);
      };
      EXPECT_EQ(error_of(run).code(), Code::kInterrupted) << hash << ' ' << threads;
    }
  }
}

TEST(Argon2, PublishedVectors) {
  // The test of the reference implementation of RFC 9106 (version 0x13, no secret): "password",
  // "somesalt", time 2.
  struct {
    KdfType type;
    std::uint32_t memory_kib;
    std::uint32_t parallel;
    std::string_view key;
  } const vectors[] = {
      {KdfType::kArgon2i, 256, 1,
       "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f"},
      {KdfType::kArgon2i, 256, 2,
       "4ff5ce2769a1d7f4c8a491df09d41a9fbe90e5eb02155a13e4c01e20cd4eab61"},
      {KdfType::kArgon2id, 256, 1,
       "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"},
      {KdfType::kArgon2id, 256, 2,
       "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"},
      {KdfType::kArgon2id, 65536, 1,
       "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"},
  };
  for (const auto& v : vectors) {
    EXPECT_EQ(derived(argon2_cost(v.type, 2, v.memory_kib, v.parallel), as_byte_view("password"),
                      as_byte_view("somesalt"), 32),
              v.key)
        << kdf_name(v.type) << ' ' << v.memory_kib << ' ' << v.parallel;
  }
}

TEST(Argon2, TheOutputDoesNotDependOnThreads) {
  for (const KdfType type : {KdfType::kArgon2i, KdfType::kArgon2id}) {
    const KdfCost cost = argon2_cost(type, 4, 256, 4);
    const auto run = [&](unsigned threads) {
      return derived(cost, as_byte_view("secret"), as_byte_view("salt and pepper"), 64, threads);
    };
    const std::string serial = run(1);
    for (const unsigned threads : {0U, 2U, 3U, 4U, 100U}) EXPECT_EQ(run(threads), serial);
  }
}

TEST(Argon2, SaysHowMuchMemoryIsMissing) {
  Bytes out(32);
  const Error error = error_of(
      [&] { derive(argon2_cost(KdfType::kArgon2id, 4, kHuge, 4), {}, Bytes(32), out, 1); });
  EXPECT_EQ(error.code(), Code::kOutOfMemory);
  EXPECT_THAT(error.message(), HasSubstr("4194304 MiB"));
  EXPECT_FALSE(error.hint().empty());
}

TEST(Argon2, StartsNothingWhenCancelled) {
  Bytes out(32);
  CancelToken cancel;
  cancel.cancel();
  const auto run = [&] {
    derive(argon2_cost(KdfType::kArgon2id, kHuge, 32, 1), {}, Bytes(32), out, 1, &cancel);
  };
  EXPECT_EQ(error_of(run).code(), Code::kInterrupted);
}

TEST(Kdf, RefusesWhatTheStandardsForbid) {
  Bytes out(32);
  const Bytes salt(32);
  const auto code_of = [&](const KdfCost& cost, std::size_t salt_bytes, std::size_t output_bytes) {
    return error_of([&] {
             derive(cost, {}, ByteView(salt).first(salt_bytes),
                    MutableBytes(out).first(output_bytes));
           })
        .code();
  };
  const KdfType id = KdfType::kArgon2id;
  EXPECT_EQ(code_of(pbkdf2_cost("sha256", 0), 32, 32), Code::kInvalidArgument);
  EXPECT_EQ(code_of(pbkdf2_cost("sha256", 1), 32, 0), Code::kInvalidArgument);
  EXPECT_EQ(code_of(pbkdf2_cost("sha0", 1), 32, 32), Code::kUnsupported);
  EXPECT_EQ(code_of(argon2_cost(id, 0, 32, 4), 32, 32), Code::kInvalidArgument);
  EXPECT_EQ(code_of(argon2_cost(id, 4, 31, 4), 32, 32), Code::kInvalidArgument);
  EXPECT_EQ(code_of(argon2_cost(id, 4, 0, 1), 32, 32), Code::kInvalidArgument);
  EXPECT_EQ(code_of(argon2_cost(id, 4, 32, 0), 32, 32), Code::kInvalidArgument);
  EXPECT_EQ(code_of(argon2_cost(id, 4, kHuge, kHuge), 32, 32), Code::kInvalidArgument);
  EXPECT_EQ(code_of(argon2_cost(id, 4, 32, 4), 7, 32), Code::kInvalidArgument);
  EXPECT_EQ(code_of(argon2_cost(id, 4, 32, 4), 32, 3), Code::kInvalidArgument);
}

TEST(Kdf, Names) {
  EXPECT_EQ(kdf_name(KdfType::kPbkdf2), "pbkdf2");
  EXPECT_EQ(kdf_name(KdfType::kArgon2i), "argon2i");
  EXPECT_EQ(kdf_name(KdfType::kArgon2id), "argon2id");
}

TEST(KdfEstimate, GrowsWithTheWork) {
  for (const std::string_view hash : {"sha1", "sha256", "whirlpool"}) {
    const double one = estimate_seconds(pbkdf2_cost(hash, 1'000'000), 20);
    EXPECT_GT(one, 0);
    EXPECT_DOUBLE_EQ(estimate_seconds(pbkdf2_cost(hash, 2'000'000), 20), 2 * one);
    const std::size_t threads = hardware_threads();
    const std::size_t digest = require_hash(hash).digest_bytes;
    // As many blocks as processors take the time of one; one more takes another round.
    EXPECT_DOUBLE_EQ(estimate_seconds(pbkdf2_cost(hash, 1'000'000), threads * digest), one);
    EXPECT_DOUBLE_EQ(estimate_seconds(pbkdf2_cost(hash, 1'000'000), threads * digest + 1), 2 * one);
  }
  const double one = estimate_seconds(argon2_cost(KdfType::kArgon2id, 4, 65536, 1), 64);
  EXPECT_GT(one, 0);
  EXPECT_DOUBLE_EQ(estimate_seconds(argon2_cost(KdfType::kArgon2id, 8, 65536, 1), 64), 2 * one);
  EXPECT_DOUBLE_EQ(estimate_seconds(argon2_cost(KdfType::kArgon2id, 4, 131072, 1), 64), 2 * one);
  EXPECT_GT(estimate_seconds(argon2_cost(KdfType::kArgon2id, kHuge, kHuge, 1), 64), 1e9);
}

TEST(KdfLimit, AcceptsWhatPeopleUse) {
  for (const std::string_view hash : {"sha1", "sha256", "sha512", "whirlpool"}) {
    EXPECT_NO_THROW(check_limit(pbkdf2_cost(hash, 3'000'000), 64, {}, "keyslot 0"));
  }
  for (const KdfType type : {KdfType::kArgon2i, KdfType::kArgon2id}) {
    EXPECT_NO_THROW(check_limit(argon2_cost(type, 4, 1024 * 1024, 4), 64, {}, "keyslot 0"));
  }
}

TEST(KdfLimit, AnswersHostileCostsWithoutWorking) {
  const KdfType id = KdfType::kArgon2id;
  struct {
    KdfCost cost;
    KdfLimit limit;
    Code code;
    std::string_view text;
  } const rows[] = {
      {pbkdf2_cost("sha256", 0), {}, Code::kDamaged, "0 iterations"},
      {pbkdf2_cost("sha256", kHuge), {}, Code::kKdfLimit, "4294967295 pbkdf2 iterations"},
      {pbkdf2_cost("whirlpool", limits::kPbkdf2IterationsMax), {}, Code::kKdfLimit, "to try"},
      {pbkdf2_cost("sha256", 1'000'000), {.seconds_max = 0}, Code::kKdfLimit, "limit is 0 seconds"},
      {pbkdf2_cost("nohash", 1000), {}, Code::kUnsupported, "nohash"},
      {argon2_cost(id, kHuge, 1024, 1), {}, Code::kKdfLimit, "4294967295 argon2 passes"},
      {argon2_cost(id, 0, 1024, 1), {}, Code::kDamaged, "time cost of 0"},
      {argon2_cost(id, 4, kHuge, 4), {}, Code::kKdfLimit, "the limit is 4096 MiB"},
      {argon2_cost(id, 4, 2048, 4), {.memory_kib_max = 1024}, Code::kKdfLimit, "asks for 2 MiB"},
      {argon2_cost(id, 4, kHuge, kHuge), {}, Code::kDamaged, "4294967295 lanes"},
      {argon2_cost(id, 4, 1024 * 1024, 65), {}, Code::kKdfLimit, "65 argon2 lanes"},
      {argon2_cost(id, 4, 1024, 0), {}, Code::kDamaged, "0 lanes"},
      {argon2_cost(id, 4, 16, 4), {}, Code::kDamaged, "4 lanes need 32"},
      {argon2_cost(id, limits::kArgon2TimeMax, limits::kArgon2MemoryKibMax, 1),
       {},
       Code::kKdfLimit,
       "hours"},
      {argon2_cost(id, limits::kArgon2TimeMax, kHuge, 1),
       {.memory_kib_max = kHuge},
       Code::kKdfLimit,
       "days"},
  };
  for (const auto& row : rows) {
    const Error error = error_of([&] { check_limit(row.cost, 64, row.limit, "keyslot 7 of 'x'"); });
    EXPECT_EQ(error.code(), row.code) << row.text;
    EXPECT_THAT(error.message(), HasSubstr(row.text));
    EXPECT_EQ(error.hint().empty(), row.code != Code::kKdfLimit) << row.text;
    if (row.code != Code::kUnsupported) {
      EXPECT_THAT(error.message(), HasSubstr("keyslot 7 of 'x'"));
    }
  }
}

TEST(KdfBudget, ManyAttemptsAreNoWayAroundTheLimit) {
  const KdfCost dear = pbkdf2_cost("sha256", 100'000'000);
  const double seconds = estimate_seconds(dear, 64);
  KdfBudget budget({.seconds_max = static_cast<std::uint32_t>(std::ceil(2.5 * seconds))});
  budget.take({{dear, 64}}, "keyslot 0");
  budget.take({{dear, 64}, {pbkdf2_cost("sha256", 1000), 32}}, "keyslot 1");
  // What is refused is not taken: a cheaper one after it still fits.
  for (int i = 0; i < 2; ++i) {
    const Error error = error_of([&] { budget.take({{dear, 64}}, "keyslot 2"); });
    EXPECT_EQ(error.code(), Code::kKdfLimit);
    EXPECT_THAT(error.message(), HasSubstr("keyslot 2 would take about "));
    EXPECT_THAT(error.message(), HasSubstr(" to try with those before it, the limit is "));
    EXPECT_THAT(error.hint(), HasSubstr("--kdf-limit"));
  }
  EXPECT_NO_THROW(budget.take({{pbkdf2_cost("sha256", 1'000'000), 64}}, "keyslot 3"));
}

TEST(KdfBudget, OneAttemptIsTheSumOfItsParts) {
  const KdfCost dear = pbkdf2_cost("sha256", 100'000'000);
  const double seconds = estimate_seconds(dear, 64);
  KdfBudget budget({.seconds_max = static_cast<std::uint32_t>(std::ceil(1.5 * seconds))});
  const Error error = error_of([&] { budget.take({{dear, 64}, {dear, 64}}, "keyslot 0"); });
  EXPECT_EQ(error.code(), Code::kKdfLimit);
  EXPECT_THAT(error.message(), HasSubstr(" to try, the limit is "));
}

TEST(KdfBudget, AcceptsAsManyKeyslotsAsPeopleUse) {
  KdfBudget budget({});
  for (int id = 0; id < 32; ++id) {
    EXPECT_NO_THROW(budget.take({{pbkdf2_cost("sha256", 1'000'000), 64}}, "a keyslot"));
  }
}

TEST(KdfCalibration, KeepsTheMinimaOfCryptsetup) {
  const KdfCost pbkdf2 = calibrate(
      {.type = KdfType::kPbkdf2, .hash = "WHIRLPOOL", .target = std::chrono::milliseconds(1)});
  EXPECT_EQ(pbkdf2.type, KdfType::kPbkdf2);
  EXPECT_EQ(pbkdf2.hash, "whirlpool");
  EXPECT_EQ(pbkdf2.iterations, 1000U);

  for (const KdfType type : {KdfType::kArgon2i, KdfType::kArgon2id}) {
    // A maximum of nothing is answered with the least that Argon2 can do.
    const KdfCost least = calibrate({.type = type,
                                     .target = std::chrono::milliseconds(1),
                                     .memory_kib_max = 0,
                                     .parallel_max = 0});
    EXPECT_EQ(least.type, type);
    EXPECT_EQ(least.memory_kib, 32U);
    EXPECT_EQ(least.parallel, 1U);
    EXPECT_GE(least.iterations, 4U);
  }
}

TEST(KdfCalibration, RaisesMemoryFirstAndThenTime) {
  const auto run = [](std::uint32_t memory_kib_max) {
    return calibrate({.type = KdfType::kArgon2id,
                      .target = std::chrono::milliseconds(60),
                      .memory_kib_max = memory_kib_max,
                      .parallel_max = 1});
  };
  // 60 ms are hundreds of passes over 64 KiB, and not 4 passes over 1 GiB.
  const KdfCost small = run(64);
  EXPECT_EQ(small.memory_kib, 64U);
  EXPECT_GT(small.iterations, 4U);
  const KdfCost large = run(1024 * 1024);
  EXPECT_GT(large.memory_kib, 64U);
  EXPECT_LE(large.memory_kib, cap_memory_kib(1024 * 1024));
  EXPECT_GE(large.iterations, 4U);
  EXPECT_LE(large.parallel, hardware_threads());
}

TEST(KdfCalibration, RefusesNonsenseAndStopsWhenCancelled) {
  CancelToken cancel;
  cancel.cancel();
  for (const KdfType type : {KdfType::kPbkdf2, KdfType::kArgon2id}) {
    EXPECT_EQ(error_of([&] { calibrate({.type = type}, &cancel); }).code(), Code::kInterrupted);
    EXPECT_EQ(
        error_of([&] { calibrate({.type = type, .target = std::chrono::milliseconds(0)}); }).code(),
        Code::kInvalidArgument);
  }
  EXPECT_EQ(error_of([] { calibrate({.type = KdfType::kPbkdf2, .hash = "nohash"}); }).code(),
            Code::kUnsupported);
}

TEST(KdfMemory, IsCutToHalfOfTheMachine) {
  EXPECT_EQ(cap_memory_kib(32), 32U);
  const std::uint32_t capped = cap_memory_kib(kHuge);
  EXPECT_GT(capped, 0U);
  EXPECT_LE(capped, total_memory_kib() / 2);
  EXPECT_GT(available_memory_kib(), 0U);
}

TEST(KdfMemory, TheLowestCgroupLimitCounts) {
  namespace fs = std::filesystem;
  const fs::path mount =
      fs::path(testing::TempDir()) /
      ("cgroup-" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
  fs::create_directories(mount / "a.slice/b.service");
  const auto limit = [&](const char* path) { return cgroup_limit_kib(mount.c_str(), path); };
  constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(limit("/a.slice/b.service"), kNone);
  std::ofstream(mount / "a.slice/b.service/memory.max") << "max\n";
  EXPECT_EQ(limit("/a.slice/b.service"), kNone);
  std::ofstream(mount / "a.slice/memory.max") << "1073741824\n";
  EXPECT_EQ(limit("/a.slice/b.service"), 1024U * 1024);
  std::ofstream(mount / "a.slice/b.service/memory.max") << "536870912\n";
  EXPECT_EQ(limit("/a.slice/b.service"), 512U * 1024);
  EXPECT_EQ(limit("/a.slice"), 1024U * 1024);
  EXPECT_EQ(limit("/"), kNone);
  EXPECT_EQ(limit("/not/there"), kNone);
  fs::remove_all(mount);
}

}  // namespace
}  // namespace lukskeep::crypto
