// Many blocks per call by libgcrypt.
//
// libgcrypt 1.10 has SIMD code for many blocks at once (Serpent, Twofish, Camellia, SM4: 4 to 7
// times as fast as block by block), but not behind its ECB mode. The modes whose one direction is
// parallel reach it: CFB decryption computes P[i] = C[i] ^ E(C[i-1]) and CBC decryption
// P[i] = D(C[i]) ^ C[i-1]; taking the known term off again leaves E and D of the blocks.
#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <utility>

#include <fmt/format.h>
#include <gcrypt.h>
#include <lukskeep/error.h>
#include <lukskeep/secret_bytes.h>

#include "crypto/block_key.h"
#include "crypto/context_pool.h"
#include "crypto/gcrypt_init.h"
#include "crypto/key_memory.h"
#include "crypto/xor_bytes.h"

namespace lukskeep::crypto {
namespace {

constexpr std::size_t kPieceBytes = 4096;
constexpr std::size_t kSerpentKeyBytes = 32;

struct Handles {
  Handles() = default;
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  ~Handles() {
    gcry_cipher_close(cfb);
    gcry_cipher_close(cbc);
  }
  gcry_cipher_hd_t cfb = nullptr;  // for encryption
  gcry_cipher_hd_t cbc = nullptr;  // for decryption
};

int algorithm(BlockCipher cipher, std::size_t key_bytes) {
  const auto pick = [key_bytes](int bits128, int bits192, int bits256) {
    if (key_bytes == 16) return bits128;
    if (key_bytes == 24) return bits192;
    return key_bytes == 32 ? bits256 : 0;
  };
  switch (cipher) {
    case BlockCipher::kSerpent:
      return key_bytes <= kSerpentKeyBytes ? GCRY_CIPHER_SERPENT256 : 0;
    case BlockCipher::kTwofish:
      // libgcrypt takes 128 and 256 bits only: block_backend_nettle.cpp has 192.
      return pick(GCRY_CIPHER_TWOFISH128, 0, GCRY_CIPHER_TWOFISH);
    case BlockCipher::kCamellia:
      return pick(GCRY_CIPHER_CAMELLIA128, GCRY_CIPHER_CAMELLIA192, GCRY_CIPHER_CAMELLIA256);
    case BlockCipher::kSm4:
      return pick(GCRY_CIPHER_SM4, 0, 0);
    case BlockCipher::kCast5:
      return pick(GCRY_CIPHER_CAST5, 0, 0);
    default:
      return 0;
  }
}

void check(gcry_error_t error) {
  if (error != 0) {
    throw Error(Code::kInternal,
                fmt::format("libgcrypt failed to apply a cipher: {}", gcry_strerror(error)));
  }
}

gcry_cipher_hd_t open_handle(int algorithm_id, int mode, ByteView key) {
  gcry_cipher_hd_t handle = nullptr;
  check(gcry_cipher_open(&handle, algorithm_id, mode, 0));
  const gcry_error_t error = gcry_cipher_setkey(handle, key.data(), key.size());
  // A key that is weak for the cipher is still the key of the volume.
  if (error != 0 && gcry_err_code(error) != GPG_ERR_WEAK_KEY) {
    gcry_cipher_close(handle);
    check(error);
  }
  return handle;
}

// Serpent fills up a short key with a one bit and zeroes (Serpent §"key schedule"); ESSIV makes
// keys of unusual sizes, e.g. the 20 bytes of SHA-1.
KeyMemory whole_key(BlockCipher cipher, ByteView key) {
  if (cipher != BlockCipher::kSerpent || key.size() == kSerpentKeyBytes) return KeyMemory(key);
  KeyMemory padded(kSerpentKeyBytes);
  std::ranges::copy(key, padded.span().begin());
  padded.span()[key.size()] = std::byte{1};
  return padded;
}

class GcryptBlockKey final : public BlockKey {
 public:
  GcryptBlockKey(BlockCipher cipher, int algorithm_id, ByteView key)
      : BlockKey(crypto::block_bytes(cipher)),
        algorithm_(algorithm_id),
        key_(whole_key(cipher, key)),
        handles_([this] { return make(); }) {}

  void encrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    for_pieces(blocks, [this](Handles& handles, MutableBytes piece, std::byte* scratch) {
      encrypt_piece(handles, piece, scratch);
    });
  }
  void decrypt(MutableBytes blocks) const override {
    assert(blocks.size() % block_bytes() == 0);
    for_pieces(blocks, [this](Handles& handles, MutableBytes piece, std::byte* scratch) {
      decrypt_piece(handles, piece, scratch);
    });
  }
  std::string_view kernel() const noexcept override { return "gcrypt"; }

 private:
  std::unique_ptr<Handles> make() const {
    ensure_gcrypt();
    auto handles = std::make_unique<Handles>();
    handles->cfb = open_handle(algorithm_, GCRY_CIPHER_MODE_CFB, key_.bytes());
    handles->cbc = open_handle(algorithm_, GCRY_CIPHER_MODE_CBC, key_.bytes());
    return handles;
  }

  template <typename Work>
  void for_pieces(MutableBytes blocks, const Work& work) const {
    std::array<std::byte, kPieceBytes> scratch;
    const auto handles = handles_.lease();
    for (std::size_t done = 0; done < blocks.size(); done += kPieceBytes) {
      work(*handles, blocks.subspan(done, std::min(kPieceBytes, blocks.size() - done)),
           scratch.data());
    }
    wipe({scratch.data(), std::min(kPieceBytes, blocks.size())});
  }

  // scratch = X1 … X(n-1) 0, with X0 as the IV: CFB gives E(X[i]) ^ scratch[i].
  void encrypt_piece(Handles& handles, MutableBytes piece, std::byte* scratch) const {
    const std::size_t block = block_bytes();
    std::copy(piece.begin() + static_cast<std::ptrdiff_t>(block), piece.end(), scratch);
    std::memset(scratch + piece.size() - block, 0, block);
    check(gcry_cipher_setiv(handles.cfb, piece.data(), block));
    check(gcry_cipher_decrypt(handles.cfb, piece.data(), piece.size(), scratch, piece.size()));
    xor_bytes(piece.data(), scratch, piece.size());
  }

  // With an IV of zeroes: CBC gives D(X[i]) ^ X[i-1], and D(X0).
  void decrypt_piece(Handles& handles, MutableBytes piece, std::byte* scratch) const {
    const std::size_t block = block_bytes();
    std::ranges::copy(piece, scratch);
    check(gcry_cipher_setiv(handles.cbc, nullptr, 0));
    check(gcry_cipher_decrypt(handles.cbc, piece.data(), piece.size(), scratch, piece.size()));
    xor_bytes(piece.data() + block, scratch, piece.size() - block);
  }

  int algorithm_;
  KeyMemory key_;
  mutable ContextPool<Handles> handles_;
};

}  // namespace

std::unique_ptr<BlockKey> make_gcrypt_block_key(BlockCipher cipher, ByteView key) {
  ensure_gcrypt();
  const int algorithm_id = algorithm(cipher, key.size());
  if (algorithm_id == 0 || gcry_cipher_test_algo(algorithm_id) != 0) {
    throw Error(Code::kUnsupported,
                fmt::format("this libgcrypt has no cipher '{}' with keys of {} bits",
                            block_cipher_name(cipher), key.size() * 8));
  }
  return std::make_unique<GcryptBlockKey>(cipher, algorithm_id, key);
}

}  // namespace lukskeep::crypto
