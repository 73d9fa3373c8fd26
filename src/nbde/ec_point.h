// Points and scalars of the NIST curves, and the few operations of the McCallum-Relyea exchange.
//
// All arithmetic is OpenSSL's; multiplication by a secret takes the same time whatever the secret
// is. Everything here may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::nbde {

enum class Curve : std::uint8_t { kP256, kP384, kP521 };

std::string_view curve_name(Curve curve) noexcept;  // "P-256", as JOSE spells it
std::optional<Curve> find_curve(std::string_view name) noexcept;
// Of a coordinate and of a scalar: 32, 48 or 66.
std::size_t coordinate_bytes(Curve curve) noexcept;
// Of a point with one coordinate and the sign of the other: 33, 49 or 67.
std::size_t compressed_bytes(Curve curve) noexcept;

// A secret number from 1 to the order of its curve less one. Move-only.
class EcScalar {
 public:
  static EcScalar random(Curve curve);
  // Big endian, coordinate_bytes(curve) long. Throws Error{kInvalidArgument} if it is not, or out
  // of range.
  static EcScalar from_bytes(Curve curve, SecretBytes bytes);

  EcScalar clone() const { return {curve_, bytes_.clone()}; }
  Curve curve() const noexcept { return curve_; }
  const SecretBytes& bytes() const noexcept { return bytes_; }

 private:
  EcScalar(Curve curve, SecretBytes bytes) : curve_(curve), bytes_(std::move(bytes)) {}

  Curve curve_;
  SecretBytes bytes_;
};

// A public point: on its curve for certain, and never the one at infinity.
class EcPoint {
 public:
  // Big endian, each coordinate_bytes(curve) long. Throws Error{kInvalidArgument} if one is not, or
  // the point is not on the curve.
  static EcPoint from_coordinates(Curve curve, ByteView x, ByteView y);
  // The public point of a private key.
  static EcPoint of(const EcScalar& scalar);
  // What compressed() gave: compressed_bytes(curve) long. Throws Error{kInvalidArgument} if it is
  // not, or no point of the curve has it.
  static EcPoint from_compressed(Curve curve, ByteView bytes);

  // SEC 1, 2.3.3: 2 or 3, and x.
  Bytes compressed() const;
  Curve curve() const noexcept { return curve_; }
  ByteView x() const noexcept { return ByteView(x_).first(coordinate_bytes(curve_)); }
  ByteView y() const noexcept { return ByteView(y_).first(coordinate_bytes(curve_)); }

  bool operator==(const EcPoint&) const = default;

 private:
  friend struct EcPointAccess;
  static constexpr std::size_t kBytesMax = 66;

  EcPoint() = default;

  Curve curve_ = Curve::kP521;
  std::array<std::byte, kBytesMax> x_{};
  std::array<std::byte, kBytesMax> y_{};
};

// All throw Error{kInvalidArgument} if the operands are of two curves, or the result is the point
// at infinity.
EcPoint add(const EcPoint& a, const EcPoint& b);
EcPoint subtract(const EcPoint& a, const EcPoint& b);
EcPoint multiply(const EcPoint& point, const EcScalar& scalar);

// Results that are secret: the x coordinate only, as long as coordinate_bytes says.
SecretBytes multiply_x(const EcPoint& point, const EcScalar& scalar);
// Of a - point * scalar.
SecretBytes subtract_multiple_x(const EcPoint& a, const EcPoint& point, const EcScalar& scalar);

}  // namespace lukskeep::nbde
