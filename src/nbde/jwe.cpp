#include "nbde/jwe.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/limits.h"
#include "crypto/openssl_handles.h"
#include "crypto/random.h"

namespace lukskeep::nbde {
namespace {

constexpr std::size_t kIvBytes = 12;
constexpr std::size_t kTagBytes = 16;
constexpr std::string_view kContentCipher = "A256GCM";

[[noreturn]] void fail(Code code, std::string_view what, std::string_view problem) {
  throw Error(code, fmt::format("{} {}", what, problem));
}

std::string_view trimmed(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(" \t\r\n") - start + 1);
}

// How many bytes the base64url text stands for.
std::size_t decoded_bytes(std::string_view text) { return text.size() * 6 / 8; }

void check_parts(const Jwe& jwe, std::string_view what) {
  if (jwe.protected_header.empty()) fail(Code::kDamaged, what, "has no header");
  if (jwe.protected_header.size() > limits::kJweHeaderBytesMax) {
    fail(Code::kDamaged, what, "has a header that is too large");
  }
  if (decoded_bytes(jwe.ciphertext) > limits::kSealedBytesMax) {
    fail(Code::kDamaged, what, "holds more than it may");
  }
  const auto is_base64url = [](std::string_view text) {
    return text.size() % 4 != 1 && std::ranges::all_of(text, [](char c) {
             return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                    c == '-' || c == '_';
           });
  };
  if (!is_base64url(jwe.protected_header) || !is_base64url(jwe.ciphertext)) {
    fail(Code::kDamaged, what, "is not in base64url");
  }
  const auto has_bytes = [](std::string_view text, std::size_t bytes) {
    const auto decoded = from_base64url(text);
    return decoded && decoded->size() == bytes;
  };
  if (!has_bytes(jwe.iv, kIvBytes)) fail(Code::kDamaged, what, "has an IV of the wrong size");
  if (!has_bytes(jwe.tag, kTagBytes)) fail(Code::kDamaged, what, "has a tag of the wrong size");
}

void check(bool ok) {
  if (!ok) throw Error(Code::kInternal, "OpenSSL cannot encrypt with AES-256-GCM");
}

const unsigned char* data_of(ByteView bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

unsigned char* data_of(MutableBytes bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

crypto::EvpContext make_gcm(ByteView key, ByteView iv, bool encrypting) {
  const std::unique_ptr<EVP_CIPHER, crypto::EvpFree> cipher(
      EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr));
  crypto::EvpContext context(EVP_CIPHER_CTX_new());
  check(cipher != nullptr && context != nullptr && key.size() == kContentKeyBytes &&
        EVP_CipherInit_ex2(context.get(), cipher.get(), data_of(key), data_of(iv),
                           encrypting ? 1 : 0, nullptr) == 1);
  return context;
}

// Authenticates `aad` and transforms `from` into `to`, which has its size.
void apply(EVP_CIPHER_CTX* context, ByteView aad, ByteView from, MutableBytes to) {
  int done = 0;
  check(EVP_CipherUpdate(context, nullptr, &done, data_of(aad), static_cast<int>(aad.size())) == 1);
  if (from.empty()) return;
  check(EVP_CipherUpdate(context, data_of(to), &done, data_of(from),
                         static_cast<int>(from.size())) == 1 &&
        std::cmp_equal(done, from.size()));
}

void append_be32(Bytes& bytes, std::uint32_t value) {
  std::array<std::byte, 4> word{};
  store_be(word.data(), value);
  bytes.insert(bytes.end(), word.begin(), word.end());
}

}  // namespace

Jwe parse_compact_jwe(std::string_view text, std::string_view what) {
  text = trimmed(text);
  std::array<std::string_view, 5> parts;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::size_t dot = text.find('.');
    if ((dot == std::string_view::npos) != (i + 1 == parts.size())) {
      fail(Code::kDamaged, what, "is no JWE: it has not five parts with dots between them");
    }
    parts[i] = text.substr(0, dot);
    text.remove_prefix(std::min(text.size(), parts[i].size() + 1));
  }
  if (!parts[1].empty()) {
    fail(Code::kUnsupported, what, "has a wrapped key, which no pin of Clevis writes");
  }
  Jwe jwe{.protected_header = std::string(parts[0]),
          .iv = std::string(parts[2]),
          .ciphertext = std::string(parts[3]),
          .tag = std::string(parts[4])};
  check_parts(jwe, what);
  return jwe;
}

std::string to_compact(const Jwe& jwe) {
  return fmt::format("{}..{}.{}.{}", jwe.protected_header, jwe.iv, jwe.ciphertext, jwe.tag);
}

Jwe parse_flattened_jwe(const Json& json, std::string_view what) {
  if (!json.is_object()) fail(Code::kDamaged, what, "is no JWE: it is not an object");
  for (const char* name : {"header", "unprotected", "recipients", "aad"}) {
    if (json.contains(name)) {
      fail(Code::kUnsupported, what,
           fmt::format("has a '{}', which no pin of Clevis writes", name));
    }
  }
  const auto text = [&](const char* name) -> std::string {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_string()) {
      fail(Code::kDamaged, what, fmt::format("has no text '{}'", name));
    }
    return found->get<std::string>();
  };
  if (json.contains("encrypted_key") && !text("encrypted_key").empty()) {
    fail(Code::kUnsupported, what, "has a wrapped key, which no pin of Clevis writes");
  }
  Jwe jwe{.protected_header = text("protected"),
          .iv = text("iv"),
          .ciphertext = text("ciphertext"),
          .tag = text("tag")};
  check_parts(jwe, what);
  return jwe;
}

