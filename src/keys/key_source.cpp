#include "keys/key_source.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "keys/keyring.h"
#include "storage/mapping_key.h"
#include "storage/request.h"

namespace lukskeep::keys {
namespace {

constexpr std::string_view kSyntaxHint =
    "a key source is file:PATH[,offset=N][,size=N], fd:N, prompt:, volume-key:PATH, mapping:NAME, "
    "keyring:NAME, manager:ID or binding:";
constexpr std::size_t kReadStepBytes = 64 * limits::kKiB;
constexpr int kCancelPollMs = 100;

[[noreturn]] void bad_source(std::string message) {
  throw Error(Code::kUsage, std::move(message), std::string(kSyntaxHint));
}

template <typename T>
std::optional<T> parse_decimal(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return {};
  return value;
}

std::string decode_path(std::string_view text, std::string_view uri) {
  std::string path;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      path += text[i];
      continue;
    }
    const std::string_view digits = text.substr(i + 1, 2);
    std::uint8_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc() || digits.size() != 2 || end != digits.data() + 2) {
      bad_source(
          fmt::format("key source '{}': '%' must be followed by two hex digits", printable(uri)));
    }
    path += static_cast<char>(value);
    i += 2;
  }
  if (path.empty()) bad_source(fmt::format("key source '{}' names no file", printable(uri)));
  if (path.find('\0') != std::string::npos) {
    bad_source(fmt::format("key source '{}': a path cannot hold a zero byte", printable(uri)));
  }
  return path;
}

std::string encode_path(std::string_view path) {
  std::string text;
  for (const char c : path) {
    if (c == ',' || c == '%') {
      text += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    } else {
      text += c;
    }
  }
  return text;
}

void parse_file_options(std::string_view options, std::string_view uri, KeySource& source) {
  bool have_offset = false;
  while (!options.empty()) {
    options.remove_prefix(1);  // the comma
    const std::string_view option = options.substr(0, options.find(','));
    options.remove_prefix(option.size());
    const std::string_view name = option.substr(0, option.find('='));
    if ((name != "offset" && name != "size") || name.size() == option.size()) {
      bad_source(fmt::format("key source '{}': '{}' is neither offset=N nor size=N", printable(uri),
                             printable(option)));
    }
    const auto number = parse_decimal<std::uint64_t>(option.substr(name.size() + 1));
    if (!number) {
      bad_source(fmt::format("key source '{}': '{}' is not a number of bytes", printable(uri),
                             printable(option.substr(name.size() + 1))));
    }
    if (name == "offset" ? std::exchange(have_offset, true) : source.size_bytes.has_value()) {
      bad_source(fmt::format("key source '{}': {} is given twice", printable(uri), name));
    }
    if (name == "offset") {
      source.offset_bytes = *number;
    } else {
      source.size_bytes = number;
    }
  }
}

KeySource parse_file_source(KeySource::Kind kind, std::string_view rest, std::string_view uri) {
  KeySource source;
  source.kind = kind;
  const std::string_view path = rest.substr(0, rest.find(','));
  source.path = decode_path(path, uri);
  parse_file_options(rest.substr(path.size()), uri, source);
  if (source.size_bytes == 0) {
    bad_source(fmt::format("key source '{}': a size of 0 leaves no key", printable(uri)));
  }
  return source;
}

