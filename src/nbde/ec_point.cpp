#include "nbde/ec_point.h"

#include <algorithm>
#include <memory>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

namespace lukskeep::nbde {
namespace {

struct Free {
  void operator()(EC_GROUP* group) const noexcept { EC_GROUP_free(group); }
  void operator()(EC_POINT* point) const noexcept { EC_POINT_clear_free(point); }
  void operator()(BIGNUM* number) const noexcept { BN_clear_free(number); }
  // Wipes the numbers that were computed with it.
  void operator()(BN_CTX* context) const noexcept { BN_CTX_free(context); }
};
using Group = std::unique_ptr<EC_GROUP, Free>;
using Point = std::unique_ptr<EC_POINT, Free>;
using Number = std::unique_ptr<BIGNUM, Free>;
using Context = std::unique_ptr<BN_CTX, Free>;

struct CurveRow {
  Curve curve;
  std::string_view name;
  std::size_t bytes;
  int nid;
};

constexpr std::array kCurves = {CurveRow{Curve::kP256, "P-256", 32, NID_X9_62_prime256v1},
                                CurveRow{Curve::kP384, "P-384", 48, NID_secp384r1},
                                CurveRow{Curve::kP521, "P-521", 66, NID_secp521r1}};

const CurveRow& row(Curve curve) noexcept { return kCurves[static_cast<std::size_t>(curve)]; }

// What went wrong is said by us; what OpenSSL noted of it must not be found by who looks later.
[[noreturn]] void fail(Code code, const std::string& message) {
  ERR_clear_error();
  throw Error(code, message);
}

void require(bool good) {
  if (!good) fail(Code::kInternal, "OpenSSL cannot compute on an elliptic curve");
}

// Never changed after it was made, so threads share them.
const EC_GROUP* group_of(Curve curve) {
  static const std::array<Group, kCurves.size()> groups = [] {
    std::array<Group, kCurves.size()> made;
    for (std::size_t i = 0; i < made.size(); ++i) {
      made[i].reset(EC_GROUP_new_by_curve_name(kCurves[i].nid));
      require(made[i] != nullptr);
    }
    return made;
  }();
  return groups[static_cast<std::size_t>(curve)].get();
}

Context make_context() {
  Context context(BN_CTX_new());
  require(context != nullptr);
  return context;
}

Number number_of(ByteView bytes) {
  Number number(BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()),
                          static_cast<int>(bytes.size()), nullptr));
  require(number != nullptr);
  return number;
}

Number number_of(const EcScalar& scalar) {
  Number number = number_of(scalar.bytes().span());
  BN_set_flags(number.get(), BN_FLG_CONSTTIME);
  return number;
}

void write_number(const BIGNUM* number, MutableBytes out) {
  require(BN_bn2binpad(number, reinterpret_cast<unsigned char*>(out.data()),
                       static_cast<int>(out.size())) == static_cast<int>(out.size()));
}

// Absent if there is no such point.
Point make_point(Curve curve, ByteView x, ByteView y, BN_CTX* context) {
  const EC_GROUP* group = group_of(curve);
  const Number x_number = number_of(x);
  const Number y_number = number_of(y);
  // OpenSSL would reduce what is larger than the field: a second spelling of a point.
  const BIGNUM* field = EC_GROUP_get0_field(group);
  if (BN_cmp(x_number.get(), field) >= 0 || BN_cmp(y_number.get(), field) >= 0) return nullptr;
  Point point(EC_POINT_new(group));
  require(point != nullptr);
  // This checks that it is on the curve.
  if (EC_POINT_set_affine_coordinates(group, point.get(), x_number.get(), y_number.get(),
                                      context) != 1) {
    ERR_clear_error();
    return nullptr;
  }
  return point;
}

Point point_of(const EcPoint& point, BN_CTX* context) {
  Point made = make_point(point.curve(), point.x(), point.y(), context);
  require(made != nullptr);
  return made;
}

