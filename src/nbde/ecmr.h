// The McCallum-Relyea exchange: a server helps to recover a key that it never learns.
//
// Source: Tang's README, "Binding" and "Recovery". With g the generator, the server's key S and its
// public point s = gS:
//   seal      c = gC, K = sC; C and K are forgotten, c is kept
//   recover   e = gE, x = c + e; the server answers y = xS; K = y - sE
// What is sent is blinded: neither the network nor the server can tell c or K from x and y.
#pragma once

#include "nbde/ec_point.h"

namespace lukskeep::nbde {

struct EcmrSealed {
  EcPoint ephemeral;     // c: to be kept
  SecretBytes shared_x;  // the x coordinate of K, of which keys are derived
};
EcmrSealed ecmr_seal(const EcPoint& server);

struct EcmrRequest {
  EcPoint blinded;  // x: for the server
  EcScalar secret;  // E: stays here
};
// Throws Error{kInvalidArgument} as add() does, with a chance of nothing.
EcmrRequest ecmr_request(const EcPoint& ephemeral);

// The server's side. Throws Error{kInvalidArgument} if the curves differ.
EcPoint ecmr_answer(const EcPoint& blinded, const EcScalar& server);

// `server` is the public point the key was sealed with. Whether the answer was true shows when the
// key opens something. Throws Error{kInvalidArgument} if the curves differ or nothing is left.
SecretBytes ecmr_finish(const EcPoint& answer, const EcPoint& server, const EcScalar& secret);

}  // namespace lukskeep::nbde
