// What the stand-ins for Clevis' programs share.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cli/binding_access.h"
#include "cli/compat.h"
#include "luks/header_file.h"
#include "nbde/pin_policy.h"
#include "nbde/seal.h"
#include "nbde/sealed_pin.h"

namespace lukskeep::cli {

// As `-y` of Clevis: keys of servers that nothing vouches for are taken without a question.
enum class Trust : std::uint8_t { kAsk, kTake };

// How servers and the TPM are asked. With Trust::kAsk the terminal is asked about keys that nothing
// vouches for.
nbde::PinContext compat_context(const Session& session, Trust trust);

// Clevis' configuration of `pin`; an sss without "t" wants one pin. Throws Error as
// nbde::parse_pin_policy.
nbde::PinPolicy parse_clevis_config(std::string_view pin, std::string_view config);

// Pin and configuration as `clevis luks list` shows them: "tang" and {"url":"…"}.
struct PinConfig {
  std::string pin;
  std::string config;
};
PinConfig clevis_config(const nbde::SealedPin& sealed);

// ---- clevis luks --------------------------------------------------------------------------------

inline constexpr int kLuks1Slots = 8;
inline constexpr int kLuks2Slots = 32;
int slots_of(const luks::HeaderFile& file);

VolumeArgs device_args(const std::string& device);
// Says what stands in the way, as Clevis does, and gives nothing.
std::optional<luks::HeaderFile> try_open(const Session* changing, const std::string& device,
                                         std::string_view complaint);
// Whether luksmeta records can be there: always for LUKS2.
bool has_records(const luks::HeaderFile& file);

// What is bound to `slot` and opens something; absent if nothing is.
std::optional<nbde::Binding> binding_of_slot(const luks::HeaderFile& file, int slot);

// The passphrase that somebody else gave, else that of any binding, else the one that is asked for.
OpenedVolume open_somehow(const CompatCall& call, const luks::HeaderFile& file,
                          const std::optional<SecretBytes>& key);

}  // namespace lukskeep::cli
