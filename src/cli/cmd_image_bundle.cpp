// image export, import: an encrypted image with its key, from one cloud to another.
#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <poll.h>
#include <unistd.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "archive/age.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "cli/archive_args.h"
#include "cli/cmd_image.h"
#include "cli/copy_args.h"
#include "cli/image_properties.h"
#include "cli/image_secret.h"
#include "cli/inspection.h"
#include "cli/key_manager_args.h"
#include "cli/volume_access.h"
#include "image/bundle.h"
#include "image/inspect_device.h"
#include "keys/passphrase_resolver.h"
#include "storage/file_device.h"
#include "storage/partial_file.h"

namespace lukskeep::cli {
namespace {

using image::BundleHead;
using image::BundleManifest;
using image::HeaderFingerprint;
using image::Properties;
using image::Report;

std::string in_quotes(const std::string& name) { return fmt::format("'{}'", printable(name, 256)); }

// An image, opened by the secret that is said to be its key.
struct Opened {
  Report report;
  HeaderFingerprint header;
  bool opens = false;                                // the secret a keyslot, …
  keys::Encoding encoding = keys::Encoding::kPlain;  // … in this way
};

struct OpenArgs {
  KeyArgs keys;
  image::AllowList allow;

  void declare(Options& options) {
    options.add({.name = "--allow", .value = "NAME,...", .help = "findings that are no danger"},
                [this](const std::string& value) { allow = image::parse_allow_list(value); });
    keys.declare_limits(options);
  }

  // Throws Error: kUnsafe, kWrongPassphrase, kInvalidArgument for what is not encrypted.
  Opened open(const Session& session, const std::shared_ptr<Device>& device,
              const std::vector<keys::Candidate>& candidates, const std::string& name) const {
    Opened opened;
    const luks::UnlockOptions options = keys.unlock_options(session);
    const auto unlock = [&](const luks::HeaderFile& file,
                            unsigned layer) -> std::optional<luks::Unlocked> {
      if (layer == 0) opened.header = image::fingerprint_of(file);
      for (const keys::Candidate& candidate : candidates) {
        auto unlocked = luks::unlock(file, candidate.passphrase.span(), options);
        if (!unlocked) continue;
        if (layer == 0) {
          opened.opens = true;
          opened.encoding = candidate.encoding;
        }
        return unlocked;
      }
      return std::nullopt;
    };
    opened.report = image::inspect(device, {.inspector = {.expected = {}, .allow = allow},
                                            .unlock = unlock,
                                            .header = nullptr,
                                            .cancel = session.cancel});
    static_cast<void>(image::describe(opened.report));
    if (opened.report.payload_size_bytes == 0U) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{} has no payload: it is a header alone", name),
                  "name the image that it belongs to");
    }
    const bool looked_at = !opened.header.sha256.empty();
    if (opened.report.safe() ? !opened.opens : looked_at && !opened.opens) {
      throw Error(Code::kWrongPassphrase, fmt::format("the secret does not open {}", name),
                  "find the one that does: lukskeep keystore resolve ID FILE");
    }
    if (!opened.report.safe()) {
      throw Error(Code::kUnsafe,
                  fmt::format("{} is not safe: {}", name, danger_text(opened.report)),
                  "see lukskeep inspect; --allow names what is well nevertheless");
    }
    return opened;
  }
};

