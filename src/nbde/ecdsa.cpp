#include "nbde/ecdsa.h"

#include <algorithm>
#include <array>
#include <memory>
#include <tuple>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include <lukskeep/error.h>

namespace lukskeep::nbde {
namespace {

struct Free {
  void operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
  void operator()(EVP_PKEY_CTX* context) const noexcept { EVP_PKEY_CTX_free(context); }
  void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  void operator()(OSSL_PARAM_BLD* builder) const noexcept { OSSL_PARAM_BLD_free(builder); }
  void operator()(OSSL_PARAM* parameters) const noexcept { OSSL_PARAM_free(parameters); }
  void operator()(BIGNUM* number) const noexcept { BN_clear_free(number); }
  void operator()(ECDSA_SIG* signature) const noexcept { ECDSA_SIG_free(signature); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

struct CurveRow {
  const char* group;
  const EVP_MD* (*hash)();
};

const CurveRow& row(Curve curve) {
  static const std::array<CurveRow, 3> rows = {
      CurveRow{"P-256", EVP_sha256}, CurveRow{"P-384", EVP_sha384}, CurveRow{"P-521", EVP_sha512}};
  return rows[static_cast<std::size_t>(curve)];
}

void require(bool good) {
  if (good) return;
  ERR_clear_error();
  throw Error(Code::kInternal, "OpenSSL cannot sign or verify");
}

const unsigned char* raw(ByteView bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

// `secret` may be null: a public key.
Owned<EVP_PKEY> make_key(const EcPoint& point, const EcScalar* secret) {
  const std::size_t size = coordinate_bytes(point.curve());
  Bytes encoded = {std::byte{4}};  // uncompressed
  encoded.insert(encoded.end(), point.x().begin(), point.x().end());
  encoded.insert(encoded.end(), point.y().begin(), point.y().end());
  const Owned<OSSL_PARAM_BLD> builder(OSSL_PARAM_BLD_new());
  require(builder != nullptr &&
          OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME,
                                          row(point.curve()).group, 0) == 1 &&
          OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, encoded.data(),
                                           encoded.size()) == 1);
  Owned<BIGNUM> number;
  if (secret != nullptr) {
    number.reset(BN_secure_new());
    require(number != nullptr && BN_bin2bn(raw(secret->bytes().span()), static_cast<int>(size),
                                           number.get()) != nullptr);
    require(OSSL_PARAM_BLD_push_BN_pad(builder.get(), OSSL_PKEY_PARAM_PRIV_KEY, number.get(),
                                       size) == 1);
  }
  const Owned<OSSL_PARAM> parameters(OSSL_PARAM_BLD_to_param(builder.get()));
  const Owned<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  EVP_PKEY* key = nullptr;
  require(parameters != nullptr && context != nullptr &&
          EVP_PKEY_fromdata_init(context.get()) == 1 &&
          EVP_PKEY_fromdata(context.get(), &key,
                            secret != nullptr ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY,
                            parameters.get()) == 1);
  return Owned<EVP_PKEY>(key);
}

}  // namespace

Bytes ecdsa_sign(const EcScalar& secret, const EcPoint& point, ByteView message) {
  const Owned<EVP_PKEY> key = make_key(point, &secret);
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  require(context != nullptr &&
          EVP_DigestSignInit(context.get(), nullptr, row(point.curve()).hash(), nullptr,
                             key.get()) == 1);
  std::size_t size = 0;
  require(EVP_DigestSign(context.get(), nullptr, &size, raw(message), message.size()) == 1);
  std::vector<unsigned char> der(size);
  require(EVP_DigestSign(context.get(), der.data(), &size, raw(message), message.size()) == 1);
  const unsigned char* at = der.data();
  const Owned<ECDSA_SIG> parts(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)));
  require(parts != nullptr);
  const auto half = static_cast<int>(coordinate_bytes(point.curve()));
  Bytes signature(static_cast<std::size_t>(half) * 2);
  auto* out = reinterpret_cast<unsigned char*>(signature.data());
  require(BN_bn2binpad(ECDSA_SIG_get0_r(parts.get()), out, half) == half &&
          BN_bn2binpad(ECDSA_SIG_get0_s(parts.get()), out + half, half) == half);
  return signature;
}

bool ecdsa_verify(const EcPoint& point, ByteView message, ByteView signature) {
  const std::size_t half = coordinate_bytes(point.curve());
  if (signature.size() != 2 * half) return false;
  const Owned<ECDSA_SIG> parts(ECDSA_SIG_new());
  Owned<BIGNUM> r(BN_bin2bn(raw(signature), static_cast<int>(half), nullptr));
  Owned<BIGNUM> s(BN_bin2bn(raw(signature.subspan(half)), static_cast<int>(half), nullptr));
  require(parts != nullptr && r != nullptr && s != nullptr &&
          ECDSA_SIG_set0(parts.get(), r.get(), s.get()) == 1);
  std::ignore = r.release();  // both belong to `parts` now
  std::ignore = s.release();
  const int size = i2d_ECDSA_SIG(parts.get(), nullptr);
  require(size > 0);
  std::vector<unsigned char> der(static_cast<std::size_t>(size));
  unsigned char* at = der.data();
  require(i2d_ECDSA_SIG(parts.get(), &at) == size);
  const Owned<EVP_PKEY> key = make_key(point, nullptr);
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  require(context != nullptr &&
          EVP_DigestVerifyInit(context.get(), nullptr, row(point.curve()).hash(), nullptr,
                               key.get()) == 1);
  const bool good =
      EVP_DigestVerify(context.get(), der.data(), der.size(), raw(message), message.size()) == 1;
  ERR_clear_error();
  return good;
}

}  // namespace lukskeep::nbde
