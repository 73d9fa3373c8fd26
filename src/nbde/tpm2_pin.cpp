#include "nbde/tpm2_pin.h"

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_tctildr.h>

#include <lukskeep/error.h>

#include "base/base64url.h"
#include "base/shared_library.h"
#include "crypto/hash.h"

namespace lukskeep::nbde {
namespace {

constexpr const char* kTctiDefault = "device:/dev/tpmrm0";
constexpr TPM2_RC kPolicyFail = TPM2_RC_POLICY_FAIL;
constexpr TSS2_RC kLayerMask = TSS2_RC_LAYER_MASK;
// Of a response code of format one: which handle, session or parameter it is about.
constexpr TSS2_RC kFormatOneMask = 0xbf;
constexpr TSS2_RC kFormatOne = 0x80;

// What is used of libtss2, loaded at run time and never unloaded.
struct TssLibrary {
  decltype(&::Tss2_TctiLdr_Initialize) tcti_initialize;
  decltype(&::Tss2_TctiLdr_Finalize) tcti_finalize;
  decltype(&::Esys_Initialize) initialize;
  decltype(&::Esys_Finalize) finalize;
  decltype(&::Esys_Free) free;
  decltype(&::Esys_CreatePrimary) create_primary;
  decltype(&::Esys_Create) create;
  decltype(&::Esys_Load) load;
  decltype(&::Esys_Unseal) unseal;
  decltype(&::Esys_FlushContext) flush;
  decltype(&::Esys_StartAuthSession) start_session;
  decltype(&::Esys_TRSess_SetAttributes) set_session_attributes;
  decltype(&::Esys_PolicyPCR) policy_pcr;
  decltype(&::Esys_PolicyGetDigest) policy_digest;
  decltype(&::Tss2_MU_TPM2B_PUBLIC_Marshal) marshal_public;
  decltype(&::Tss2_MU_TPM2B_PUBLIC_Unmarshal) unmarshal_public;
  decltype(&::Tss2_MU_TPM2B_PRIVATE_Marshal) marshal_private;
  decltype(&::Tss2_MU_TPM2B_PRIVATE_Unmarshal) unmarshal_private;
};

TssLibrary load_library() {
  constexpr const char* kPurpose = "talks to TPMs";
  const SharedLibrary loader("libtss2-tctildr.so.0", kPurpose, "libtss2-tctildr0");
  const SharedLibrary esys("libtss2-esys.so.0", kPurpose, "libtss2-esys-3.0.2-0");
  const SharedLibrary mu("libtss2-mu.so.0", kPurpose, "libtss2-mu0");
  TssLibrary tss{};
  loader.resolve("Tss2_TctiLdr_Initialize", tss.tcti_initialize);
  loader.resolve("Tss2_TctiLdr_Finalize", tss.tcti_finalize);
  esys.resolve("Esys_Initialize", tss.initialize);
  esys.resolve("Esys_Finalize", tss.finalize);
  esys.resolve("Esys_Free", tss.free);
  esys.resolve("Esys_CreatePrimary", tss.create_primary);
  esys.resolve("Esys_Create", tss.create);
  esys.resolve("Esys_Load", tss.load);
  esys.resolve("Esys_Unseal", tss.unseal);
  esys.resolve("Esys_FlushContext", tss.flush);
  esys.resolve("Esys_StartAuthSession", tss.start_session);
  esys.resolve("Esys_TRSess_SetAttributes", tss.set_session_attributes);
  esys.resolve("Esys_PolicyPCR", tss.policy_pcr);
  esys.resolve("Esys_PolicyGetDigest", tss.policy_digest);
  mu.resolve("Tss2_MU_TPM2B_PUBLIC_Marshal", tss.marshal_public);
  mu.resolve("Tss2_MU_TPM2B_PUBLIC_Unmarshal", tss.unmarshal_public);
  mu.resolve("Tss2_MU_TPM2B_PRIVATE_Marshal", tss.marshal_private);
  mu.resolve("Tss2_MU_TPM2B_PRIVATE_Unmarshal", tss.unmarshal_private);
  return tss;
}

const TssLibrary& library() {
  static const TssLibrary tss = load_library();
  return tss;
}

TPM2_ALG_ID algorithm_of(std::string_view hash) {
  if (hash == "sha1") return TPM2_ALG_SHA1;
  if (hash == "sha384") return TPM2_ALG_SHA384;
  if (hash == "sha512") return TPM2_ALG_SHA512;
  return TPM2_ALG_SHA256;
}

std::string bank_of(const Tpm2Pin& pin) { return pin.pcr_bank.empty() ? "sha256" : pin.pcr_bank; }

TPML_PCR_SELECTION selection_of(const Tpm2Pin& pin) {
  TPML_PCR_SELECTION selection{};
  selection.count = 1;
  selection.pcrSelections[0].hash = algorithm_of(bank_of(pin));
  selection.pcrSelections[0].sizeofSelect = 3;
  for (const unsigned pcr : pin.pcrs) {
    selection.pcrSelections[0].pcrSelect[pcr / 8] |= static_cast<BYTE>(1U << (pcr % 8));
  }
  return selection;
}

// The template of tpm2_createprimary, byte for byte: any other makes another key, which opens
// nothing that was sealed before (Clevis makes the key anew each time).
TPM2B_PUBLIC primary_template(const Tpm2Pin& pin) {
  TPM2B_PUBLIC templ{};
  TPMT_PUBLIC& area = templ.publicArea;
  area.nameAlg = algorithm_of(pin.hash);
  area.objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT | TPMA_OBJECT_FIXEDTPM |
                          TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                          TPMA_OBJECT_USERWITHAUTH;
  const TPMT_SYM_DEF_OBJECT aes128cfb = {
      .algorithm = TPM2_ALG_AES, .keyBits = {.aes = 128}, .mode = {.aes = TPM2_ALG_CFB}};
  if (pin.key == "rsa") {
    area.type = TPM2_ALG_RSA;
    area.parameters.rsaDetail.symmetric = aes128cfb;
    area.parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
    area.parameters.rsaDetail.keyBits = 2048;
  } else {
    area.type = TPM2_ALG_ECC;
    area.parameters.eccDetail.symmetric = aes128cfb;
    area.parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
    area.parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
    area.parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
  }
  return templ;
}

// Without a resource manager all users share the few places that a TPM has for objects: threads
// that open several bindings take turns.
std::mutex& turns() {
  static std::mutex mutex;
  return mutex;
}

// A connection to a TPM, and what was made there: flushed in the end.
class Tpm {
 public:
  explicit Tpm(const std::string& tcti) : turn_(turns()), tss_(library()) {
    const std::string name = tcti.empty() ? kTctiDefault : tcti;
    if (tss_.tcti_initialize(name.c_str(), &tcti_) != TSS2_RC_SUCCESS) {
      throw Error(Code::kUnsupported, fmt::format("there is no TPM at '{}'", printable(name, 128)),
                  "--tpm says how one is reached, e.g. device:/dev/tpmrm0");
    }
    if (tss_.initialize(&esys_, tcti_, nullptr) != TSS2_RC_SUCCESS) {
      tss_.tcti_finalize(&tcti_);
      throw Error(Code::kRemote, fmt::format("the TPM at '{}' fails", printable(name, 128)));
    }
  }
  Tpm(const Tpm&) = delete;
  Tpm& operator=(const Tpm&) = delete;
  ~Tpm() {
    for (auto handle = handles_.rbegin(); handle != handles_.rend(); ++handle) {
      tss_.flush(esys_, *handle);
    }
    tss_.finalize(&esys_);
    tss_.tcti_finalize(&tcti_);
  }

