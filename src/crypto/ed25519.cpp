#include "crypto/ed25519.h"

#include <algorithm>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "crypto/openssl_handles.h"

namespace lukskeep::crypto {
namespace {

void require(bool good) {
  if (!good) throw Error(Code::kInternal, "OpenSSL cannot use Ed25519");
}

EvpKey key_of(const Ed25519PrivateKey& key) {
  EvpKey opened(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, evp_bytes(key.seed.span()),
                                             key.seed.size()));
  require(opened != nullptr);
  return opened;
}

OpensslText text_of(ByteView text, std::string_view what) {
  if (text.size() > limits::kSigningKeyBytesMax) {
    throw Error(Code::kInvalidArgument, fmt::format("{} is no key", what));
  }
  OpensslText bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  require(bio != nullptr);
  return bio;
}

[[noreturn]] void refuse(std::string_view what, std::string_view kind, std::string_view command) {
  throw Error(Code::kInvalidArgument, fmt::format("{} is no {} key of Ed25519", what, kind),
              fmt::format("make one: {}", command));
}

// A key that wants a passphrase is none: nobody is asked here.
int no_passphrase(char*, int, int, void*) { return -1; }

}  // namespace

Ed25519PublicKey public_key_of(const Ed25519PrivateKey& key) {
  Ed25519PublicKey result;
  std::size_t size = result.bytes.size();
  require(EVP_PKEY_get_raw_public_key(key_of(key).get(), evp_bytes(MutableBytes(result.bytes)),
                                      &size) == 1);
  return result;
}

Ed25519Signature ed25519_sign(const Ed25519PrivateKey& key, ByteView message) {
  Ed25519Signature signature;
  std::size_t size = signature.size();
  const EvpKey opened = key_of(key);
  const EvpDigestContext context(EVP_MD_CTX_new());
  require(context != nullptr &&
          EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, opened.get()) == 1 &&
          EVP_DigestSign(context.get(), evp_bytes(MutableBytes(signature)), &size,
                         evp_bytes(message), message.size()) == 1 &&
          size == signature.size());
  return signature;
}

bool ed25519_verify(const Ed25519PublicKey& key, ByteView message, ByteView signature) {
  const EvpKey opened(EVP_PKEY_new_raw_public_key(
      EVP_PKEY_ED25519, nullptr, evp_bytes(ByteView(key.bytes)), key.bytes.size()));
  const EvpDigestContext context(EVP_MD_CTX_new());
  if (opened == nullptr) return false;
  require(context != nullptr);
  return EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, opened.get()) == 1 &&
         EVP_DigestVerify(context.get(), evp_bytes(signature), signature.size(), evp_bytes(message),
                          message.size()) == 1;
}

std::string to_string(const Ed25519PublicKey& key) { return to_base64(key.bytes); }

Ed25519PublicKey parse_ed25519_public_key(std::string_view text, std::string_view what) {
  Ed25519PublicKey key;
  std::string_view line = text;
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  if (const auto bytes = from_base64(line); bytes && bytes->size() == key.bytes.size()) {
    std::ranges::copy(*bytes, key.bytes.begin());
    return key;
  }
  const OpensslText bio = text_of(as_byte_view(text), what);
  const EvpKey opened(PEM_read_bio_PUBKEY(bio.get(), nullptr, no_passphrase, nullptr));
  std::size_t size = key.bytes.size();
  if (opened == nullptr || EVP_PKEY_get_id(opened.get()) != EVP_PKEY_ED25519 ||
      EVP_PKEY_get_raw_public_key(opened.get(), evp_bytes(MutableBytes(key.bytes)), &size) != 1) {
    refuse(what, "public", "openssl pkey -in PRIVATE -pubout");
  }
  return key;
}

Ed25519PrivateKey parse_ed25519_private_key(ByteView pem, std::string_view what) {
  const OpensslText bio = text_of(pem, what);
  const EvpKey opened(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
  Ed25519PrivateKey key{.seed = SecretBytes(32)};
  std::size_t size = key.seed.size();
  if (opened == nullptr || EVP_PKEY_get_id(opened.get()) != EVP_PKEY_ED25519 ||
      EVP_PKEY_get_raw_private_key(opened.get(), evp_bytes(key.seed.span()), &size) != 1) {
    refuse(what, "private", "openssl genpkey -algorithm ed25519");
  }
  return key;
}

}  // namespace lukskeep::crypto
