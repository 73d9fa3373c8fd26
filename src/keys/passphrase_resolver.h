// From the bytes of a stored secret to the passphrase that its writer meant.
//
// Cinder, Nova's attachment and os-brick use the lower-case hex of a symmetric key; Nova's
// ephemeral disks and vaultlocker the base64 text that they store; people store a passphrase as it
// is, often with a newline, or in base64 because a client asked for that.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <lukskeep/secret_bytes.h>

#include "keys/key_manager.h"

namespace lukskeep::keys {

enum class Encoding : std::uint8_t {
  kPlain,       // the bytes are the passphrase
  kHex,         // lower-case hex of the bytes is
  kBase64,      // base64 of the bytes is
  kNoNewline,   // the bytes without the newline at their end are
  kFromBase64,  // the text is base64 of it
  kFromHex,     // the text is hex of it
};
// "plain", "hex", "base64", "no-newline", "from-base64", "from-hex".
std::string_view encoding_name(Encoding encoding) noexcept;
std::optional<Encoding> parse_encoding(std::string_view text) noexcept;
// "its lower-case hex", for messages.
std::string_view encoding_words(Encoding encoding) noexcept;

// The metadata that says which it is.
inline constexpr std::string_view kEncodingMetadata = "lukskeep-encoding";

struct Candidate {
  SecretBytes passphrase;
  Encoding encoding = Encoding::kPlain;
};

// What the metadata says first, then what is plausible for its type, the likely first, none twice.
// Throws Error{kInvalidArgument} if the metadata names an encoding that is unknown or does not fit
// the bytes.
std::vector<Candidate> passphrase_candidates(const Secret& secret, const Metadata& metadata);

// The one that is certain: said by the metadata, the hex of a symmetric key, a passphrase as it is.
// For new volumes and keyslots, where a guess would lock people out. Throws Error{kInvalidArgument}
// if the secret is of another type.
Candidate certain_passphrase(const Secret& secret, const Metadata& metadata);

// Absent if the bytes do not fit.
std::optional<SecretBytes> apply_encoding(Encoding encoding, ByteView bytes);

}  // namespace lukskeep::keys