Json to_flattened(const Jwe& jwe) {
  return {{"ciphertext", jwe.ciphertext},
          {"encrypted_key", ""},
          {"iv", jwe.iv},
          {"protected", jwe.protected_header},
          {"tag", jwe.tag}};
}

Json jwe_header(const Jwe& jwe, std::string_view what) {
  const auto bytes = from_base64url(jwe.protected_header);
  if (!bytes) fail(Code::kDamaged, what, "has a header that is not in base64url");
  Json header = parse_json(as_string_view(*bytes), fmt::format("the header of {}", what));
  if (!header.is_object()) fail(Code::kDamaged, what, "has a header that is not an object");
  const auto name_of = [&](const char* member) -> std::string {
    const auto found = header.find(member);
    if (found == header.end() || !found->is_string()) {
      fail(Code::kDamaged, what, fmt::format("names no '{}' in its header", member));
    }
    return found->get<std::string>();
  };
  const std::string algorithm = name_of("alg");
  if (algorithm != "dir" && algorithm != "ECDH-ES") {
    fail(Code::kUnsupported, what,
         fmt::format("wants the algorithm '{}': only dir and ECDH-ES are taken",
                     printable(algorithm)));
  }
  const std::string cipher = name_of("enc");
  if (cipher != kContentCipher) {
    fail(Code::kUnsupported, what,
         fmt::format("is encrypted with '{}': only A256GCM is taken", printable(cipher)));
  }
  for (const char* member : {"zip", "crit", "apu", "apv"}) {
    if (header.contains(member)) {
      fail(Code::kUnsupported, what,
           fmt::format("has a '{}' in its header, which no pin of Clevis writes", member));
    }
  }
  return header;
}

Jwe encrypt_jwe(const Json& header, ByteView key, ByteView plain) {
  if (plain.size() > limits::kSealedBytesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("more than {} bytes are not sealed", limits::kSealedBytesMax));
  }
  Jwe jwe{.protected_header = to_base64url(as_byte_view(header.dump()))};
  if (jwe.protected_header.size() > limits::kJweHeaderBytesMax) {
    throw Error(Code::kInvalidArgument, "the policy makes a header that is too large");
  }
  const Bytes iv = crypto::random_bytes(kIvBytes);
  const crypto::EvpContext context = make_gcm(key, iv, true);
  Bytes ciphertext(plain.size());
  apply(context.get(), as_byte_view(jwe.protected_header), plain, ciphertext);
  std::array<std::byte, kTagBytes> tag{};
  int done = 0;
  std::array<std::byte, kTagBytes> rest{};
  check(EVP_CipherFinal_ex(context.get(), data_of(MutableBytes(rest)), &done) == 1 && done == 0 &&
        EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag.data()) == 1);
  jwe.iv = to_base64url(iv);
  jwe.ciphertext = to_base64url(ciphertext);
  jwe.tag = to_base64url(tag);
  return jwe;
}

std::optional<SecretBytes> decrypt_jwe(const Jwe& jwe, ByteView key) {
  const auto iv = from_base64url(jwe.iv);
  const auto ciphertext = from_base64url(jwe.ciphertext);
  auto tag = from_base64url(jwe.tag);
  if (!iv || iv->size() != kIvBytes || !ciphertext || !tag || tag->size() != kTagBytes) {
    return std::nullopt;
  }
  const crypto::EvpContext context = make_gcm(key, *iv, false);
  SecretBytes plain(ciphertext->size());
  apply(context.get(), as_byte_view(jwe.protected_header), *ciphertext, plain.span());
  std::array<std::byte, kTagBytes> rest{};
  int done = 0;
  check(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, tag->data()) == 1);
  if (EVP_CipherFinal_ex(context.get(), data_of(MutableBytes(rest)), &done) != 1)
    return std::nullopt;
  return plain;
}

SecretBytes derive_content_key(ByteView shared_x) {
  // OtherInfo: the algorithm's name, no parties, the key's length in bits; each with its length.
  Bytes info;
  append_be32(info, static_cast<std::uint32_t>(kContentCipher.size()));
  const ByteView name = as_byte_view(kContentCipher);
  info.insert(info.end(), name.begin(), name.end());
  append_be32(info, 0);
  append_be32(info, 0);
  append_be32(info, kContentKeyBytes * 8);

  struct Free {
    void operator()(EVP_KDF* kdf) const noexcept { EVP_KDF_free(kdf); }
    void operator()(EVP_KDF_CTX* context) const noexcept { EVP_KDF_CTX_free(context); }
  };
  // SP 800-56A's one-step derivation, which is Concat KDF.
  const std::unique_ptr<EVP_KDF, Free> kdf(EVP_KDF_fetch(nullptr, "SSKDF", nullptr));
  const std::unique_ptr<EVP_KDF_CTX, Free> context(EVP_KDF_CTX_new(kdf.get()));
  SecretBytes secret(shared_x);
  std::string digest = "SHA256";
  const std::array<OSSL_PARAM, 4> parameters = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret.data(), secret.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), info.size()),
      OSSL_PARAM_construct_end()};
  SecretBytes key(kContentKeyBytes);
  if (context == nullptr ||
      EVP_KDF_derive(context.get(), data_of(key.span()), key.size(), parameters.data()) != 1) {
    throw Error(Code::kInternal, "OpenSSL cannot derive a key");
  }
  return key;
}

}  // namespace lukskeep::nbde