class ImageExport final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "FILE", .help = "the encrypted image"}, path_);
    options.positional({.name = "BUNDLE", .help = "to write; - is standard output"}, bundle_);
    options.add({.name = "--key-id", .value = "ID", .help = "the secret that opens the image"},
                key_id_);
    options.add_each({.name = "--recipient",
                      .value = "AGE1…",
                      .help = "who gets the secret, as age-keygen prints it; may be repeated"},
                     recipients_);
    options.add({.name = "--sign-key",
                 .value = "SOURCE",
                 .help = "the Ed25519 key that signs, in PEM: file:PATH, fd:N, manager:ID"},
                sign_key_);
    options.add({.name = "--properties",
                 .value = "SET",
                 .help = "what else is said of the image, in JSON, as 'openstack image show -f "
                         "json' prints it"},
                set_path_);
    open_.declare(options);
    progress_.declare(options);
  }

  void run(const Session& session) override {
    check_arguments(session);
    const auto recipients = parse_recipients();
    const auto signer = crypto::parse_ed25519_private_key(
        read_bytes_of(session, keys::parse_key_source(sign_key_)).span(), "--sign-key");
    const auto manager = open_key_manager(session);
    const keys::Secret secret = manager->get(key_id_);
    keys::Metadata metadata = manager->metadata(key_id_);
    const std::shared_ptr<Device> device = open_device(path_, storage::Access::kRead);
    const Opened opened = open_.open(session, device, keys::passphrase_candidates(secret, metadata),
                                     in_quotes(path_));
    metadata[std::string(keys::kEncodingMetadata)] = keys::encoding_name(opened.encoding);
    BundleManifest manifest = describe(session, opened);
    manifest.secret = secret.info;
    manifest.secret_metadata = std::move(metadata);
    manifest.sealed_secret = archive::age_seal(secret.payload.span(), recipients);
    if (!session.dry_run) write(session, *device, manifest, signer);
    finish(session, manifest, crypto::public_key_of(signer));
  }

 private:
  void check_arguments(const Session& session) const {
    const auto need = [](bool there, std::string_view name, std::string_view hint) {
      if (!there) throw Error(Code::kUsage, fmt::format("{} is missing", name), std::string(hint));
    };
    need(!key_id_.empty(), "--key-id", "lukskeep keystore list names the secrets");
    need(!recipients_.empty(), "--recipient",
         "age-keygen makes a pair on the receiver's side: the recipient is its public side");
    need(!sign_key_.empty(), "--sign-key", "openssl genpkey -algorithm ed25519 -out KEY");
    if (is_pipe(bundle_)) return check_stdout_is_free(session);
    if (kind_of_bundle() != storage::PathKind::kAbsent) {
      throw Error(Code::kExists, fmt::format("{} is already there", in_quotes(bundle_)),
                  "name another file, or remove it first");
    }
  }

  storage::PathKind kind_of_bundle() const { return storage::kind_of(bundle_); }

  std::vector<archive::AgeRecipient> parse_recipients() const {
    std::vector<archive::AgeRecipient> recipients;
    recipients.reserve(recipients_.size());
    for (const std::string& text : recipients_) {
      recipients.push_back(archive::parse_age_recipient(text));
    }
    return recipients;
  }

  // The standard set of the file, and what the sender's cloud says that is not about encryption.
  BundleManifest describe(const Session& session, const Opened& opened) const {
    image::Description description = image::describe(opened.report);
    Properties set;
    if (set_path_) set = read_property_set(session, *set_path_);
    const auto read = image::read_properties(set);
    description.delete_key = read.description.delete_key;
    std::erase_if(set, [](const auto& member) {
      return image::is_image_attribute(member.first) || image::is_encryption_property(member.first);
    });
    set.merge(image::write_properties(description, {}));
    BundleManifest manifest;
    manifest.format = opened.report.format;
    manifest.header = opened.header;
    manifest.properties = std::move(set);
    manifest.created_s = std::time(nullptr);
    return manifest;
  }

  void write(const Session& session, const Device& device, BundleManifest& manifest,
             const crypto::Ed25519PrivateKey& signer) const {
    ProgressDisplay display(progress_, session);
    const image::BundleWork work{.progress = display.callback(), .cancel = session.cancel};
    const auto chunks = image::digest_chunks(device, manifest, work);
    if (is_pipe(bundle_)) {
      return image::write_bundle(device, manifest, chunks, signer, write_stdout, work);
    }
    storage::PendingFile pending(bundle_, 0, false);
    std::uint64_t at = 0;
    const auto sink = [&](ByteView bytes) {
      pending.device().resize(at + bytes.size());
      pending.device().write(at, bytes);
      at += bytes.size();
    };
    image::write_bundle(device, manifest, chunks, signer, sink, work);
    pending.commit();
  }

  static void write_stdout(ByteView bytes) { print(as_string_view(bytes)); }

  void finish(const Session& session, const BundleManifest& manifest,
              const crypto::Ed25519PublicKey& signer) const {
    if (is_pipe(bundle_)) return;
    report(session,
           {{"file", path_},
            {"bundle", bundle_},
            {"signer", crypto::to_string(signer)},
            {"header", {{"uuid", manifest.header.uuid}, {"sha256", manifest.header.sha256}}},
            {"properties", manifest.properties}},
           fmt::format("{} {} with its key to {}, signed by {}",
                       session.dry_run ? "would export" : "exported", in_quotes(path_),
                       in_quotes(bundle_), crypto::to_string(signer)));
  }

  std::string path_;
  std::string bundle_;
  std::string key_id_;
  std::vector<std::string> recipients_;
  std::string sign_key_;
  std::optional<std::string> set_path_;
  OpenArgs open_;
  ProgressArgs progress_;
};