  ESYS_TR make_primary(const Tpm2Pin& pin) {
    const TPM2B_SENSITIVE_CREATE sensitive{};
    const TPM2B_PUBLIC templ = primary_template(pin);
    const TPM2B_DATA outside{};
    const TPML_PCR_SELECTION pcrs{};
    ESYS_TR handle = ESYS_TR_NONE;
    check(tss_.create_primary(esys_, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                              &sensitive, &templ, &outside, &pcrs, &handle, nullptr, nullptr,
                              nullptr, nullptr),
          "make a primary key");
    return keep(handle);
  }

  // Whose responses, and only those, are encrypted on their way: with the key that only the TPM
  // that has `salt_key` can read. A trial session computes a policy, whatever the PCRs are.
  ESYS_TR start_session(ESYS_TR salt_key, TPM2_SE type, TPM2_ALG_ID hash) {
    const TPMT_SYM_DEF aes = {
        .algorithm = TPM2_ALG_AES, .keyBits = {.aes = 128}, .mode = {.aes = TPM2_ALG_CFB}};
    ESYS_TR handle = ESYS_TR_NONE;
    check(tss_.start_session(esys_, salt_key, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                             ESYS_TR_NONE, nullptr, type, &aes, hash, &handle),
          "start a session");
    return keep(handle);
  }

  void encrypt_parameters(ESYS_TR session, TPMA_SESSION direction) {
    check(
        tss_.set_session_attributes(esys_, session, direction | TPMA_SESSION_CONTINUESESSION, 0xff),
        "protect a session");
  }

