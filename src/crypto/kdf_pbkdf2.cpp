// Each PBKDF2 block is a chain of HMACs in which the passphrase never changes, so that an iteration
// needs two calls of the hash's compression function: one from the state after the inner pad, one
// from the state after the outer pad. OpenSSL's own PBKDF2 copies whole HMAC contexts instead,
// which costs three times as much with SHA-NI, computes the blocks of the output one after
// another, and cannot be interrupted. SHA-1 and SHA-2 therefore run on OpenSSL's compression
// functions here; every other hash runs on libgcrypt's HMAC, whose reset keeps the pads.

// The compression functions are only in the interface that OpenSSL 3 calls deprecated.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "crypto/kdf_pbkdf2.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include <fmt/format.h>
#include <gcrypt.h>
#include <openssl/sha.h>

#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>

#include "base/parallel_for.h"
#include "crypto/gcrypt_init.h"
#include "crypto/hash.h"
#include "crypto/hash_algorithms.h"

namespace lukskeep::crypto {
namespace {

constexpr std::uint32_t kIterationsPerCancelCheck = 16 * 1024;
// Fewer take less time than to start a thread and wait for it: Clevis binds with 1000.
constexpr std::uint32_t kIterationsWorthAThread = 4096;

// One T_i of RFC 8018 section 5.2.
struct Block {
  const HashAlgorithm* algorithm;
  ByteView key;    // at most one block of the hash
  ByteView first;  // U_1
  std::uint32_t iterations;
  MutableBytes out;  // at most digest_bytes
  const CancelToken* cancel;
};

void check_cancel(const Block& block, std::uint32_t iteration) {
  if (iteration % kIterationsPerCancelCheck == 0 && block.cancel != nullptr) block.cancel->check();
}

struct Sha1 {
  using Context = SHA_CTX;
  using State = std::array<SHA_LONG, 5>;
  static constexpr std::size_t kBlockBytes = SHA_CBLOCK;
  static constexpr std::size_t kDigestWords = 5;
  static void init(Context& context) { SHA1_Init(&context); }
  static void compress(Context& context, const unsigned char* data) {
    SHA1_Transform(&context, data);
  }
  static State state(const Context& c) { return {c.h0, c.h1, c.h2, c.h3, c.h4}; }
  static void set_state(Context& c, const State& s) {
    c.h0 = s[0];
    c.h1 = s[1];
    c.h2 = s[2];
    c.h3 = s[3];
    c.h4 = s[4];
  }
};

template <typename C, typename Word>
struct Sha2 {
  using Context = C;
  using State = std::array<Word, 8>;
  static constexpr std::size_t kBlockBytes = 16 * sizeof(Word);
  static State state(const Context& c) { return std::to_array(c.h); }
  static void set_state(Context& c, const State& s) { std::copy(s.begin(), s.end(), c.h); }
};

struct Sha256 : Sha2<SHA256_CTX, SHA_LONG> {
  static constexpr std::size_t kDigestWords = 8;
  static void init(Context& context) { SHA256_Init(&context); }
  static void compress(Context& context, const unsigned char* data) {
    SHA256_Transform(&context, data);
  }
};

struct Sha224 : Sha256 {
  static constexpr std::size_t kDigestWords = 7;
  static void init(Context& context) { SHA224_Init(&context); }
};

struct Sha512 : Sha2<SHA512_CTX, SHA_LONG64> {
  static constexpr std::size_t kDigestWords = 8;
  static void init(Context& context) { SHA512_Init(&context); }
  static void compress(Context& context, const unsigned char* data) {
    SHA512_Transform(&context, data);
  }
};

struct Sha384 : Sha512 {
  static constexpr std::size_t kDigestWords = 6;
  static void init(Context& context) { SHA384_Init(&context); }
};

template <typename Sha>
class CompressionChain {
 public:
  using State = typename Sha::State;
  using Word = typename State::value_type;
  static constexpr std::size_t kDigestBytes = Sha::kDigestWords * sizeof(Word);

  explicit CompressionChain(const Block& block)
      : inner_(pad_state(block.key, 0x36)), outer_(pad_state(block.key, 0x5c)) {
    // What each compression reads: one digest, then the padding for a message of one HMAC pad and
    // one digest (FIPS 180-4 section 5.1). Only the digest changes.
    std::memcpy(data_.data(), block.first.data(), kDigestBytes);
    data_[kDigestBytes] = std::byte{0x80};
    constexpr std::uint64_t kMessageBits = 8 * (Sha::kBlockBytes + kDigestBytes);
    store_be(data_.data() + Sha::kBlockBytes - sizeof(kMessageBits), kMessageBits);
    for (std::size_t i = 0; i < Sha::kDigestWords; ++i) {
      sum_[i] = load_be<Word>(data_.data() + i * sizeof(Word));
    }
  }
  CompressionChain(const CompressionChain&) = delete;
  CompressionChain& operator=(const CompressionChain&) = delete;
  ~CompressionChain() {
    wipe(std::as_writable_bytes(std::span(&context_, 1)));
    wipe(std::as_writable_bytes(std::span(inner_)));
    wipe(std::as_writable_bytes(std::span(outer_)));
    wipe(std::as_writable_bytes(std::span(sum_)));
    wipe(data_);
  }