void require_same_curve(Curve a, Curve b) {
  if (a == b) return;
  throw Error(Code::kInvalidArgument,
              fmt::format("one point is on {}, the other on {}", curve_name(a), curve_name(b)));
}

void refuse_infinity(const EC_GROUP* group, const EC_POINT* point) {
  if (EC_POINT_is_at_infinity(group, point) == 1) {
    fail(Code::kInvalidArgument, "the result is the point at infinity");
  }
}

Point product(const EcPoint& point, const EcScalar& scalar, BN_CTX* context) {
  require_same_curve(point.curve(), scalar.curve());
  const EC_GROUP* group = group_of(point.curve());
  const Point factor = point_of(point, context);
  const Number number = number_of(scalar);
  Point result(EC_POINT_new(group));
  require(result != nullptr &&
          EC_POINT_mul(group, result.get(), nullptr, factor.get(), number.get(), context) == 1);
  return result;
}

// a + b, or a - b; `b` is used up.
Point sum(const EcPoint& a, Point b, bool negate, BN_CTX* context) {
  const EC_GROUP* group = group_of(a.curve());
  const Point first = point_of(a, context);
  if (negate) require(EC_POINT_invert(group, b.get(), context) == 1);
  Point result(EC_POINT_new(group));
  require(result != nullptr &&
          EC_POINT_add(group, result.get(), first.get(), b.get(), context) == 1);
  return result;
}

SecretBytes secret_x(Curve curve, const EC_POINT* point, BN_CTX* context) {
  const EC_GROUP* group = group_of(curve);
  refuse_infinity(group, point);
  const Number x(BN_new());
  require(x != nullptr &&
          EC_POINT_get_affine_coordinates(group, point, x.get(), nullptr, context) == 1);
  SecretBytes out(coordinate_bytes(curve));
  write_number(x.get(), out.span());
  return out;
}

}  // namespace

struct EcPointAccess {
  static EcPoint from(Curve curve, const EC_POINT* point, BN_CTX* context) {
    const EC_GROUP* group = group_of(curve);
    refuse_infinity(group, point);
    const Number x(BN_new());
    const Number y(BN_new());
    require(x != nullptr && y != nullptr &&
            EC_POINT_get_affine_coordinates(group, point, x.get(), y.get(), context) == 1);
    EcPoint result;
    result.curve_ = curve;
    write_number(x.get(), MutableBytes(result.x_).first(coordinate_bytes(curve)));
    write_number(y.get(), MutableBytes(result.y_).first(coordinate_bytes(curve)));
    return result;
  }
};

std::string_view curve_name(Curve curve) noexcept { return row(curve).name; }

std::optional<Curve> find_curve(std::string_view name) noexcept {
  for (const CurveRow& each : kCurves) {
    if (each.name == name) return each.curve;
  }
  return std::nullopt;
}

std::size_t coordinate_bytes(Curve curve) noexcept { return row(curve).bytes; }

std::size_t compressed_bytes(Curve curve) noexcept { return 1 + row(curve).bytes; }

EcScalar EcScalar::random(Curve curve) {
  const Number number(BN_new());
  require(number != nullptr);
  do {
    require(BN_priv_rand_range(number.get(), EC_GROUP_get0_order(group_of(curve))) == 1);
  } while (BN_is_zero(number.get()) == 1);
  SecretBytes bytes(coordinate_bytes(curve));
  write_number(number.get(), bytes.span());
  return {curve, std::move(bytes)};
}

EcScalar EcScalar::from_bytes(Curve curve, SecretBytes bytes) {
  if (bytes.size() == coordinate_bytes(curve)) {
    const Number number = number_of(bytes.span());
    if (BN_is_zero(number.get()) == 0 &&
        BN_cmp(number.get(), EC_GROUP_get0_order(group_of(curve))) < 0) {
      return {curve, std::move(bytes)};
    }
  }
  throw Error(Code::kInvalidArgument,
              fmt::format("a private key is not in the range of {}", curve_name(curve)));
}

