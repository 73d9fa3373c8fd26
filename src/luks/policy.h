// Policies: what a header may say. For headers from strangers, whose every field is the choice of
// somebody who may want the payload unencrypted, or this machine busy.
//
// A header is judged as the values that were read once (luks::Header), so what was judged is what
// is used. A part of a policy that is absent allows everything. docs/format/policy.md describes the
// file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/header.h>

#include "base/json.h"
#include "luks/header_file.h"

namespace lukskeep::luks {

// Both ends included.
struct Bounds {
  std::uint64_t min = 0;
  std::uint64_t max = UINT64_MAX;

  bool contain(std::uint64_t value) const noexcept { return min <= value && value <= max; }
  bool operator==(const Bounds&) const = default;
};

using Names = std::optional<std::set<std::string>>;
// Canonical spec (crypto::to_string) to key sizes in bits; no sizes: every one the cipher takes.
using CipherRules = std::map<std::string, std::set<std::uint32_t>>;

struct KdfRule {
  Names hashes;            // pbkdf2 only
  Bounds iterations;       // pbkdf2: iterations; argon2: time cost
  Bounds memory_kib;       // argon2 only, as the next two
  Bounds parallel;         // lanes
  Bounds time_memory_kib;  // time cost * memory: what opening takes, whichever of them is large

  bool operator==(const KdfRule&) const = default;
};

struct Policy {
  std::string name;  // for messages: a built-in one's, or the path of the file
  std::string description;

  std::optional<std::set<std::uint32_t>> versions;      // 1, 2
  std::optional<CipherRules> ciphers;                   // of segments
  std::optional<CipherRules> keyslot_ciphers;           // of keyslot areas; absent: as `ciphers`
  std::optional<std::map<std::string, KdfRule>> kdfs;   // by type name
  std::optional<std::set<std::uint32_t>> sector_sizes;  // bytes
  Names segment_types;
  Names segment_flags;
  bool integrity = true;  // whether segments may have it
  Names keyslot_types;    // "luks2" is the one of both versions that holds a key
  Names requirements;
  Names flags;  // persistent activation flags
  Names token_types;
  Bounds segments;  // how many
  Bounds keyslots;  // how many
  Names digest_hashes;
  Bounds digest_iterations;
  Bounds digest_size_bytes;
  Names af_hashes;
  Bounds af_stripes;

  Names fingerprints;        // header_fingerprint() is one of these
  Names volume_key_digests;  // lower-case hex; each digest of a segment is one of these

  // The name is no part of what it allows.
  bool operator==(const Policy& other) const;
};

// One thing that a policy does not allow.
struct Violation {
  std::string rule;     // the member of the policy, e.g. "kdf.argon2id.time"
  std::string object;   // "header", "segment 0", "keyslot 3", "digest 0", "token 1"
  std::string found;    // what the header says, fit for messages
  std::string message;  // a sentence that names the object and what is not allowed

  bool operator==(const Violation&) const = default;
};

// Reads the text of a policy file; `name` becomes its name. Throws Error{kInvalidArgument} naming
// `name`, line and member: text that is no TOML 1.0, a member that is unknown or of a wrong type or
// value, more than limits::kPolicyBytesMax.
Policy parse_policy(std::string_view text, std::string_view name);

// A built-in policy of this name, or the one in the file of this path. Throws as parse_policy, and
// Error as storage::open_file.
Policy load_policy(const std::string& name_or_path);

// Names of the policies that are built in.
std::span<const std::string_view> builtin_policy_names();
// The file as it could be written by hand, with comments. Empty if there is none of that name.
std::string_view builtin_policy_text(std::string_view name);

// All members that are set, by the names they have in the file; and that as a policy file:
// parse_policy of it gives `policy` back.
OrderedJson to_json(const Policy& policy);
std::string to_toml(const Policy& policy);

// SHA-256, in hex, of the header's bytes as backup_header gives them. Reads them again, so it makes
// sure that they are those of file.header(). Throws what backup_header(file, true) throws, and
// Error{kConflict} if the bytes are those of another header by now.
std::string header_fingerprint(const HeaderFile& file);

// Every violation, in the order of the header's parts; none: the header is allowed. `fingerprint`
// is the header's, needed only where `policy` pins it (an absent one then breaks the policy).
std::vector<Violation> judge(const Policy& policy, const Header& header,
                             const std::optional<std::string>& fingerprint = {});
// The same, with the fingerprint if the policy wants one. Reads nothing else.
std::vector<Violation> judge(const Policy& policy, const HeaderFile& file);

// Throws Error{kUnsafe} listing every violation if there is one.
void enforce(const Policy& policy, const HeaderFile& file);

}  // namespace lukskeep::luks
