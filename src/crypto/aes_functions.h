// The function tables of the kernels that are built for x86-64; see aes_kernel.h.
#pragma once

#include "crypto/aes_kernel.h"

namespace lukskeep::crypto {

extern const AesFunctions kAesNiFunctions;
extern const AesFunctions kVaesAvx2Functions;
extern const AesFunctions kVaesAvx512Functions;

// The key expansion of FIPS 197 section 5.2 by AES-NI, which all of them share.
void aesni_expand_key(ByteView key, AesSchedule& schedule);

}  // namespace lukskeep::crypto
