#include "nbde/ecmr.h"

#include <utility>

namespace lukskeep::nbde {

EcmrSealed ecmr_seal(const EcPoint& server) {
  const EcScalar secret = EcScalar::random(server.curve());
  return {.ephemeral = EcPoint::of(secret), .shared_x = multiply_x(server, secret)};
}

EcmrRequest ecmr_request(const EcPoint& ephemeral) {
  EcScalar secret = EcScalar::random(ephemeral.curve());
  const EcPoint blinded = add(ephemeral, EcPoint::of(secret));
  return {.blinded = blinded, .secret = std::move(secret)};
}

EcPoint ecmr_answer(const EcPoint& blinded, const EcScalar& server) {
  return multiply(blinded, server);
}

SecretBytes ecmr_finish(const EcPoint& answer, const EcPoint& server, const EcScalar& secret) {
  return subtract_multiple_x(answer, server, secret);
}

}  // namespace lukskeep::nbde
