// What kdf.cpp and kdf_cost.cpp share.
#pragma once

#include <string>

#include "crypto/kdf.h"

namespace lukskeep::crypto {

// Why no implementation could work with `cost` (RFC 8018 section 5.2, RFC 9106 section 3.1); empty
// if it could.
std::string cost_fault(const KdfCost& cost);

}  // namespace lukskeep::crypto
