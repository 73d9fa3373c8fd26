// keystore init, rewrap, store, get, list, show, delete.
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/key_manager_args.h"
#include "cli/keystore_view.h"
#include "cli/units.h"
#include "crypto/kdf.h"
#include "crypto/random.h"
#include "keys/file_key_manager.h"
#include "keys/key_source.h"
#include "storage/file_device.h"
#include "storage/folders.h"

namespace lukskeep::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kNewKeyBytes = 32;
constexpr std::uint32_t kIterTimeMs = 1000;
constexpr std::uint32_t kMemoryKib = 256 * 1024;

// --wrapping-key, --passphrase and what guessing it costs.
struct WrappingArgs {
  std::string source;
  bool passphrase = false;
  std::optional<std::uint32_t> iterations;
  std::optional<std::uint32_t> memory_kib;
  std::optional<std::uint32_t> parallel;

  void declare(Options& options) {
    options.add({.name = "--wrapping-key",
                 .value = "SOURCE",
                 .help = "the key that opens the keystore: file:PATH, keyring:NAME, prompt: "
                         "(default: a file that is made here)"},
                source);
    options.flag({.name = "--passphrase",
                  .help = "its bytes are a passphrase: make guessing it dear (Argon2id)"},
                 passphrase);
    options.add({.name = "--pbkdf-iterations",
                 .value = "N",
                 .help = "exactly this time cost for the passphrase, nothing measured"},
                iterations);
    options.add({.name = "--pbkdf-memory",
                 .value = "SIZE",
                 .help = "memory for that, in KiB or with unit (default up to 256MiB)"},
                [this](const std::string& value) { memory_kib = parse_memory_kib(value); });
    options.add({.name = "--pbkdf-parallel", .value = "N", .help = "lanes for that"}, parallel);
  }

  crypto::KdfCost cost(const Session& session) const {
    if (!iterations) {
      return crypto::calibrate({.type = crypto::KdfType::kArgon2id,
                                .output_bytes = kNewKeyBytes,
                                .target = std::chrono::milliseconds(kIterTimeMs),
                                .memory_kib_max = memory_kib.value_or(kMemoryKib),
                                .parallel_max = parallel.value_or(4)},
                               session.cancel);
    }
    return {.type = crypto::KdfType::kArgon2id,
            .hash = {},
            .iterations = *iterations,
            .memory_kib = memory_kib.value_or(crypto::cap_memory_kib(kMemoryKib)),
            .parallel = parallel.value_or(1)};
  }

  // Of `source`, which must be there again when the keystore is opened.
  keys::WrappingKey read(const Session& session) const {
    keys::KeySource parsed = keys::parse_key_source(source);
    using Kind = keys::KeySource::Kind;
    const bool typed = parsed.kind == Kind::kPrompt;
    const bool passing =
        parsed.kind == Kind::kFd || (parsed.kind == Kind::kFile && parsed.path == "-");
    if (parsed.kind == Kind::kManager || parsed.kind == Kind::kVolumeKey ||
        (passing && !passphrase)) {
      throw Error(Code::kUsage,
                  fmt::format("'{}' cannot open a keystore later", printable(source, 256)),
                  "file:PATH, keyring:NAME, prompt:, or add --passphrase");
    }
    keys::WrappingKey key;
    key.bytes = keys::read_key(parsed, {.text = "new passphrase of the keystore", .confirm = true},
                               terminal_prompter(session), session.cancel);
    if (passing && as_string_view(key.bytes.span()).find('\n') != std::string_view::npos) {
      throw Error(
          Code::kInvalidArgument,
          fmt::format("the passphrase from '{}' holds a newline, which nobody can type when "
                      "the keystore asks for it",
                      printable(source, 256)),
          "pass it without one, as printf %s does");
    }
    if (parsed.kind == Kind::kFile && !passing) {
      parsed.path = fs::absolute(parsed.path).lexically_normal().string();
    }
    key.source = passing ? "prompt:" : keys::to_string(parsed);
    if (typed || passphrase) key.cost = cost(session);
    return key;
  }
};

// A random key at the default place. What is there already is taken: it opens another keystore.
void make_default_key(const std::string& path) {
  std::error_code error;
  if (fs::exists(path, error)) return;
  storage::make_private_folder(fs::path(path).parent_path().string());
  storage::PendingFile file(path, kNewKeyBytes, false);
  file.device().write(0, crypto::random_secret(kNewKeyBytes).span());
  file.commit();
}

class KeystoreInit final : public Command {
 public:
  void declare(Options& options) override { wrapping_.declare(options); }

