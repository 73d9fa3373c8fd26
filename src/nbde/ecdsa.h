// ECDSA over the NIST curves with the hash that JOSE pairs with each (RFC 7518 §3.4).
#pragma once

#include "base/bytes.h"
#include "nbde/ec_point.h"

namespace lukskeep::nbde {

// r and s, each coordinate_bytes(curve) long.
Bytes ecdsa_sign(const EcScalar& secret, const EcPoint& point, ByteView message);
// False also for a signature of the wrong size.
bool ecdsa_verify(const EcPoint& point, ByteView message, ByteView signature);

}  // namespace lukskeep::nbde
