// Sealing bytes to public keys in the format of age (https://age-encryption.org/v1), with X25519
// recipients: what is sealed here opens with `age -d -i KEY`, and what `age -r` sealed opens here.
//
// All functions may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::archive {

// The public key of somebody who can open what is sealed: an X25519 point.
struct AgeRecipient {
  std::array<std::byte, 32> point{};

  bool operator==(const AgeRecipient&) const = default;
};

// "age1…". Throws Error{kInvalidArgument}.
AgeRecipient parse_age_recipient(std::string_view text);
std::string to_string(const AgeRecipient& recipient);

// One a line, blank lines and lines starting with '#' apart: a file of `age -R`. At most
// limits::kAgeRecipientsMax. Throws Error{kInvalidArgument} naming `what` and the line.
std::vector<AgeRecipient> parse_age_recipients(std::string_view text, std::string_view what);

// The private key that belongs to a recipient: an X25519 scalar.
struct AgeIdentity {
  SecretBytes scalar;
};

AgeIdentity make_age_identity();
AgeRecipient recipient_of(const AgeIdentity& identity);
// "AGE-SECRET-KEY-1…".
SecretBytes to_text(const AgeIdentity& identity);
// A file of `age-keygen`. Throws Error{kInvalidArgument} naming `what` and the line; never quotes
// it.
std::vector<AgeIdentity> parse_age_identities(ByteView text, std::string_view what);

// Seals what it is given bit by bit, and hands over what is sealed as it comes: at most 64 KiB and
// a tag at once. One thread at a time.
class AgeSealer {
 public:
  using Sink = std::function<void(ByteView)>;  // may throw

  // Throws Error{kInvalidArgument} if there is no recipient.
  AgeSealer(std::span<const AgeRecipient> recipients, Sink sink);

  void add(ByteView plain);
  // Without it what was handed over opens nowhere.
  void finish();

 private:
  void seal(ByteView chunk, bool last);

  Sink sink_;
  SecretBytes key_;
  std::uint64_t chunks_ = 0;
  Bytes pending_;  // less than a chunk, or one that may be the last
  Bytes sealed_;
};

// All at once.
Bytes age_seal(ByteView plain, std::span<const AgeRecipient> recipients);

// Absent if none of `identities` is among the recipients. Throws Error{kDamaged} naming `what` if
// `sealed` is no age file, or was changed or cut; kUnsupported for a version that is not v1.
std::optional<Bytes> age_open(ByteView sealed, std::span<const AgeIdentity> identities,
                              std::string_view what);

}  // namespace lukskeep::archive