  void run(const Session& session) override {
    const std::string path = keystore_path(session);
    std::error_code error;
    if (fs::exists(fs::symlink_status(path, error))) {
      throw Error(Code::kExists, fmt::format("'{}' is there already", printable(path, 256)));
    }
    const std::string own_key = wrapping_.source.empty() ? default_wrapping_key() : "";
    if (!own_key.empty()) {
      wrapping_.source = keys::to_string({.kind = keys::KeySource::Kind::kFile, .path = own_key});
    }
    if (!session.dry_run) create(session, path, own_key);
    std::string text = fmt::format("{} the keystore '{}', which '{}' opens",
                                   session.dry_run ? "would make" : "made", printable(path, 256),
                                   printable(wrapping_.source, 256));
    if (!own_key.empty()) text += ": keep a copy of both, in different places";
    report(session, {{"keystore", path}, {"wrapping_key", wrapping_.source}}, text);
  }

 private:
  void create(const Session& session, const std::string& path, const std::string& own_key) const {
    // It stays whatever happens: another keystore may be sealed with it by then.
    if (!own_key.empty()) make_default_key(own_key);
    storage::make_private_folder(fs::path(path).parent_path().string());
    keys::FileKeyManager::create(path, wrapping_.read(session), session.cancel);
  }

  WrappingArgs wrapping_;
};

class KeystoreRewrap final : public Command {
 public:
  void declare(Options& options) override { wrapping_.declare(options); }

  void run(const Session& session) override {
    if (wrapping_.source.empty()) {
      throw Error(Code::kUsage, "no new key is named",
                  "--wrapping-key file:PATH, keyring:NAME or prompt:");
    }
    const std::string path = keystore_path(session);
    keys::FileKeyManager manager(
        path, [&](const keys::WrappingInfo& info) { return read_wrapping_key(session, info); },
        session.cancel);
    const keys::WrappingKey key = wrapping_.read(session);
    const std::size_t count = session.dry_run ? manager.list({}).size() : manager.rewrap(key);
    report(session, {{"keystore", path}, {"wrapping_key", key.source}, {"secrets", count}},
           fmt::format("{} {} secret{} of '{}' anew; '{}' opens it",
                       session.dry_run ? "would seal" : "sealed", count, count == 1 ? "" : "s",
                       printable(path, 256), printable(key.source, 256)));
  }

 private:
  WrappingArgs wrapping_;
};

// "a=1,b=2".
keys::Metadata parse_metadata(std::string_view text) {
  keys::Metadata metadata;
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos) {
      throw Error(Code::kUsage, fmt::format("'{}' is not NAME=VALUE", printable(pair)));
    }
    metadata[std::string(pair.substr(0, equals))] = pair.substr(equals + 1);
  }
  keys::check_metadata(metadata);
  return metadata;
}

class KeystoreStore final : public Command {
 public:
  void declare(Options& options) override {
    options.add({.name = "--name", .value = "NAME", .help = "what it is called"}, name_);
    options.add(
        {.name = "--type",
         .value = "TYPE",
         .help = "what kind of secret it is (default passphrase)",
         .choices = {"symmetric", "passphrase", "opaque", "public", "private", "certificate"}},
        type_);
    options.add({.name = "--secret",
                 .value = "SOURCE",
                 .help = "the secret: file:PATH, fd:N, prompt: (default: standard input)"},
                secret_);
    options.add({.name = "--generate",
                 .value = "BITS",
                 .help = "have the key manager make a symmetric key of so many bits"},
                generate_);
    options.add({.name = "--algorithm", .value = "NAME", .help = "what it is a key for: aes"},
                algorithm_);
    options.add({.name = "--bits", .value = "N", .help = "its length in bits, as a remark"}, bits_);
    options.add({.name = "--mode", .value = "NAME", .help = "the cipher mode: xts"}, mode_);
    options.add({.name = "--expires",
                 .value = "TIME",
                 .help = "when it ceases to be valid: 2027-01-31T00:00:00Z"},
                [this](const std::string& value) {
                  expires_s_ = keys::parse_time(value);
                  if (!expires_s_) {
                    throw Error(Code::kUsage, fmt::format("'{}' is no time", printable(value)),
                                "as in 2027-01-31T00:00:00Z");
                  }
                });
    options.add({.name = "--metadata",
                 .value = "LIST",
                 .help = "words about it: NAME=VALUE with commas between"},
                [this](const std::string& value) { metadata_ = parse_metadata(value); });
    options.add(
        {.name = "--consumer", .value = "CONSUMER", .help = "what uses it, as SERVICE/TYPE/ID"},
        [this](const std::string& value) { consumer_ = keys::parse_consumer(value); });
  }