// A descriptor that is closed at the end if it was opened here.
class Input {
 public:
  explicit Input(const KeySource& source) {
    if (source.kind == KeySource::Kind::kFd) {
      fd_ = source.fd;
      name_ = fmt::format("descriptor {}", source.fd);
    } else if (source.path == "-") {
      fd_ = STDIN_FILENO;
      name_ = "standard input";
    } else {
      name_ = fmt::format("'{}'", printable(source.path, 256));
      fd_ = open(source.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
      if (fd_ < 0) storage::throw_errno(errno, fmt::format("cannot open key file {}", name_));
      owned_ = true;
    }
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;
  ~Input() {
    if (owned_) close(fd_);
  }

  const std::string& name() const noexcept { return name_; }

  bool seek_forward(std::uint64_t offset_bytes) const {
    struct stat status{};
    if (fstat(fd_, &status) != 0 || (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))) {
      return false;
    }
    return std::in_range<off_t>(offset_bytes) &&
           lseek(fd_, static_cast<off_t>(offset_bytes), SEEK_CUR) >= 0;
  }

  // At most out.size() bytes, 0 at the end.
  std::size_t read_some(MutableBytes out, const CancelToken* cancel) const {
    while (true) {
      if (cancel != nullptr) cancel->check();
      // A signal that arrives just before a blocking read would go unnoticed: hence the time-out.
      pollfd waiting{.fd = fd_, .events = POLLIN, .revents = 0};
      const int ready = poll(&waiting, 1, kCancelPollMs);
      if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
      const ssize_t got = ::read(fd_, out.data(), out.size());
      if (got >= 0) return static_cast<std::size_t>(got);
      if (errno != EINTR && errno != EAGAIN) {
        storage::throw_errno(errno, fmt::format("cannot read the key from {}", name_));
      }
    }
  }

 private:
  int fd_ = -1;
  bool owned_ = false;
  std::string name_;
};

// Pipes cannot seek: there, what comes before the offset is read and thrown away.
void skip(const Input& input, std::uint64_t offset_bytes, const CancelToken* cancel) {
  if (input.seek_forward(offset_bytes)) return;
  SecretBytes discarded(std::min<std::uint64_t>(offset_bytes, kReadStepBytes));
  while (offset_bytes > 0) {
    const std::size_t step = std::min<std::uint64_t>(offset_bytes, discarded.size());
    const std::size_t got = input.read_some(discarded.span().first(step), cancel);
    if (got == 0) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("key in {} ends before its offset", input.name()));
    }
    offset_bytes -= got;
  }
}

// Reads up to `size_max` bytes, growing the buffer as they come.
SecretBytes read_up_to(const Input& input, std::size_t size_max, const CancelToken* cancel) {
  SecretBytes bytes(std::min(size_max, kReadStepBytes));
  std::size_t have = 0;
  while (have < size_max) {
    if (have == bytes.size()) {
      SecretBytes larger(std::min(size_max, bytes.size() * 2));
      std::memcpy(larger.data(), bytes.data(), have);
      bytes = std::move(larger);
    }
    const std::size_t got = input.read_some(bytes.span().subspan(have), cancel);
    if (got == 0) break;
    have += got;
  }
  bytes.truncate(have);
  return bytes;
}

SecretBytes read_input(const KeySource& source, const CancelToken* cancel) {
  const std::uint64_t size_max = source.size_bytes.value_or(limits::kPassphraseBytesMax + 1);
  if (source.size_bytes && size_max > limits::kPassphraseBytesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a key of {} bytes is too large: at most {} are allowed", size_max,
                            limits::kPassphraseBytesMax));
  }
  const Input input(source);
  skip(input, source.offset_bytes, cancel);
  SecretBytes key = read_up_to(input, size_max, cancel);
  if (source.size_bytes && key.size() < *source.size_bytes) {
    throw Error(Code::kInvalidArgument, fmt::format("key in {} has {} bytes, {} are wanted",
                                                    input.name(), key.size(), *source.size_bytes));
  }
  if (key.empty()) {
    throw Error(Code::kInvalidArgument,
                source.offset_bytes == 0
                    ? fmt::format("key in {} is empty", input.name())
                    : fmt::format("key in {} ends before its offset", input.name()));
  }
  if (key.size() > limits::kPassphraseBytesMax) {
    throw Error(
        Code::kInvalidArgument,
        fmt::format("key in {} is larger than {} bytes", input.name(), limits::kPassphraseBytesMax),
        "name a part of it with ,size=N");
  }
  return key;
}

}  // namespace

bool is_volume_key(const KeySource& source) noexcept {
  return source.kind == KeySource::Kind::kVolumeKey || source.kind == KeySource::Kind::kMapping;
}

