#include "crypto/hash.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <utility>

#include <fmt/format.h>
#include <gcrypt.h>
#include <nettle/sha2.h>
#include <openssl/evp.h>

#include <lukskeep/error.h>

#include "crypto/gcrypt_init.h"
#include "crypto/hash_algorithms.h"
#include "crypto/openssl_handles.h"

namespace lukskeep::crypto {
namespace {

// RIPEMD-160 and Whirlpool sit in OpenSSL's legacy provider, which distributions may leave out, and
// OpenSSL has one size of each BLAKE2: libgcrypt serves these.
constexpr std::array kAlgorithms = {
    HashAlgorithm{"blake2b-160", nullptr, GCRY_MD_BLAKE2B_160, 20, 128},
    HashAlgorithm{"blake2b-256", nullptr, GCRY_MD_BLAKE2B_256, 32, 128},
    HashAlgorithm{"blake2b-384", nullptr, GCRY_MD_BLAKE2B_384, 48, 128},
    HashAlgorithm{"blake2b-512", nullptr, GCRY_MD_BLAKE2B_512, 64, 128},
    HashAlgorithm{"blake2s-128", nullptr, GCRY_MD_BLAKE2S_128, 16, 64},
    HashAlgorithm{"blake2s-160", nullptr, GCRY_MD_BLAKE2S_160, 20, 64},
    HashAlgorithm{"blake2s-224", nullptr, GCRY_MD_BLAKE2S_224, 28, 64},
    HashAlgorithm{"blake2s-256", nullptr, GCRY_MD_BLAKE2S_256, 32, 64},
    HashAlgorithm{"md5", nullptr, GCRY_MD_MD5, 16, 64},
    HashAlgorithm{"ripemd160", nullptr, GCRY_MD_RMD160, 20, 64},
    HashAlgorithm{"sha1", "SHA1", GCRY_MD_SHA1, 20, 64},
    HashAlgorithm{"sha224", "SHA2-224", GCRY_MD_SHA224, 28, 64},
    HashAlgorithm{"sha256", "SHA2-256", GCRY_MD_SHA256, 32, 64},
    HashAlgorithm{"sha3-224", "SHA3-224", GCRY_MD_SHA3_224, 28, 144},
    HashAlgorithm{"sha3-256", "SHA3-256", GCRY_MD_SHA3_256, 32, 136},
    HashAlgorithm{"sha3-384", "SHA3-384", GCRY_MD_SHA3_384, 48, 104},
    HashAlgorithm{"sha3-512", "SHA3-512", GCRY_MD_SHA3_512, 64, 72},
    HashAlgorithm{"sha384", "SHA2-384", GCRY_MD_SHA384, 48, 128},
    HashAlgorithm{"sha512", "SHA2-512", GCRY_MD_SHA512, 64, 128},
    HashAlgorithm{"sm3", nullptr, GCRY_MD_SM3, 32, 64},
    HashAlgorithm{"stribog256", nullptr, GCRY_MD_STRIBOG256, 32, 64},
    HashAlgorithm{"stribog512", nullptr, GCRY_MD_STRIBOG512, 64, 64},
    HashAlgorithm{"whirlpool", nullptr, GCRY_MD_WHIRLPOOL, 64, 64},
};
static_assert(std::is_sorted(kAlgorithms.begin(), kAlgorithms.end(),
                             [](const auto& a, const auto& b) { return a.name < b.name; }));

struct GcryptFree {
  void operator()(gcry_md_hd_t handle) const noexcept { gcry_md_close(handle); }
};
using GcryptHandle = std::unique_ptr<gcry_md_handle, GcryptFree>;

char ascii_lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return ascii_lower(x) == ascii_lower(y); });
}

// OpenSSL's object for an algorithm of the table, or null. Looking one up by name is slow, so all
// are fetched once; never freed, because other threads may still hash while the process exits.
const EVP_MD* fetched_digest(const HashAlgorithm& algorithm) {
  static const auto& digests = *[] {
    auto* fetched = new std::array<const EVP_MD*, kAlgorithms.size()>{};
    for (std::size_t i = 0; i < kAlgorithms.size(); ++i) {
      const char* name = kAlgorithms[i].evp_name;
      if (name != nullptr) (*fetched)[i] = EVP_MD_fetch(nullptr, name, nullptr);
    }
    return fetched;
  }();
  return digests[static_cast<std::size_t>(&algorithm - kAlgorithms.data())];
}

// Every command reads a header whose checksum is SHA-256 as a rule. Nettle's needs nothing to be
// set up; OpenSSL takes a millisecond until it hashes for the first time.
bool in_nettle(const HashAlgorithm& algorithm) { return algorithm.gcrypt_id == GCRY_MD_SHA256; }

bool works_here(const HashAlgorithm& algorithm) {
  if (in_nettle(algorithm)) return true;
  if (algorithm.evp_name != nullptr) return fetched_digest(algorithm) != nullptr;
  ensure_gcrypt();
  return gcry_md_test_algo(algorithm.gcrypt_id) == 0;
}

HashInfo info_of(const HashAlgorithm& algorithm) {
  return {std::string(algorithm.name), algorithm.digest_bytes, algorithm.block_bytes};
}

[[noreturn]] void throw_library_failure(const HashAlgorithm& algorithm) {
  throw Error(Code::kInternal, fmt::format("the hash '{}' fails in its library", algorithm.name));
}

}  // namespace

std::span<const HashAlgorithm> hash_algorithms() noexcept { return kAlgorithms; }

