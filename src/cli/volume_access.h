// Opening the volumes that commands name, and their headers and keys.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lukskeep/device.h>
#include <lukskeep/secret_bytes.h>

#include "cli/options.h"
#include "cli/policy_args.h"
#include "cli/session.h"
#include "crypto/kdf.h"
#include "luks/header_file.h"
#include "luks/keyslots.h"
#include "storage/location.h"

namespace lukskeep::cli {

// --header FILE.
void declare_header(Options& options, std::string& header);

// VOLUME, --header and --policy.
struct VolumeArgs {
  std::string volume;
  std::string header;
  PolicyArgs policy;

  // `policy_name`: see PolicyArgs.
  void declare(Options& options, std::string_view policy_name = "--policy");
  // Where the header is: --header if given, else the volume itself.
  const std::string& header_path() const { return header.empty() ? volume : header; }
};

// --key, --kdf-limit, --allow-insecure.
struct KeyArgs {
  std::string key = "prompt:";
  crypto::KdfLimit kdf_limit;
  bool allow_insecure = false;

  void declare(Options& options);
  // Without --key, for a command that describes it in its own way.
  void declare_limits(Options& options);
  luks::UnlockOptions unlock_options(const Session& session) const;
};

void declare_allow_insecure(Options& options, bool& allow_insecure);
// --kdf-limit; it holds for encrypted backing files too.
void declare_kdf_limit(Options& options, crypto::KdfLimit& limit);
// Says loudly on standard error what --allow-insecure gives up, if it is given.
void warn_if_insecure(bool allow_insecure);

// Which files may be read that not the user but an image names: --allow-backing, --backing-key and
// --allow-data-file, for all that this process opens.
struct NamedFiles {
  bool backing = false;
  std::vector<std::string> backing_keys;  // of encrypted ones, from the top; see backing_keys.h
  storage::OpenEncrypted open_encrypted;  // with these; set where there are any
  crypto::KdfLimit kdf_limit;             // of encrypted backing files
  bool encrypted_backing = false;         // whether one has been opened
  bool data_file = false;
};
NamedFiles& allowed_named_files() noexcept;
// `options` with what they say.
storage::OpenOptions with_named_files(storage::OpenOptions options);

// How commands open volumes: with the files that may be read, until a signal.
storage::OpenOptions open_options(storage::Access access, bool lock = true, bool direct = false);
// A volume or header by path or URI (storage/location.h). Throws what storage::open_location
// throws; a signal ends the waiting for a server.
std::shared_ptr<Device> open_device(const std::string& path, storage::Access access,
                                    bool direct = false);
// The same for reading, without a lock.
std::shared_ptr<Device> open_to_look(const std::string& path);
// The same for who has to do with the header only: a payload that follows it in the same file is
// not locked, so that keys can be changed while the volume is served.
// A block device that somebody else holds is busy for writing; `live`: not if that is dm-crypt, nor
// if the device starts as a volume does and nothing that sysfs tells of has it.
std::shared_ptr<Device> open_header_device(const std::string& path, storage::Access access,
                                           bool live = false);

// Opens the header and holds it to --policy: throws Error{kUnsafe} if that does not allow it.
luks::HeaderFile open_header(const VolumeArgs& args);
// For who judges it by itself.
luks::HeaderFile open_header_unjudged(const VolumeArgs& args);

// As open_header, whoever uses the volume or is changing its header: for who reads the header once
// and locks the payload.
luks::HeaderFile open_header_unlocked(const VolumeArgs& args);

// As open_header, for a command that changes the header. With --dry-run the result is a copy in
// memory, so that the command does all it does and nothing reaches the storage. `live`: also while
// the volume is in use (see open_header_device), for who changes no more than what the header says
// beside the payload's place and cipher.
luks::HeaderFile open_header_for_change(const Session& session, const VolumeArgs& args,
                                        bool live = false);

// Calls remove(session.yes). If that throws kLastKeyslot, whoever types is asked, and a yes calls
// remove(true).
void remove_even_last(const Session& session, const std::string& volume, int keyslot,
                      const std::function<void(bool allow_last)>& remove);

// For a command that is about to put a new header at `path`: the archive keeps the one that is
// there, if any, and gives the snapshot's ID.
std::optional<std::string> keep_header(const Session& session, const std::string& path);

struct OpenedVolume {
  luks::Unlocked unlocked;
  SecretBytes passphrase;  // empty if the volume key was given
};

// Reads the key (three attempts at a prompt) and opens a keyslot with it, of `options.keyslot` if
// that is set. Throws Error{kWrongPassphrase}.
OpenedVolume unlock_volume(const Session& session, const luks::HeaderFile& file,
                           const KeyArgs& args, const luks::UnlockOptions& options);

// The passphrase that a new keyslot gets: asked for twice at a prompt. Volume keys are refused.
SecretBytes read_new_passphrase(const Session& session, const std::string& source,
                                const std::string& volume);

}  // namespace lukskeep::cli
