#include "nbde/shamir.h"

#include <algorithm>
#include <utility>

#include <openssl/bn.h>

#include <lukskeep/error.h>

#include "base/limits.h"
#include "nbde/jwe.h"

namespace lukskeep::nbde {
namespace {

constexpr int kPrimeBits = 256;
// Below that a share, or chance, gives the key away.
constexpr int kPrimeBitsMin = 128;

struct BnFree {
  void operator()(BIGNUM* number) const noexcept { BN_clear_free(number); }
  void operator()(BN_CTX* context) const noexcept { BN_CTX_free(context); }
};
using Number = std::unique_ptr<BIGNUM, BnFree>;
using Workspace = std::unique_ptr<BN_CTX, BnFree>;

void check(bool ok) {
  if (!ok) throw Error(Code::kInternal, "OpenSSL cannot compute a share");
}

Number new_number() {
  Number number(BN_secure_new());
  if (!number) throw Error(Code::kOutOfMemory, "out of memory");
  return number;
}

Workspace new_workspace() {
  Workspace workspace(BN_CTX_secure_new());
  if (!workspace) throw Error(Code::kOutOfMemory, "out of memory");
  return workspace;
}

Number to_number(ByteView bytes) {
  Number number = new_number();
  check(BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()),
                  static_cast<int>(bytes.size()), number.get()) != nullptr);
  return number;
}

// `bytes` has room: big endian, filled with zeros in front.
void to_bytes(const BIGNUM* number, MutableBytes bytes) {
  check(BN_bn2binpad(number, reinterpret_cast<unsigned char*>(bytes.data()),
                     static_cast<int>(bytes.size())) == static_cast<int>(bytes.size()));
}

Number random_below(const BIGNUM* limit) {
  Number number = new_number();
  check(BN_priv_rand_range(number.get(), limit) == 1);
  return number;
}

struct Point {
  Number x;
  Number y;
};

[[noreturn]] void fail_share(const char* problem) {
  throw Error(Code::kDamaged, std::string("a share of the secret ") + problem);
}

}  // namespace

// A polynomial of degree t - 1 is what t of its points say. Random values at t places are as random
// a polynomial as random coefficients are.
struct SharedSecret::State {
  Number prime;
  std::vector<Point> points;
  std::vector<Number> given;  // the x of shares made here

  bool has_x(const BIGNUM* x) const {
    return std::ranges::any_of(points, [&](const Point& p) { return BN_cmp(p.x.get(), x) == 0; }) ||
           std::ranges::any_of(given, [&](const Number& n) { return BN_cmp(n.get(), x) == 0; });
  }

  Number new_x() const {
    for (;;) {
      Number x = random_below(prime.get());
      if (BN_is_zero(x.get()) == 0 && !has_x(x.get())) return x;
    }
  }

  // Lagrange: sum of y_i * product of (x - x_j) / (x_i - x_j).
  Number value_at(const BIGNUM* x) const {
    const Workspace work = new_workspace();
    Number sum = new_number();
    Number above = new_number();
    Number below = new_number();
    Number part = new_number();
    const BIGNUM* p = prime.get();
    for (const Point& one : points) {
      check(BN_one(above.get()) == 1 && BN_one(below.get()) == 1);
      for (const Point& other : points) {
        if (&one == &other) continue;
        check(BN_mod_sub(part.get(), x, other.x.get(), p, work.get()) == 1 &&
              BN_mod_mul(above.get(), above.get(), part.get(), p, work.get()) == 1 &&
              BN_mod_sub(part.get(), one.x.get(), other.x.get(), p, work.get()) == 1 &&
              BN_mod_mul(below.get(), below.get(), part.get(), p, work.get()) == 1);
      }
      check(BN_mod_inverse(below.get(), below.get(), p, work.get()) != nullptr &&
            BN_mod_mul(part.get(), above.get(), below.get(), p, work.get()) == 1 &&
            BN_mod_mul(part.get(), part.get(), one.y.get(), p, work.get()) == 1 &&
            BN_mod_add(sum.get(), sum.get(), part.get(), p, work.get()) == 1);
    }
    return sum;
  }
};