KeySource parse_key_source(std::string_view uri) {
  const std::size_t colon = uri.find(':');
  if (colon == std::string_view::npos) {
    throw Error(Code::kUsage, fmt::format("key source '{}' has no scheme", printable(uri)),
                fmt::format("for a file write file:{}", printable(uri)));
  }
  const std::string_view scheme = uri.substr(0, colon);
  const std::string_view rest = uri.substr(colon + 1);
  if (scheme == "file") return parse_file_source(KeySource::Kind::kFile, rest, uri);
  if (scheme == "volume-key") return parse_file_source(KeySource::Kind::kVolumeKey, rest, uri);
  if (scheme == "mapping") {
    KeySource source;
    source.kind = KeySource::Kind::kMapping;
    source.path = decode_path(rest, uri);
    return source;
  }
  if (scheme == "prompt" || scheme == "binding") {
    if (!rest.empty()) {
      bad_source(fmt::format("key source '{}': nothing may follow '{}:'", printable(uri), scheme));
    }
    KeySource source;
    if (scheme == "binding") source.kind = KeySource::Kind::kBinding;
    return source;
  }
  if (scheme == "fd") {
    const auto fd = parse_decimal<int>(rest);
    if (!fd || *fd < 0) {
      bad_source(fmt::format("key source '{}': '{}' is not a descriptor number", printable(uri),
                             printable(rest)));
    }
    KeySource source;
    source.kind = KeySource::Kind::kFd;
    source.fd = *fd;
    return source;
  }
  if (scheme == "keyring" || scheme == "manager") {
    if (rest.empty() || rest.find('\0') != std::string_view::npos) {
      bad_source(fmt::format("key source '{}' names nothing", printable(uri)));
    }
    KeySource source;
    source.kind = scheme == "keyring" ? KeySource::Kind::kKeyring : KeySource::Kind::kManager;
    source.path = rest;
    return source;
  }
  bad_source(
      fmt::format("key source '{}': unknown scheme '{}'", printable(uri), printable(scheme)));
}

std::string to_string(const KeySource& source) {
  switch (source.kind) {
    case KeySource::Kind::kPrompt:
      return "prompt:";
    case KeySource::Kind::kBinding:
      return "binding:";
    case KeySource::Kind::kFd:
      return fmt::format("fd:{}", source.fd);
    case KeySource::Kind::kMapping:
      return "mapping:" + encode_path(source.path);
    case KeySource::Kind::kKeyring:
      return fmt::format("keyring:{}", source.path);
    case KeySource::Kind::kManager:
      return fmt::format("manager:{}", source.path);
    case KeySource::Kind::kFile:
    case KeySource::Kind::kVolumeKey:
      break;
  }
  std::string uri = source.kind == KeySource::Kind::kFile ? "file:" : "volume-key:";
  uri += encode_path(source.path);
  if (source.offset_bytes != 0) uri += fmt::format(",offset={}", source.offset_bytes);
  if (source.size_bytes) uri += fmt::format(",size={}", *source.size_bytes);
  return uri;
}

SecretBytes read_key(const KeySource& source, const PromptRequest& request,
                     const Prompter& prompter, const CancelToken* cancel) {
  if (source.kind == KeySource::Kind::kMapping) return storage::read_mapping_key(source.path);
  if (source.kind == KeySource::Kind::kKeyring) {
    SecretBytes key = read_keyring(source.path);
    if (key.empty())
      throw Error(Code::kInvalidArgument, "the key of the kernel's keyring is empty");
    return key;
  }
  if (source.kind == KeySource::Kind::kManager) {
    throw Error(Code::kUsage, fmt::format("a secret of a key manager ('{}') cannot be used here",
                                          printable(source.path)));
  }
  if (source.kind == KeySource::Kind::kBinding) {
    throw Error(Code::kUsage, "only a volume that is there has a binding: to take a key from");
  }
  if (source.kind != KeySource::Kind::kPrompt) return read_input(source, cancel);
  if (!prompter) throw Error(Code::kUsage, "there is nobody to ask for a passphrase");
  SecretBytes line = prompter(request);
  if (line.empty()) throw Error(Code::kInvalidArgument, "the passphrase is empty");
  return line;
}

}  // namespace lukskeep::keys
