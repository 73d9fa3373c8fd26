#include "vm/qemu_key.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>

#include <openssl/evp.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "crypto/cipher_spec.h"
#include "crypto/random.h"

namespace lukskeep::vm {
namespace {

constexpr std::size_t kMasterKeyBytes = 32;
constexpr std::size_t kIvBytes = 16;

template <typename Value, std::size_t kSize>
bool among(const std::array<Value, kSize>& list, const Value& value) {
  return std::ranges::find(list, value) != list.end();
}

bool has_hash(std::string_view name) {
  constexpr std::array<std::string_view, 7> hashes = {"md5",    "sha1",   "sha224",   "sha256",
                                                      "sha384", "sha512", "ripemd160"};
  return among(hashes, name);
}

bool has_cipher(const crypto::CipherSpec& spec) {
  using crypto::BlockCipher;
  using crypto::CipherMode;
  using crypto::IvGenerator;
  constexpr std::array ciphers = {BlockCipher::kAes, BlockCipher::kSerpent, BlockCipher::kTwofish,
                                  BlockCipher::kCast5};
  constexpr std::array modes = {CipherMode::kXts, CipherMode::kCbc, CipherMode::kCtr,
                                CipherMode::kEcb};
  // Without one, as in aes-ecb, QEMU does not understand the header.
  constexpr std::array ivs = {IvGenerator::kPlain, IvGenerator::kPlain64, IvGenerator::kEssiv};
  return among(ciphers, spec.cipher) && among(modes, spec.mode) && among(ivs, spec.iv) &&
         (spec.iv != IvGenerator::kEssiv || has_hash(spec.iv_hash));
}

std::string why_not_cipher(const std::string& encryption) {
  bool known = false;
  try {
    known = has_cipher(crypto::parse_cipher_spec(encryption));
  } catch (const Error&) {
    known = false;  // unknown here: hardly known there
  }
  return known ? std::string() : fmt::format("it has no {}", printable(encryption));
}

std::string base64(ByteView bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                   reinterpret_cast<const unsigned char*>(bytes.data()),
                                   static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(size));
  return text;
}

Bytes encrypt_cbc(ByteView key, ByteView iv, ByteView plain) {
  const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context(
      EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  Bytes out(plain.size() + kIvBytes);
  int size = 0;
  int last = 0;
  auto* const to = reinterpret_cast<unsigned char*>(out.data());
  if (context == nullptr ||
      EVP_EncryptInit_ex2(context.get(), EVP_aes_256_cbc(),
                          reinterpret_cast<const unsigned char*>(key.data()),
                          reinterpret_cast<const unsigned char*>(iv.data()), nullptr) != 1 ||
      EVP_EncryptUpdate(context.get(), to, &size,
                        reinterpret_cast<const unsigned char*>(plain.data()),
                        static_cast<int>(plain.size())) != 1 ||
      EVP_EncryptFinal_ex(context.get(), to + size, &last) != 1) {
    throw Error(Code::kInternal, "OpenSSL does not encrypt with AES-256-CBC");
  }
  out.resize(static_cast<std::size_t>(size) + static_cast<std::size_t>(last));
  return out;
}

}  // namespace

std::string why_not_in_qemu(const luks::Header& header, ByteView passphrase) {
  if (header.version != luks::Version::kLuks1) return "it knows LUKS1 only";
  for (const auto& [number, segment] : header.segments) {
    if (std::string why = why_not_cipher(segment.encryption); !why.empty()) return why;
  }
  for (const auto& [number, digest] : header.digests) {
    if (!has_hash(digest.hash)) return fmt::format("it has no {}", printable(digest.hash));
  }
  if (passphrase.empty()) return "it wants a passphrase, and what is given is the volume key";
  const std::string_view text = as_string_view(passphrase);
  if (!is_utf8(text) || text.find('\0') != std::string_view::npos) {
    return "the passphrase is not UTF-8 text, and it takes no other";
  }
  return {};
}

SealedPassphrase seal_passphrase(ByteView passphrase) {
  SealedPassphrase sealed{.master_key = crypto::random_secret(kMasterKeyBytes)};
  const Bytes iv = crypto::random_bytes(kIvBytes);
  sealed.iv = base64(iv);
  sealed.data = base64(encrypt_cbc(sealed.master_key.span(), iv, passphrase));
  return sealed;
}

}  // namespace lukskeep::vm