SharedSecret::SharedSecret(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
SharedSecret::SharedSecret(SharedSecret&&) noexcept = default;
SharedSecret& SharedSecret::operator=(SharedSecret&&) noexcept = default;
SharedSecret::~SharedSecret() = default;

SharedSecret SharedSecret::make(std::size_t threshold) {
  auto state = std::make_unique<State>();
  state->prime = new_number();
  // A safe prime, as Clevis makes it.
  check(BN_generate_prime_ex(state->prime.get(), kPrimeBits, 1, nullptr, nullptr, nullptr) == 1);
  Number zero = new_number();
  state->points.push_back({std::move(zero), random_below(state->prime.get())});
  while (state->points.size() < threshold) {
    Number x = state->new_x();
    state->points.push_back({std::move(x), random_below(state->prime.get())});
  }
  return SharedSecret(std::move(state));
}

void SharedSecret::check_prime(ByteView prime) {
  if (prime.size() > limits::kShareFieldBytesMax) {
    throw Error(Code::kDamaged, "the prime of the shares is too large");
  }
  const Number number = to_number(prime);
  if (prime.empty() || prime.front() == std::byte{0}) {
    throw Error(Code::kDamaged, "the prime of the shares is not written as numbers are");
  }
  if (BN_num_bits(number.get()) < kPrimeBitsMin) {
    throw Error(Code::kDamaged, "the prime of the shares is too small");
  }
  if (BN_check_prime(number.get(), new_workspace().get(), nullptr) != 1) {
    throw Error(Code::kDamaged, "what should be the prime of the shares is none");
  }
}

SharedSecret::SharedSecret(ByteView prime, const std::vector<SecretBytes>& shares)
    : state_(std::make_unique<State>()) {
  state_->prime = to_number(prime);
  for (const SecretBytes& share : shares) {
    if (share.size() != prime.size() * 2) fail_share("has the wrong length");
    Point point{to_number(share.span().first(prime.size())),
                to_number(share.span().subspan(prime.size()))};
    if (BN_cmp(point.x.get(), state_->prime.get()) >= 0 ||
        BN_cmp(point.y.get(), state_->prime.get()) >= 0) {
      fail_share("is not below the prime");
    }
    if (BN_is_zero(point.x.get()) != 0) fail_share("is the secret itself");
    if (state_->has_x(point.x.get())) fail_share("is there twice");
    state_->points.push_back(std::move(point));
  }
}

Bytes SharedSecret::prime() const {
  Bytes bytes(static_cast<std::size_t>(BN_num_bytes(state_->prime.get())));
  to_bytes(state_->prime.get(), bytes);
  return bytes;
}

SecretBytes SharedSecret::key() const {
  const Number zero = new_number();
  const Number value = state_->value_at(zero.get());
  if (static_cast<std::size_t>(BN_num_bytes(value.get())) > kContentKeyBytes) {
    throw Error(Code::kDamaged, "the shares make a key that is too long");
  }
  SecretBytes key(kContentKeyBytes);
  to_bytes(value.get(), key.span());
  return key;
}

SecretBytes SharedSecret::new_share() {
  Number x = state_->new_x();
  const Number y = state_->value_at(x.get());
  const auto width = static_cast<std::size_t>(BN_num_bytes(state_->prime.get()));
  SecretBytes share(width * 2);
  to_bytes(x.get(), share.span().first(width));
  to_bytes(y.get(), share.span().subspan(width));
  state_->given.push_back(std::move(x));
  return share;
}

bool is_share_beside(ByteView share, std::size_t prime_bytes,
                     const std::vector<SecretBytes>& others) noexcept {
  if (share.size() != prime_bytes * 2 || all_zero(share.first(prime_bytes))) return false;
  return std::ranges::none_of(others, [&](const SecretBytes& other) {
    return equal_constant_time(other.span().first(prime_bytes), share.first(prime_bytes));
  });
}

}  // namespace lukskeep::nbde