  void run(const Block& block) {
    for (std::uint32_t i = 1; i < block.iterations; ++i) {
      check_cancel(block, i);
      compress_from(inner_);
      const State digest = compress_from(outer_);
      for (std::size_t w = 0; w < Sha::kDigestWords; ++w) sum_[w] ^= digest[w];
    }
    for (std::size_t w = 0; w < Sha::kDigestWords; ++w) {
      store_be(data_.data() + w * sizeof(Word), sum_[w]);
    }
    std::memcpy(block.out.data(), data_.data(), block.out.size());
  }

 private:
  State pad_state(ByteView key, unsigned char pad_byte) {
    data_.fill(std::byte{pad_byte});
    for (std::size_t i = 0; i < key.size(); ++i) data_[i] ^= key[i];
    Sha::init(context_);
    Sha::compress(context_, reinterpret_cast<const unsigned char*>(data_.data()));
    data_.fill(std::byte{0});
    return Sha::state(context_);
  }

  // Replaces the digest in data_ by the next one, and returns it as words.
  State compress_from(const State& start) {
    Sha::set_state(context_, start);
    Sha::compress(context_, reinterpret_cast<const unsigned char*>(data_.data()));
    const State digest = Sha::state(context_);
    for (std::size_t w = 0; w < Sha::kDigestWords; ++w) {
      store_be(data_.data() + w * sizeof(Word), digest[w]);
    }
    return digest;
  }

  typename Sha::Context context_{};
  alignas(sizeof(Word)) std::array<std::byte, Sha::kBlockBytes> data_{};
  State inner_;
  State outer_;
  State sum_{};
};

template <typename Sha>
void run_compression_chain(const Block& block) {
  CompressionChain<Sha>(block).run(block);
}

struct GcryptClose {
  void operator()(gcry_md_hd_t handle) const noexcept { gcry_md_close(handle); }
};

void run_gcrypt_hmac_chain(const Block& block) {
  ensure_gcrypt();
  const int id = block.algorithm->gcrypt_id;
  gcry_md_hd_t opened = nullptr;
  if (gcry_md_open(&opened, id, GCRY_MD_FLAG_HMAC) != 0) {
    throw Error(Code::kUnsupported,
                fmt::format("libgcrypt of this machine lacks hmac-{}", block.algorithm->name));
  }
  const std::unique_ptr<gcry_md_handle, GcryptClose> hmac(opened);
  if (gcry_md_setkey(hmac.get(), block.key.data(), block.key.size()) != 0) {
    throw Error(Code::kUnsupported,
                fmt::format("libgcrypt refuses the key for hmac-{}", block.algorithm->name));
  }
  const std::size_t digest_bytes = block.algorithm->digest_bytes;
  SecretBytes current(block.first);
  SecretBytes sum(block.first);
  for (std::uint32_t i = 1; i < block.iterations; ++i) {
    check_cancel(block, i);
    gcry_md_reset(hmac.get());
    gcry_md_write(hmac.get(), current.data(), digest_bytes);
    std::memcpy(current.data(), gcry_md_read(hmac.get(), id), digest_bytes);
    for (std::size_t b = 0; b < digest_bytes; ++b) sum.data()[b] ^= current.data()[b];
  }
  std::memcpy(block.out.data(), sum.data(), block.out.size());
}

using RunBlock = void (*)(const Block&);

RunBlock runner_for(const HashAlgorithm& algorithm) {
  switch (algorithm.gcrypt_id) {
    case GCRY_MD_SHA1:
      return run_compression_chain<Sha1>;
    case GCRY_MD_SHA224:
      return run_compression_chain<Sha224>;
    case GCRY_MD_SHA256:
      return run_compression_chain<Sha256>;
    case GCRY_MD_SHA384:
      return run_compression_chain<Sha384>;
    case GCRY_MD_SHA512:
      return run_compression_chain<Sha512>;
    default:
      return run_gcrypt_hmac_chain;
  }
}

// RFC 2104 section 2 replaces a key that is longer than a block by its digest; done here once and
// not in every block.
SecretBytes hmac_key(const HashAlgorithm& algorithm, ByteView passphrase) {
  if (passphrase.size() <= algorithm.block_bytes) return SecretBytes(passphrase);
  Hash hash(algorithm.name);
  SecretBytes key(algorithm.digest_bytes);
  hash.update(passphrase);
  hash.finish(key.span());
  return key;
}

}  // namespace

void pbkdf2(std::string_view hash, std::uint32_t iterations, ByteView passphrase, ByteView salt,
            MutableBytes out, unsigned threads, const CancelToken* cancel) {
  const HashAlgorithm& algorithm = require_hash_algorithm(hash);
  const RunBlock run = runner_for(algorithm);
  const SecretBytes key = hmac_key(algorithm, passphrase);
  const std::size_t blocks = (out.size() + algorithm.digest_bytes - 1) / algorithm.digest_bytes;
  const unsigned helpful = iterations < kIterationsWorthAThread ? 1 : threads;
  parallel_for(blocks, helpful, [&](std::size_t index) {
    if (cancel != nullptr) cancel->check();
    Bytes numbered_salt(salt.begin(), salt.end());
    numbered_salt.resize(salt.size() + sizeof(std::uint32_t));
    store_be(numbered_salt.data() + salt.size(), static_cast<std::uint32_t>(index + 1));
    const SecretBytes first = hmac(algorithm.name, key.span(), numbered_salt);
    const std::size_t offset = index * algorithm.digest_bytes;
    const auto part = out.subspan(offset, std::min(algorithm.digest_bytes, out.size() - offset));
    run(Block{&algorithm, key.span(), first.span(), iterations, part, cancel});
  });
}

}  // namespace lukskeep::crypto
