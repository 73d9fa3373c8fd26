// Where a passphrase or key comes from: one URI syntax in every command.
//
//   file:PATH[,offset=N][,size=N]   the file's bytes, all of them; '-' is standard input
//   fd:N                            the rest of an open descriptor
//   prompt:                         a line from the terminal, without its newline
//   volume-key:PATH[,offset=N][,size=N]  the volume key itself, not a passphrase
//   binding:                        a binding in the volume's own header
//
// A comma or percent sign in PATH is written %2C or %25; other %XX are decoded too. A later kind
// (manager:) has its scheme reserved here.
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
  enum class Kind : std::uint8_t { kFile, kFd, kPrompt, kVolumeKey, kBinding };
  Kind kind = Kind::kPrompt;
  std::string path;
  int fd = -1;
  std::uint64_t offset_bytes = 0;
  std::optional<std::uint64_t> size_bytes;

  bool operator==(const KeySource&) const = default;
};

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
// (may be null) meanwhile. kBinding needs the volume, which is for the caller to ask: here it throws
// kUsage. Throws Error: kNotFound, kPermissionDenied, kIo, kInterrupted,
// kInvalidArgument (empty, larger than limits::kPassphraseBytesMax, shorter than offset + size).
SecretBytes read_key(const KeySource& source, const PromptRequest& request,
                     const Prompter& prompter, const CancelToken* cancel = nullptr);

}  // namespace lukskeep::keys
