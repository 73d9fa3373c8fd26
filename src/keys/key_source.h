// Where a passphrase or key comes from: one URI syntax in every command.
//
//   file:PATH[,offset=N][,size=N]   the file's bytes, all of them; '-' is standard input
//   fd:N                            the rest of an open descriptor
//   prompt:                         a line from the terminal, without its newline
//   volume-key:PATH[,offset=N][,size=N]  the volume key itself, not a passphrase
//   mapping:NAME                    the volume key of the running dm-crypt mapping /dev/mapper/NAME
//   keyring:NAME                    a key of type "user" in the kernel's keyrings
//   manager:ID                      a secret of the configured key manager
//   binding:                        a binding in the volume's own header
//
// A comma or percent sign in PATH is written %2C or %25; other %XX are decoded too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <lukskeep/progress.h>
#include <lukskeep/secret_bytes.h>

namespace lukskeep::keys {

struct KeySource {
  enum class Kind : std::uint8_t {
    kFile,
    kFd,
    kPrompt,
    kVolumeKey,
    kMapping,
    kKeyring,
    kManager,
    kBinding
  };
  Kind kind = Kind::kPrompt;
  std::string path;  // of kMapping and kKeyring the name, of kManager the ID
  int fd = -1;
  std::uint64_t offset_bytes = 0;
  std::optional<std::uint64_t> size_bytes;

  bool operator==(const KeySource&) const = default;
};

// Whether it gives a volume key, not a passphrase.
bool is_volume_key(const KeySource& source) noexcept;

// Throws Error{kUsage} naming the part that is wrong; kUnsupported for reserved schemes.
KeySource parse_key_source(std::string_view uri);

// The URI that parses to `source`.
std::string to_string(const KeySource& source);

struct PromptRequest {
  std::string text;      // e.g. "passphrase for 'disk.luks'"
  bool confirm = false;  // a new passphrase: ask twice and compare
};
// Supplied by the program that has a terminal. Throws Error{kInterrupted, kUsage}.
using Prompter = std::function<SecretBytes(const PromptRequest&)>;

// Reads the bytes. Waits for a pipe or another program as long as it takes, and looks at `cancel`
// (may be null) meanwhile. Throws Error: kNotFound, kPermissionDenied, kIo, kInterrupted,
// kInvalidArgument (empty, larger than limits::kPassphraseBytesMax, shorter than offset + size),
// kUsage for manager: (its secrets come from keys/key_manager.h) and binding: (which needs the
// volume), and what storage::read_mapping_key throws.
SecretBytes read_key(const KeySource& source, const PromptRequest& request,
                     const Prompter& prompter, const CancelToken* cancel = nullptr);

}  // namespace lukskeep::keys