  void run(const Session& session) override {
    keys::SecretInfo info{.id = {}, .name = name_, .type = keys::parse_secret_type(type_)};
    info.algorithm = algorithm_;
    info.bit_length = bits_;
    info.mode = mode_;
    info.expires_s = expires_s_;
    if (generate_) {
      if (!secret_.empty())
        throw Error(Code::kUsage, "--generate and --secret contradict each other");
      info.type = keys::SecretType::kSymmetric;
      info.bit_length = generate_;
    } else if (info.type == keys::SecretType::kPassphrase) {
      info.content_type = "text/plain";
    }
    const auto manager = open_key_manager(session);
    const SecretBytes payload = generate_ ? SecretBytes() : read_secret(session);
    if (!generate_) keys::check_new_secret(info, payload.span(), metadata_);
    if (!session.dry_run) info.id = put(*manager, info, payload);
    if (session.json || session.dry_run) {
      OrderedJson json = secret_json(info);
      json.erase("created");
      if (session.dry_run) json["id"] = nullptr;
      return report(session, std::move(json),
                    fmt::format("would store a secret in {}", manager->description()));
    }
    print(info.id + "\n");
  }

 private:
  SecretBytes read_secret(const Session& session) const {
    const bool typed = secret_.empty() && isatty(STDIN_FILENO) == 1;
    const std::string source = !secret_.empty() ? secret_ : typed ? "prompt:" : "file:-";
    return keys::read_key(keys::parse_key_source(source), {.text = "new secret", .confirm = true},
                          terminal_prompter(session), session.cancel);
  }

  std::string put(keys::KeyManager& manager, const keys::SecretInfo& info,
                  const SecretBytes& payload) const {
    std::string id = generate_
                         ? manager.order({.name = info.name,
                                          .algorithm = algorithm_.empty() ? "aes" : algorithm_,
                                          .bit_length = *generate_,
                                          .mode = mode_,
                                          .expires_s = expires_s_})
                         : manager.store(info, payload.span(), metadata_);
    try {
      if (generate_ && !metadata_.empty()) manager.set_metadata(id, metadata_);
      if (consumer_) manager.add_consumer(id, *consumer_);
    } catch (const Error& error) {
      undo(manager, id, error);
    }
    return id;
  }

  [[noreturn]] static void undo(keys::KeyManager& manager, const std::string& id,
                                const Error& reason) {
    try {
      manager.remove(id, true);
    } catch (const Error& error) {
      throw Error(reason.code(), reason.message(),
                  fmt::format("secret '{}' was stored and could not be removed again ({})",
                              printable(id, 128), error.message()));
    }
    throw Error(reason.code(), reason.message(), reason.hint());
  }

  std::string name_;
  std::string type_ = "passphrase";
  std::string secret_;
  std::optional<std::uint32_t> generate_;
  std::string algorithm_;
  std::optional<std::uint32_t> bits_;
  std::string mode_;
  std::optional<std::int64_t> expires_s_;
  keys::Metadata metadata_;
  std::optional<keys::Consumer> consumer_;
};

class KeystoreGet final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "ID", .help = "the secret"}, id_);
    options.add(
        {.name = "--to",
         .value = "FILE",
         .help = "write it to a new file that only you may read (default: standard output)"},
        to_);
    options.add({.name = "--encoding",
                 .value = "NAME",
                 .help = "write the passphrase that it stands for: plain, hex, base64 …",
                 .choices = {"plain", "hex", "base64", "no-newline", "from-base64", "from-hex"}},
                encoding_);
  }

  void run(const Session& session) override {
    if (to_.empty() && session.json) {
      throw Error(Code::kUsage, "--json and the secret both want standard output",
                  "--to FILE, or 'lukskeep keystore show' for what is known of it");
    }
    if (to_.empty() && isatty(STDOUT_FILENO) == 1) {
      throw Error(Code::kUsage, "refusing to write a secret to the terminal",
                  "--to FILE, or send standard output into another program");
    }
    keys::Secret secret = open_key_manager(session)->get(id_);
    if (const auto encoding = keys::parse_encoding(encoding_)) {
      auto applied = keys::apply_encoding(*encoding, secret.payload.span());
      if (!applied) {
        throw Error(Code::kInvalidArgument, fmt::format("the bytes of secret '{}' do not fit {}",
                                                        printable(id_, 128), encoding_));
      }
      secret.payload = std::move(*applied);
    }
    if (to_.empty()) return print(as_string_view(secret.payload.span()));
    storage::PendingFile file(to_, secret.payload.size(), false);
    file.device().write(0, secret.payload.span());
    file.commit();
    OrderedJson json = secret_json(secret.info);
    json["to"] = to_;
    json["size"] = secret.payload.size();
    if (session.json) return print_json(json);
    if (!session.quiet) {
      print(fmt::format("wrote the {} to '{}'\n", secret_words(secret.info), printable(to_, 256)));
    }
  }

 private:
  std::string id_;
  std::string to_;
  std::string encoding_;
};

