// Bindings: a keyslot, and in the header beside it the keyslot's passphrase sealed to a policy of
// pins, as Clevis stores them. In LUKS2 that is a token
// {"type":"clevis","keyslots":["N"],"jwe":{…}}, in LUKS1 a luksmeta record of keyslot N that holds
// the JWE in compact form (docs/format/luksmeta.md).
//
// Reading a header says everything here; no server is asked. All functions may be called from any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <lukskeep/header.h>
#include <lukskeep/secret_bytes.h>

#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "luks/luksmeta.h"
#include "nbde/jwe.h"

namespace lukskeep::nbde {

// "clevis": of tokens. And cb6e8904-81ff-40da-a84a-07ab9ab5715e, of luksmeta records.
inline constexpr std::string_view kBindingTokenType = "clevis";
extern const luks::LuksmetaType kBindingRecordType;

struct Binding {
  int keyslot = -1;          // -1: the token names none
  std::optional<int> token;  // LUKS2: its number; LUKS1: the record has the keyslot's
  // There is no such keyslot (any more): it opens nothing. Left over from a bind or unbind that was
  // cut, or from who removed the keyslot only. LUKS1: also of a rebind that was cut before its
  // keyslot was there, where the keyslot of that number is another key that came since.
  bool orphan = false;
  // What sealed the passphrase; absent if that cannot be read, and `problem` says why.
  std::optional<Jwe> jwe;
  std::string problem;
  // Made by a rebind that is to take the place of this keyslot's binding, and was cut before that.
  std::optional<int> replaces;
  std::uint16_t replaces_print = 0;  // of that keyslot, as it was then: keyslot_print()
  // LUKS1: this keyslot is left over from such a rebind.
  std::optional<int> leftover;
};

// All of them, by number of the token or record. Bindings that cannot be read are in the list too.
// Tokens and records of other types are not. A luksmeta table that cannot be read throws
// Error{kDamaged}.
std::vector<Binding> list_bindings(const luks::HeaderFile& file);

// What other programs keep beside keyslots, which nothing here changes: a token of another type (of
// systemd, say), or a luksmeta record of another UUID.
struct OtherRecord {
  int number = -1;         // of the token or record
  std::string type;        // of the token; of a record its UUID
  std::set<int> keyslots;  // of a record the one that it is beside, active or not
};
std::vector<OtherRecord> list_other_records(const luks::HeaderFile& file);

// The binding of `keyslot` that opens something. Throws Error{kNotFound}, kDamaged with its
// problem.
Binding find_binding(const luks::HeaderFile& file, int keyslot);

// What sealed the passphrase. Throws Error{kDamaged} with its problem if that cannot be read.
const Jwe& sealed_of(const Binding& binding);

// A token as Clevis writes it. `replaces` and its print: see Binding.
luks::Token make_binding_token(const Jwe& jwe, int keyslot, std::optional<int> replaces = {},
                               std::uint16_t replaces_print = 0);

// A fresh passphrase of a binding, as Clevis makes them: 40 random bytes as 54 characters of
// base64url.
SecretBytes make_binding_passphrase();

// How Clevis derives the key of such a keyslot: the passphrase has 320 bits, so that PBKDF2 with
// 1000 iterations over the hash of the header is no weakness.
luks::NewKeyslot binding_keyslot(const luks::Header& header);

}  // namespace lukskeep::nbde