class FileSource final : public image::BundleSource {
 public:
  explicit FileSource(const std::string& path)
      : device_(storage::open_file(path, {.lock = false})), name_(in_quotes(path)) {}

  void read(MutableBytes out) override {
    need(out.size());
    device_->read(at_, out);
    at_ += out.size();
  }
  void skip(std::uint64_t bytes) override {
    need(bytes);
    at_ += bytes;
  }

 private:
  void need(std::uint64_t bytes) const {
    if (bytes <= device_->size_bytes() - at_) return;
    throw Error(
        Code::kTooSmall,
        fmt::format("{} ends at byte {}, before its image does", name_, device_->size_bytes()),
        "it did not arrive whole");
  }

  std::shared_ptr<Device> device_;
  std::string name_;
  std::uint64_t at_ = 0;
};

class PipeSource final : public image::BundleSource {
 public:
  explicit PipeSource(const CancelToken& cancel) : cancel_(cancel) {}

  void read(MutableBytes out) override {
    while (!out.empty()) {
      cancel_.check();
      pollfd waiting{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
      if (poll(&waiting, 1, kPollMs) <= 0) continue;  // a signal, too: look at `cancel`
      const ssize_t got = ::read(STDIN_FILENO, out.data(), out.size());
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got < 0) {
        throw Error(Code::kIo, fmt::format("cannot read standard input: {}",
                                           std::generic_category().message(errno)));
      }
      if (got == 0) {
        throw Error(Code::kTooSmall, "the bundle on standard input ends before its image does");
      }
      out = out.subspan(static_cast<std::size_t>(got));
    }
  }
  void skip(std::uint64_t bytes) override {
    Bytes scratch(static_cast<std::size_t>(std::min<std::uint64_t>(bytes, limits::kMiB)));
    while (bytes != 0) {
      const auto some = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, scratch.size()));
      read(MutableBytes(scratch).first(some));
      bytes -= some;
    }
  }

 private:
  static constexpr int kPollMs = 200;
  const CancelToken& cancel_;
};

