#include "nbde/ecmr.h"

#include <array>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep::nbde {
namespace {

constexpr std::array kCurves = {Curve::kP256, Curve::kP384, Curve::kP521};

Code code_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return Code::kInternal;
}

TEST(Ecmr, BothSidesFindTheSameKeyOnEveryCurve) {
  for (const Curve curve : kCurves) {
    const EcScalar server = EcScalar::random(curve);
    const EcPoint server_point = EcPoint::of(server);
    const EcmrSealed sealed = ecmr_seal(server_point);
    EXPECT_EQ(sealed.shared_x.size(), coordinate_bytes(curve));
    const EcmrRequest request = ecmr_request(sealed.ephemeral);
    EXPECT_FALSE(request.blinded == sealed.ephemeral);
    const EcPoint answer = ecmr_answer(request.blinded, server);
    const SecretBytes found = ecmr_finish(answer, server_point, request.secret);
    EXPECT_TRUE(equal_constant_time(found.span(), sealed.shared_x.span())) << curve_name(curve);
    // Another server's answer gives another key.
    const EcPoint lie = ecmr_answer(request.blinded, EcScalar::random(curve));
    const SecretBytes wrong = ecmr_finish(lie, server_point, request.secret);
    EXPECT_FALSE(equal_constant_time(wrong.span(), sealed.shared_x.span()));
  }
}

TEST(EcPoint, AdditionAndSubtractionUndoEachOther) {
  for (const Curve curve : kCurves) {
    const EcPoint a = EcPoint::of(EcScalar::random(curve));
    const EcPoint b = EcPoint::of(EcScalar::random(curve));
    EXPECT_EQ(subtract(add(a, b), b), a);
    EXPECT_EQ(add(a, b), add(b, a));
  }
}

TEST(EcPoint, InfinityIsRefused) {
  const EcScalar scalar = EcScalar::random(Curve::kP256);
  const EcPoint a = EcPoint::of(scalar);
  EXPECT_EQ(code_of([&] { static_cast<void>(subtract(a, a)); }), Code::kInvalidArgument);
  // a - g * scalar, with g the point of the scalar 1.
  Bytes one(32);
  one.back() = std::byte{1};
  const EcPoint g = EcPoint::of(EcScalar::from_bytes(Curve::kP256, SecretBytes(one)));
  EXPECT_EQ(code_of([&] { static_cast<void>(subtract_multiple_x(a, g, scalar)); }),
            Code::kInvalidArgument);
}

TEST(EcPoint, TwoCurvesDoNotMix) {
  const EcPoint a = EcPoint::of(EcScalar::random(Curve::kP256));
  const EcScalar other = EcScalar::random(Curve::kP384);
  EXPECT_EQ(code_of([&] { static_cast<void>(add(a, EcPoint::of(other))); }),
            Code::kInvalidArgument);
  EXPECT_EQ(code_of([&] { static_cast<void>(ecmr_answer(a, other)); }), Code::kInvalidArgument);
}

TEST(EcPoint, RefusesWhatIsNoPoint) {
  const EcPoint good = EcPoint::of(EcScalar::random(Curve::kP256));
  Bytes x(good.x().begin(), good.x().end());
  Bytes y(good.y().begin(), good.y().end());
  EXPECT_EQ(EcPoint::from_coordinates(Curve::kP256, x, y), good);
  y.back() ^= std::byte{1};
  const Bytes zero(32);
  const Bytes ones(32, std::byte{0xff});
  const auto refused = [](ByteView left, ByteView right) {
    return code_of(
        [&] { static_cast<void>(EcPoint::from_coordinates(Curve::kP256, left, right)); });
  };
  EXPECT_EQ(refused(x, y), Code::kInvalidArgument);
  EXPECT_EQ(refused(zero, zero), Code::kInvalidArgument);
  EXPECT_EQ(refused(ones, ones), Code::kInvalidArgument);
  EXPECT_EQ(refused(x, ByteView(y).first(31)), Code::kInvalidArgument);
  EXPECT_EQ(refused({}, {}), Code::kInvalidArgument);
}

TEST(EcScalar, RefusesZeroAndTheOrder) {
  // SEC 2, order of P-256.
  const auto order = from_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
  const Bytes zero(32);
  for (const Bytes& bytes : {order.value(), zero, Bytes(31, std::byte{1}), Bytes(33)}) {
    EXPECT_EQ(
        code_of([&] { static_cast<void>(EcScalar::from_bytes(Curve::kP256, SecretBytes(bytes))); }),
        Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace lukskeep::nbde