EcPoint EcPoint::from_coordinates(Curve curve, ByteView x, ByteView y) {
  const std::size_t size = coordinate_bytes(curve);
  if (x.size() != size || y.size() != size) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a coordinate of {} has {} bytes", curve_name(curve), size));
  }
  const Context context = make_context();
  if (make_point(curve, x, y, context.get()) == nullptr) {
    throw Error(Code::kInvalidArgument,
                fmt::format("the point is not on the curve {}", curve_name(curve)));
  }
  EcPoint point;
  point.curve_ = curve;
  std::ranges::copy(x, point.x_.begin());
  std::ranges::copy(y, point.y_.begin());
  return point;
}

EcPoint EcPoint::from_compressed(Curve curve, ByteView bytes) {
  const EC_GROUP* group = group_of(curve);
  const Context context = make_context();
  const Point point(EC_POINT_new(group));
  require(point != nullptr);
  const bool form = bytes.size() == compressed_bytes(curve) &&
                    (bytes[0] == std::byte{2} || bytes[0] == std::byte{3});
  // This checks that there is such a point.
  if (!form ||
      EC_POINT_oct2point(group, point.get(), reinterpret_cast<const unsigned char*>(bytes.data()),
                         bytes.size(), context.get()) != 1) {
    fail(Code::kInvalidArgument, fmt::format("no point of {} is written so", curve_name(curve)));
  }
  return EcPointAccess::from(curve, point.get(), context.get());
}

Bytes EcPoint::compressed() const {
  Bytes bytes(compressed_bytes(curve_));
  const bool odd = (y().back() & std::byte{1}) != std::byte{0};
  bytes[0] = odd ? std::byte{3} : std::byte{2};
  std::ranges::copy(x(), bytes.begin() + 1);
  return bytes;
}

EcPoint EcPoint::of(const EcScalar& scalar) {
  const EC_GROUP* group = group_of(scalar.curve());
  const Context context = make_context();
  const Number number = number_of(scalar);
  const Point point(EC_POINT_new(group));
  require(point != nullptr &&
          EC_POINT_mul(group, point.get(), number.get(), nullptr, nullptr, context.get()) == 1);
  return EcPointAccess::from(scalar.curve(), point.get(), context.get());
}

EcPoint add(const EcPoint& a, const EcPoint& b) {
  require_same_curve(a.curve(), b.curve());
  const Context context = make_context();
  const Point result = sum(a, point_of(b, context.get()), false, context.get());
  return EcPointAccess::from(a.curve(), result.get(), context.get());
}

EcPoint subtract(const EcPoint& a, const EcPoint& b) {
  require_same_curve(a.curve(), b.curve());
  const Context context = make_context();
  const Point result = sum(a, point_of(b, context.get()), true, context.get());
  return EcPointAccess::from(a.curve(), result.get(), context.get());
}

EcPoint multiply(const EcPoint& point, const EcScalar& scalar) {
  const Context context = make_context();
  const Point result = product(point, scalar, context.get());
  return EcPointAccess::from(point.curve(), result.get(), context.get());
}

SecretBytes multiply_x(const EcPoint& point, const EcScalar& scalar) {
  const Context context = make_context();
  const Point result = product(point, scalar, context.get());
  return secret_x(point.curve(), result.get(), context.get());
}

SecretBytes subtract_multiple_x(const EcPoint& a, const EcPoint& point, const EcScalar& scalar) {
  require_same_curve(a.curve(), point.curve());
  const Context context = make_context();
  Point multiple = product(point, scalar, context.get());
  const Point result = sum(a, std::move(multiple), true, context.get());
  return secret_x(a.curve(), result.get(), context.get());
}

}  // namespace lukskeep::nbde
