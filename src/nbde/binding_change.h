// Adding, removing and replacing bindings, so that a power cut at any point loses none.
//
// LUKS2: keyslot and token change in one commit. LUKS1 has two places: the record is there before
// the keyslot counts, and goes after it. Everything that can be refused (no room, no free keyslot)
// is refused before the first write.
#pragma once

#include <functional>
#include <optional>

#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "nbde/binding.h"

namespace lukskeep::nbde {

// Seals a passphrase; may ask servers.
using Sealer = std::function<Jwe(ByteView passphrase)>;
// Opens what was sealed; may ask servers.
using Opener = std::function<SecretBytes(const Jwe& jwe)>;

struct BindOptions {
  std::optional<int> keyslot;  // absent: the lowest free one
  std::optional<int> token;    // LUKS2; absent: the lowest free one
  const CancelToken* cancel = nullptr;
};

// Seals a fresh passphrase and adds it with its binding; leftovers of bindings that were cut are
// taken away. `key` opens the volume. Returns the keyslot. Throws Error{kNoFreeKeyslot, kExists,
// kUnsupported (LUKS1 without a gap)} before servers are asked, kNoSpace with the remedy before
// anything is written, and what `seal` and luks::add_keyslot throw.
int add_binding(luks::HeaderFile& file, const luks::Unlocked& key, const Sealer& seal,
                const BindOptions& options);

// Removes the binding of `keyslot` with the keyslot; of an orphan what is left of it. Throws
// kLastKeyslot as luks::remove_keyslot, kNotFound.
void remove_binding(luks::HeaderFile& file, int keyslot, bool allow_last);

// Takes away what opens nothing: tokens without a keyslot, records beside inactive keyslots.
// Returns how many.
int remove_orphan_bindings(luks::HeaderFile& file);

struct RebindOptions {
  const CancelToken* cancel = nullptr;
  luks::UnlockOptions unlock;  // how the new keyslot is tried
};

// Puts a new passphrase, sealed by `seal`, in the place of the binding of `keyslot`, which keeps
// its number, and its token the token's. The new binding is first added beside the old one, then
// read back, opened by `open`, and tried on the volume; only then does the old one go. Where a
// rebind of `keyslot` was cut, it is completed if its new binding opens, else done again. Returns
// true if an earlier one was completed, so that `seal` was not asked. Throws what add_binding and
// `open` throw; kInternal if what was sealed does not open the volume (the old binding is as it
// was, the new one gone).
// Where the metadata of LUKS2 has no room for both tokens, one commit puts the new one in the place
// of the old, after `open` has opened it; the old keyslot's material goes when the new one has
// opened the volume.
bool rebind(luks::HeaderFile& file, const luks::Unlocked& key, int keyslot, const Sealer& seal,
            const Opener& open, const RebindOptions& options);

// Replaces the sealed form of a binding, same keyslot and passphrase: for top_up(). One write.
void replace_sealed(luks::HeaderFile& file, const Binding& binding, const Jwe& jwe);

}  // namespace lukskeep::nbde