class ImageImport final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "BUNDLE", .help = "to read; - is standard input"}, bundle_);
    options.positional({.name = "FILE", .help = "the image to make"}, path_);
    options.add_each(
        {.name = "--signer",
         .value = "KEY",
         .help = "who may have signed it: a public Ed25519 key in base64, or a file in "
                 "PEM; may be repeated"},
        signers_);
    identity_.declare(options);
    args_.declare_output(options);
    options.flag({.name = "--openstack", .help = "print options for 'openstack image create'"},
                 openstack_);
    open_.declare(options);
    progress_.declare(options);
  }

  void run(const Session& session) override {
    if (is_pipe(bundle_) && !identity_.source.empty()) check_stdin_is_free(identity_.source);
    const auto trusted = parse_signers(session);
    std::unique_ptr<image::BundleSource> source;
    if (is_pipe(bundle_)) {
      source = std::make_unique<PipeSource>(*session.cancel);
    } else {
      source = std::make_unique<FileSource>(bundle_);
    }
    const std::string what = is_pipe(bundle_) ? "the bundle on standard input" : in_quotes(bundle_);
    const BundleHead head = image::read_bundle_head(*source, trusted, what);
    const keys::Secret secret = unseal(session, head.manifest, what);
    const auto manager = open_key_manager(session);
    // What cannot be said in this style is known before anything is done.
    const Properties said = properties(head, described(head), {});
    if (session.dry_run) return finish(session, head, said, {}, {});
    receive(session, *source, head, secret, *manager, what);
  }

 private:
  std::vector<crypto::Ed25519PublicKey> parse_signers(const Session& session) const {
    if (signers_.empty()) {
      throw Error(Code::kUsage, "--signer is missing",
                  "whoever made the bundle tells it, by a way that you trust");
    }
    std::vector<crypto::Ed25519PublicKey> trusted;
    for (const std::string& text : signers_) {
      if (const auto bytes = from_base64(text); bytes && bytes->size() == 32) {
        trusted.push_back(crypto::parse_ed25519_public_key(text, "--signer"));
        continue;
      }
      const SecretBytes pem = keys::read_key({.kind = keys::KeySource::Kind::kFile, .path = text},
                                             {}, {}, session.cancel);
      trusted.push_back(
          crypto::parse_ed25519_public_key(as_string_view(pem.span()), in_quotes(text)));
    }
    return trusted;
  }

  keys::Secret unseal(const Session& session, const BundleManifest& manifest,
                      const std::string& what) const {
    auto plain = archive::age_open(manifest.sealed_secret, identity_.read(session),
                                   fmt::format("the secret in {}", what));
    if (!plain) {
      throw Error(Code::kWrongPassphrase,
                  fmt::format("the secret in {} is sealed to somebody else", what),
                  "--identity names the private key of the recipient that it was made for");
    }
    keys::Secret secret{.info = manifest.secret, .payload = SecretBytes(*plain)};
    wipe(*plain);
    return secret;
  }

  void receive(const Session& session, image::BundleSource& source, const BundleHead& head,
               const keys::Secret& secret, keys::KeyManager& manager, const std::string& what) {
    storage::PartialFile part(path_, to_hex(head.manifest.chunks_digest).substr(0, 32));
    image::Received received;
    try {
      ProgressDisplay display(progress_, session);
      received = image::receive_image(source, head, *part.device(), what,
                                      {.progress = display.callback(), .cancel = session.cancel});
    } catch (const Error& error) {
      keep(part, error, "what is good so far");
    }
    const Opened opened = verify(session, part, head, secret, what);
    const image::Description description = described(head, &opened.report);
    static_cast<void>(properties(head, description, {}));
    part.keep();  // whatever fails now, it need not travel again
    std::string id;
    try {
      id = store(secret, head.manifest, manager);
    } catch (const Error& error) {
      keep(part, error, "the image");
    }
    try {
      part.commit();
    } catch (const Error& error) {
      if (part.named()) {
        throw Error(error.code(), error.message(),
                    fmt::format("the image is there; its secret is '{}'", printable(id)));
      }
      remove(session, manager, id, error);
      keep(part, error, "the image");
    }
    finish(session, head, properties(head, description, id), id, received, manager.description());
  }

  // For the next run.
  [[noreturn]] static void keep(storage::PartialFile& part, const Error& error,
                                std::string_view kept) {
    part.keep();
    throw Error(error.code(), error.message(),
                fmt::format("{}{}{} is in {}; the same command goes on from there", error.hint(),
                            error.hint().empty() ? "" : "; ", kept, in_quotes(part.part_path())));
  }

  Opened verify(const Session& session, storage::PartialFile& part, const BundleHead& head,
                const keys::Secret& secret, const std::string& what) const {
    try {
      Opened opened = open_.open(session, part.device(),
                                 keys::passphrase_candidates(secret, head.manifest.secret_metadata),
                                 fmt::format("the image in {}", what));
      if (opened.report.format == head.manifest.format && opened.header == head.manifest.header) {
        return opened;
      }
    } catch (const Error& error) {
      if (error.code() == Code::kInterrupted) keep(part, error, "the image");
      throw;
    }
    throw Error(Code::kDamaged,
                fmt::format("{} holds another image than its manifest describes", what));
  }

  // What it is, by the file where that is there, else by the sender's word.
  image::Description described(const BundleHead& head, const Report* report = nullptr) const {
    image::Description said = image::read_properties(head.manifest.properties).description;
    image::Description description = report != nullptr ? image::describe(*report) : said;
    description.delete_key = said.delete_key;
    args_.apply(description);
    return description;
  }

  // Throws Error{kInvalidArgument} for what the style cannot say.
  Properties properties(const BundleHead& head, image::Description description,
                        const std::string& id) const {
    description.key_id = id;
    Properties set = head.manifest.properties;
    std::erase_if(set, [](const auto& member) {
      return image::is_image_attribute(member.first) || image::is_encryption_property(member.first);
    });
    set.merge(image::write_properties(description, {.style = args_.style, .disk_formats = {}}));
    return set;
  }

  // Without its name: the receiver's list of secrets is not to fill with those of others.
  static std::string store(const keys::Secret& secret, const BundleManifest& manifest,
                           keys::KeyManager& manager) {
    keys::SecretInfo info = secret.info;
    info.name.clear();
    info.expires_s.reset();
    return manager.store(info, secret.payload.span(), manifest.secret_metadata);
  }

  static void remove(const Session& session, keys::KeyManager& manager, const std::string& id,
                     const Error& error) {
    try {
      remove_made_secret(session, manager, id);
    } catch (const Error&) {
      throw Error(
          error.code(), error.message(),
          fmt::format("the secret '{}' was stored in {}, and could not be removed: lukskeep "
                      "keystore delete {}",
                      printable(id), manager.description(), printable(id)));
    }
  }

  void finish(const Session& session, const BundleHead& head, const Properties& set,
              const std::string& id, const image::Received& received,
              const std::string& manager = {}) const {
    std::string text;
    if (openstack_) {
      text = image::openstack_options(set) + "\n";
    } else {
      for (const auto& [name, value] : set) {
        text += fmt::format("{}={}\n", printable(name, 256), printable(value, 256));
      }
    }
    const auto& manifest = head.manifest;
    show(session,
         {{"bundle", bundle_},
          {"file", path_},
          {"signer", crypto::to_string(head.signer)},
          {"created", keys::time_text(manifest.created_s)},
          {"size", manifest.image_bytes},
          {"format", manifest.format},
          {"header", {{"uuid", manifest.header.uuid}, {"sha256", manifest.header.sha256}}},
          {"key_id", id.empty() ? OrderedJson() : OrderedJson(id)},
          {"key_manager", manager.empty() ? OrderedJson() : OrderedJson(manager)},
          {"kept_bytes", received.kept_bytes},
          {"properties", set},
          {"dry_run", session.dry_run}},
         text);
  }

  std::string bundle_;
  std::string path_;
  std::vector<std::string> signers_;
  IdentityArgs identity_;
  PropertyArgs args_;
  bool openstack_ = false;
  OpenArgs open_;
  ProgressArgs progress_;
};

}  // namespace

std::unique_ptr<Command> make_image_export() { return std::make_unique<ImageExport>(); }
std::unique_ptr<Command> make_image_import() { return std::make_unique<ImageImport>(); }

}  // namespace lukskeep::cli
