#include "nbde/tpm2_pin.h"
#include <lukskeep/error.h>
namespace lukskeep::nbde {
TpmObject tpm2_seal(const Tpm2Pin&, ByteView, const std::string&) { throw Error(Code::kUnsupported, "no TPM"); }
SecretBytes tpm2_unseal(const Tpm2Pin&, const TpmObject&, const std::string&) { throw Error(Code::kUnsupported, "no TPM"); }
}