  void apply_pcrs(ESYS_TR session, const TPML_PCR_SELECTION& selection,
                  const TPM2B_DIGEST& expected) {
    check(tss_.policy_pcr(esys_, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &expected,
                          &selection),
          "read its PCRs");
  }

  // What a key is sealed to. A TPM passes over PCRs of a bank that it does not keep, without a
  // word: what is sealed to them would open whatever was booted.
  TPM2B_DIGEST pcr_policy(const Tpm2Pin& pin, const TPM2B_DIGEST& expected) {
    const auto policy = [&](const TPML_PCR_SELECTION& selection) {
      const ESYS_TR trial = start_session(ESYS_TR_NONE, TPM2_SE_TRIAL, algorithm_of(pin.hash));
      apply_pcrs(trial, selection, expected);
      const TPM2B_DIGEST digest = policy_digest(trial);
      drop_last(trial);  // some TPMs have room for three sessions
      return digest;
    };
    const auto view = [](const TPM2B_DIGEST& digest) {
      return std::as_bytes(std::span(digest.buffer, digest.size));
    };
    TPML_PCR_SELECTION none = selection_of(pin);
    std::ranges::fill(none.pcrSelections[0].pcrSelect, BYTE{0});
    const TPM2B_DIGEST digest = policy(selection_of(pin));
    if (std::ranges::equal(view(digest), view(policy(none)))) {
      throw Error(Code::kUnsupported,
                  fmt::format("the TPM keeps no PCRs in the bank {}", bank_of(pin)),
                  "name a bank that it keeps, as in pcr_bank=sha256 (tpm2_getcap pcrs lists them)");
    }
    return digest;
  }

  TPM2B_DIGEST policy_digest(ESYS_TR session) {
    TPM2B_DIGEST* digest = nullptr;
    check(tss_.policy_digest(esys_, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &digest),
          "compute a policy");
    const TPM2B_DIGEST result = *digest;
    tss_.free(digest);
    return result;
  }

  TpmObject create(ESYS_TR parent, ESYS_TR session, const TPM2B_PUBLIC& templ, ByteView secret) {
    struct Wiped {
      TPM2B_SENSITIVE_CREATE sensitive{};
      ~Wiped() { wipe(std::as_writable_bytes(std::span(&sensitive, 1))); }
    } wiped;
    if (secret.size() > sizeof(wiped.sensitive.sensitive.data.buffer)) {
      throw Error(Code::kInvalidArgument, "a TPM seals no secret of that size");
    }
    wiped.sensitive.sensitive.data.size = static_cast<UINT16>(secret.size());
    std::ranges::copy(
        secret, std::as_writable_bytes(std::span(wiped.sensitive.sensitive.data.buffer)).begin());
    const TPM2B_DATA outside{};
    const TPML_PCR_SELECTION pcrs{};
    TPM2B_PRIVATE* private_area = nullptr;
    TPM2B_PUBLIC* public_area = nullptr;
    check(tss_.create(esys_, parent, ESYS_TR_PASSWORD, session, ESYS_TR_NONE, &wiped.sensitive,
                      &templ, &outside, &pcrs, &private_area, &public_area, nullptr, nullptr,
                      nullptr),
          "seal a secret");
    TpmObject object{.public_area = marshal(tss_.marshal_public, *public_area),
                     .private_area = marshal(tss_.marshal_private, *private_area)};
    tss_.free(private_area);
    tss_.free(public_area);
    return object;
  }

  ESYS_TR load(ESYS_TR parent, const TpmObject& object) {
    TPM2B_PUBLIC public_area{};
    TPM2B_PRIVATE private_area{};
    unmarshal(tss_.unmarshal_public, object.public_area, public_area);
    unmarshal(tss_.unmarshal_private, object.private_area, private_area);
    ESYS_TR handle = ESYS_TR_NONE;
    const TSS2_RC code = tss_.load(esys_, parent, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                                   &private_area, &public_area, &handle);
    if (is_refusal(code)) {
      throw Error(Code::kWrongPassphrase,
                  "the TPM does not take what was sealed: it is another "
                  "one, or has been cleared");
    }
    check(code, "load what was sealed");
    return keep(handle);
  }

  SecretBytes unseal(ESYS_TR object, ESYS_TR authorization, ESYS_TR session) {
    TPM2B_SENSITIVE_DATA* data = nullptr;
    const TSS2_RC code = tss_.unseal(esys_, object, authorization, session, ESYS_TR_NONE, &data);
    if ((code & kLayerMask) == 0 && (code & kFormatOne) != 0 &&
        (code & kFormatOneMask) == kPolicyFail) {
      throw Error(Code::kWrongPassphrase, "the TPM gives nothing: its PCRs are not what they were",
                  "firmware, boot loader or their settings have changed since it was sealed");
    }
    check(code, "open what was sealed");
    SecretBytes secret(std::as_bytes(std::span(data->buffer, data->size)));
    wipe(std::as_writable_bytes(std::span(data->buffer)));
    tss_.free(data);
    return secret;
  }