const HashAlgorithm* find_hash_algorithm(std::string_view name) noexcept {
  if (equal_ignoring_case(name, "rmd160")) name = "ripemd160";
  const auto* const found =
      std::find_if(kAlgorithms.begin(), kAlgorithms.end(),
                   [&](const auto& row) { return equal_ignoring_case(row.name, name); });
  return found == kAlgorithms.end() ? nullptr : found;
}

const HashAlgorithm& require_hash_algorithm(std::string_view name) {
  const HashAlgorithm* algorithm = find_hash_algorithm(name);
  if (algorithm == nullptr) {
    throw Error(Code::kUnsupported, fmt::format("unknown hash '{}'", printable(name)));
  }
  if (!works_here(*algorithm)) {
    throw Error(Code::kUnsupported,
                fmt::format("the libraries of this machine lack the hash '{}'", algorithm->name));
  }
  return *algorithm;
}

std::optional<HashInfo> find_hash(std::string_view name) {
  const HashAlgorithm* algorithm = find_hash_algorithm(name);
  if (algorithm == nullptr || !works_here(*algorithm)) return std::nullopt;
  return info_of(*algorithm);
}

HashInfo require_hash(std::string_view name) { return info_of(require_hash_algorithm(name)); }

std::vector<HashInfo> all_hashes() {
  std::vector<HashInfo> found;
  for (const HashAlgorithm& algorithm : kAlgorithms) {
    if (works_here(algorithm)) found.push_back(info_of(algorithm));
  }
  return found;
}

// If neither handle is set, nettle computes SHA-256.
struct Hash::State {
  const HashAlgorithm* algorithm = nullptr;
  EvpDigestContext evp;
  GcryptHandle gcrypt;
  sha256_ctx sha256{};

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { wipe(std::as_writable_bytes(std::span(&sha256, 1))); }
};

Hash::Hash(std::string_view name) : state_(std::make_unique<State>()) {
  const HashAlgorithm& algorithm = require_hash_algorithm(name);
  state_->algorithm = &algorithm;
  if (in_nettle(algorithm)) {
    sha256_init(&state_->sha256);
    return;
  }
  if (algorithm.evp_name != nullptr) {
    state_->evp.reset(EVP_MD_CTX_new());
    if (!state_->evp ||
        EVP_DigestInit_ex(state_->evp.get(), fetched_digest(algorithm), nullptr) != 1) {
      throw_library_failure(algorithm);
    }
    return;
  }
  gcry_md_hd_t handle = nullptr;
  if (gcry_md_open(&handle, algorithm.gcrypt_id, 0) != 0) throw_library_failure(algorithm);
  state_->gcrypt.reset(handle);
}

Hash::Hash(Hash&&) noexcept = default;
Hash& Hash::operator=(Hash&&) noexcept = default;
// The other libraries wipe a context when it is freed.
Hash::~Hash() = default;

std::size_t Hash::digest_bytes() const noexcept { return state_->algorithm->digest_bytes; }

void Hash::update(ByteView data) {
  if (state_->gcrypt) {
    gcry_md_write(state_->gcrypt.get(), data.data(), data.size());
  } else if (!state_->evp) {
    sha256_update(&state_->sha256, data.size(), reinterpret_cast<const std::uint8_t*>(data.data()));
  } else if (EVP_DigestUpdate(state_->evp.get(), data.data(), data.size()) != 1) {
    throw_library_failure(*state_->algorithm);
  }
}

void Hash::finish(MutableBytes out) {
  assert(out.size() >= digest_bytes());
  if (state_->gcrypt) {
    const unsigned char* digest = gcry_md_read(state_->gcrypt.get(), state_->algorithm->gcrypt_id);
    std::memcpy(out.data(), digest, digest_bytes());
    gcry_md_reset(state_->gcrypt.get());
    return;
  }
  auto* const target = reinterpret_cast<unsigned char*>(out.data());
  if (!state_->evp)
    return sha256_digest(&state_->sha256, digest_bytes(), target);  // and begins anew
  if (EVP_DigestFinal_ex(state_->evp.get(), target, nullptr) != 1 ||
      EVP_DigestInit_ex(state_->evp.get(), nullptr, nullptr) != 1) {
    throw_library_failure(*state_->algorithm);
  }
}

Bytes hash(std::string_view name, ByteView data) {
  Hash running(name);
  running.update(data);
  Bytes digest(running.digest_bytes());
  running.finish(digest);
  return digest;
}

SecretBytes hmac(std::string_view hash_name, ByteView key, ByteView data) {
  Hash running(hash_name);
  const std::size_t block_bytes = require_hash_algorithm(hash_name).block_bytes;
  SecretBytes pad(block_bytes);
  if (key.size() > block_bytes) {
    running.update(key);
    running.finish(pad.span());
  } else if (!key.empty()) {
    std::memcpy(pad.data(), key.data(), key.size());
  }
  // RFC 2104 section 2: H(K ^ opad, H(K ^ ipad, data)).
  constexpr std::byte kInner{0x36};
  constexpr std::byte kOuter{0x5c};
  SecretBytes digest(running.digest_bytes());
  for (std::byte& b : pad.span()) b ^= kInner;
  running.update(pad.span());
  running.update(data);
  running.finish(digest.span());
  for (std::byte& b : pad.span()) b ^= kInner ^ kOuter;
  running.update(pad.span());
  running.update(digest.span());
  running.finish(digest.span());
  return digest;
}

}  // namespace lukskeep::crypto
