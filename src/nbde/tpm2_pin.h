// Clevis' pin tpm2: a key that a TPM 2.0 gives back only while its PCRs are what they were. The TPM
// is reached through libtss2, which is loaded when it is first needed.
#pragma once

#include <string>
#include <string_view>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "nbde/pin_policy.h"

namespace lukskeep::nbde {

// A sealed object as the TPM writes it: TPM2B_PUBLIC and TPM2B_PRIVATE, each with its size.
struct TpmObject {
  Bytes public_area;
  Bytes private_area;
};

// `tcti` names the way to the TPM as TPM2TOOLS_TCTI does: "device:/dev/tpmrm0" (if it is empty),
// "swtpm:host=127.0.0.1,port=2321" and so on. Both throw Error: kUnsupported (no library, no TPM),
// kRemote (the TPM fails); tpm2_unseal also kWrongPassphrase (the PCRs have changed, or it is
// another TPM).
TpmObject tpm2_seal(const Tpm2Pin& pin, ByteView secret, const std::string& tcti);
SecretBytes tpm2_unseal(const Tpm2Pin& pin, const TpmObject& object, const std::string& tcti);

}  // namespace lukskeep::nbde