class KeystoreList final : public Command {
 public:
  void declare(Options& options) override {
    options.add({.name = "--name", .value = "NAME", .help = "only those of this name"}, name_);
  }

  void run(const Session& session) override {
    const auto manager = open_key_manager(session);
    OrderedJson json = OrderedJson::array();
    std::string text;
    for (const keys::SecretInfo& info : manager->list(name_)) {
      if (session.json) {
        json.push_back(secret_json(info));
      } else {
        text += secret_line(info);
      }
    }
    show(session, {{"key_manager", manager->description()}, {"secrets", std::move(json)}},
         text.empty() ? "no secrets\n" : text);
  }

 private:
  std::string name_;
};

keys::SecretInfo find_secret(keys::KeyManager& manager, const std::string& id) {
  auto info = manager.find(id);
  if (!info) {
    throw Error(Code::kNotFound,
                fmt::format("{} has no secret '{}'", manager.description(), printable(id, 128)));
  }
  return *std::move(info);
}

class KeystoreShow final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "ID", .help = "the secret"}, id_);
  }

  void run(const Session& session) override {
    const auto manager = open_key_manager(session);
    const keys::SecretInfo info = find_secret(*manager, id_);
    OrderedJson json = secret_json(info);
    const keys::Metadata metadata = manager->metadata(id_);
    const auto consumers = manager->consumers(id_);
    json["metadata"] = metadata;
    json["consumers"] = consumers_json(consumers);
    std::string text;
    for (const auto& [name, value] : json.items()) {
      if (value.is_structured() || value.is_null()) continue;
      text +=
          fmt::format("{:<14}{}\n", name,
                      printable(value.is_string() ? value.get<std::string>() : value.dump(), 300));
    }
    for (const auto& [name, value] : metadata) {
      text += fmt::format("metadata      {}={}\n", printable(name, 300), printable(value, 300));
    }
    for (const keys::Consumer& consumer : consumers) {
      text += fmt::format("consumer      {}\n", printable(keys::to_string(consumer), 300));
    }
    show(session, json, text);
  }

 private:
  std::string id_;
};

class KeystoreDelete final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "ID", .help = "the secret"}, id_);
    options.flag({.name = "--used-too", .help = "also if it has consumers"}, used_too_);
  }

  void run(const Session& session) override {
    const auto manager = open_key_manager(session);
    const keys::SecretInfo info = find_secret(*manager, id_);
    const std::string words = secret_words(info);
    const auto consumers = manager->consumers(id_);
    if (used_too_ && !consumers.empty()) {
      confirm(session,
              fmt::format("The {} has {} consumer(s). What they encrypt with it will be lost.",
                          words, consumers.size()),
              Error(Code::kUnsafe, fmt::format("the {} is used", words)));
    }
    if (!session.dry_run) {
      manager->remove(id_, used_too_);
    } else if (!used_too_ && !consumers.empty()) {
      throw Error(Code::kUnsafe,
                  fmt::format("the {} is used by {} consumer(s)", words, consumers.size()));
    }
    report(session, {{"id", info.id}, {"consumers", consumers_json(consumers)}},
           fmt::format("{} the {}", session.dry_run ? "would delete" : "deleted", words));
  }

 private:
  std::string id_;
  bool used_too_ = false;
};

}  // namespace

std::unique_ptr<Command> make_keystore_init() { return std::make_unique<KeystoreInit>(); }
std::unique_ptr<Command> make_keystore_rewrap() { return std::make_unique<KeystoreRewrap>(); }
std::unique_ptr<Command> make_keystore_store() { return std::make_unique<KeystoreStore>(); }
std::unique_ptr<Command> make_keystore_get() { return std::make_unique<KeystoreGet>(); }
std::unique_ptr<Command> make_keystore_list() { return std::make_unique<KeystoreList>(); }
std::unique_ptr<Command> make_keystore_show() { return std::make_unique<KeystoreShow>(); }
std::unique_ptr<Command> make_keystore_delete() { return std::make_unique<KeystoreDelete>(); }

}  // namespace lukskeep::cli