 private:
  // The TPM understood, and says no.
  static bool is_refusal(TSS2_RC code) {
    return (code & kLayerMask) == 0 && (code & kFormatOne) != 0;
  }

  static void check(TSS2_RC code, std::string_view what) {
    if (code == TSS2_RC_SUCCESS) return;
    throw Error(Code::kRemote, fmt::format("the TPM cannot {} (0x{:x})", what, code));
  }

  void drop_last(ESYS_TR handle) {
    handles_.pop_back();
    tss_.flush(esys_, handle);
  }

  ESYS_TR keep(ESYS_TR handle) {
    handles_.push_back(handle);
    return handle;
  }

  template <typename Value>
  static Bytes marshal(TSS2_RC (*function)(Value const*, uint8_t[], size_t, size_t*),
                       const Value& value) {
    Bytes bytes(sizeof(Value));
    size_t size = 0;
    check(function(&value, reinterpret_cast<uint8_t*>(bytes.data()), bytes.size(), &size),
          "write what it sealed");
    bytes.resize(size);
    return bytes;
  }

  template <typename Value>
  static void unmarshal(TSS2_RC (*function)(uint8_t const[], size_t, size_t*, Value*),
                        const Bytes& bytes, Value& value) {
    size_t size = 0;
    const TSS2_RC code =
        function(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), &size, &value);
    if (code != TSS2_RC_SUCCESS || size != bytes.size()) {
      throw Error(Code::kDamaged, "what a TPM sealed is damaged");
    }
  }

  std::lock_guard<std::mutex> turn_;
  const TssLibrary& tss_;
  TSS2_TCTI_CONTEXT* tcti_ = nullptr;
  ESYS_CONTEXT* esys_ = nullptr;
  std::vector<ESYS_TR> handles_;
};

// What PolicyPCR wants of values that are not those of now: the hash of all of them.
TPM2B_DIGEST expected_pcrs(const Tpm2Pin& pin) {
  TPM2B_DIGEST digest{};
  if (pin.pcr_digest.empty()) return digest;
  const auto values = from_base64url(pin.pcr_digest);
  if (!values) throw Error(Code::kInvalidArgument, "'pcr_digest' is not in base64url");
  const Bytes hashed = crypto::hash(pin.hash, *values);
  digest.size = static_cast<UINT16>(hashed.size());
  std::ranges::copy(hashed, std::as_writable_bytes(std::span(digest.buffer)).begin());
  return digest;
}

}  // namespace

TpmObject tpm2_seal(const Tpm2Pin& pin, ByteView secret, const std::string& tcti) {
  Tpm tpm(tcti);
  const ESYS_TR primary = tpm.make_primary(pin);
  TPM2B_PUBLIC templ{};
  TPMT_PUBLIC& area = templ.publicArea;
  area.type = TPM2_ALG_KEYEDHASH;
  area.nameAlg = algorithm_of(pin.hash);
  area.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_NODA |
                          TPMA_OBJECT_ADMINWITHPOLICY;
  area.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL;
  if (pin.pcrs.empty()) {
    area.objectAttributes |= TPMA_OBJECT_USERWITHAUTH;
  } else {
    area.authPolicy = tpm.pcr_policy(pin, expected_pcrs(pin));
  }
  const ESYS_TR session = tpm.start_session(primary, TPM2_SE_HMAC, TPM2_ALG_SHA256);
  tpm.encrypt_parameters(session, TPMA_SESSION_DECRYPT);
  return tpm.create(primary, session, templ, secret);
}

SecretBytes tpm2_unseal(const Tpm2Pin& pin, const TpmObject& object, const std::string& tcti) {
  Tpm tpm(tcti);
  const ESYS_TR primary = tpm.make_primary(pin);
  const ESYS_TR loaded = tpm.load(primary, object);
  const ESYS_TR session = tpm.start_session(primary, TPM2_SE_HMAC, TPM2_ALG_SHA256);
  tpm.encrypt_parameters(session, TPMA_SESSION_ENCRYPT);
  if (pin.pcrs.empty()) return tpm.unseal(loaded, ESYS_TR_PASSWORD, session);
  const ESYS_TR policy = tpm.start_session(ESYS_TR_NONE, TPM2_SE_POLICY, algorithm_of(pin.hash));
  tpm.apply_pcrs(policy, selection_of(pin), {});
  return tpm.unseal(loaded, policy, session);
}

}  // namespace lukskeep::nbde
