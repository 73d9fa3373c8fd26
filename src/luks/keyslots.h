// Keyslots: opening, adding, removing and changing them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/header.h>
#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"
#include "crypto/kdf.h"
#include "luks/header_file.h"

namespace lukskeep::luks {

struct UnlockOptions {
  std::optional<int> keyslot;   // only this one (then also one of priority "ignore")
  bool allow_unbound = false;   // keyslots whose key opens no segment count too
  bool allow_insecure = false;  // keyslots encrypted with cipher_null
  crypto::KdfLimit kdf_limit;
  unsigned threads = 0;                // 0: hardware_threads()
  std::uint64_t memory_bytes_max = 0;  // for slots tried in parallel; 0: half of RAM
  const CancelToken* cancel = nullptr;
};

struct Unlocked {
  SecretBytes key;   // the volume key, or the unbound key
  int keyslot = -1;  // -1: given as a volume key
  int digest = -1;
};

// Tries the keyslots in the order of their priority (prefer, then normal; within one by number).
// Absent if none opens. Throws Error: kNotFound (options.keyslot does not exist), kKdfLimit (every
// keyslot that could be tried is too dear; or none opens, and one was not tried because all of them
// together are), kUnsupported (none can be tried, saying why each),
// kUnsafe (cipher_null), kDamaged (a keyslot area beyond the device), kIo, kInterrupted.
std::optional<Unlocked> unlock(const HeaderFile& file, ByteView passphrase,
                               const UnlockOptions& options);

// The digest that `key` fits, if any: how a key given as such is checked.
std::optional<int> find_digest(const Header& header, ByteView key,
                               const crypto::KdfLimit& limit = {},
                               const CancelToken* cancel = nullptr);
// Absent if the key fits no digest.
std::optional<Unlocked> unlock_with_volume_key(const HeaderFile& file, SecretBytes key,
                                               const UnlockOptions& options);

// Whether `keyslot` (which exists) holds a key that opens a segment.
bool opens_segment(const Header& header, int keyslot);

struct NewKeyslot {
  std::optional<int> keyslot;             // absent: the lowest free one
  crypto::KdfCost cost;                   // with costs already chosen
  std::string area_encryption;            // empty: as the header's other keyslots
  std::uint32_t area_key_size_bytes = 0;  // 0: likewise
  std::string af_hash;                    // empty: likewise
  Priority priority = Priority::kNormal;
};

// Each of these is one HeaderFile::commit. Numbers returned are keyslots.
// Throws Error: kExists (keyslot taken), kNoFreeKeyslot, kInvalidArgument, and commit's.
int add_keyslot(HeaderFile& file, const Unlocked& key, ByteView new_passphrase,
                const NewKeyslot& options, const CancelToken* cancel = nullptr);

// Removes the keyslot, wipes its area (after the commit: see wipe_unused_areas), unassigns it from
// tokens and digests. Throws kNotFound, and kLastKeyslot if no keyslot would be left that opens a
// segment and `allow_last` is not set.
void remove_keyslot(HeaderFile& file, int keyslot, bool allow_last);

// Replaces the passphrase of `key.keyslot` (or its KDF: same passphrase): the new material is
// written elsewhere and committed before the old is wiped, wherever the header has room. The
// number, priority and tokens of the keyslot stay. At every moment the old or the new passphrase
// opens the volume. Throws kNoFreeKeyslot where there is no room for that.
int change_keyslot(HeaderFile& file, const Unlocked& key, ByteView new_passphrase,
                   const NewKeyslot& options, const CancelToken* cancel = nullptr);

// Removes every keyslot and wipes the whole keyslots area.
void erase_keyslots(HeaderFile& file);

// Forgets the keyslot everywhere in a header that is not on a device yet.
void drop_keyslot(Header& header, int keyslot);
// The parts of the keyslots area that no keyslot uses, whatever its type; LUKS1: the areas of
// inactive keyslots. They may lie beyond the end of the device.
std::vector<AreaRange> unused_areas(const Header& header);

// Overwrites them with random bytes: of a removal that was interrupted after its commit, or done by
// a program that does not wipe, the old material stays there, and no keyslot says so. One commit,
// which changes nothing else. Returns the bytes overwritten. Throws kUnsupported where a
// requirement that is not known may use them, and what commit throws.
std::uint64_t wipe_unused_areas(HeaderFile& file);

// Adds a keyslot to a header that is not on a device yet; the result is to be written with it.
AreaWrite put_keyslot(Header& header, int keyslot, int digest, ByteView key,
                      ByteView new_passphrase, const NewKeyslot& options,
                      const CancelToken* cancel = nullptr);

}  // namespace lukskeep::luks
