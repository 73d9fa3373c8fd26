// image encrypt, decrypt, convert, rekey: one image made of another, never in place.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/cmd_image.h"
#include "cli/header_view.h"
#include "cli/image_output.h"
#include "cli/image_secret.h"
#include "cli/image_source.h"
#include "cli/kdf_args.h"
#include "cli/new_volume.h"
#include "cli/units.h"
#include "luks/crypt_device.h"
#include "luks/layout.h"

namespace lukskeep::cli {
namespace {

std::string in_quotes(const std::string& path) { return fmt::format("'{}'", printable(path, 256)); }

// How the new image is encrypted; what is more than an image in a cloud needs has `encrypt`.
struct EncryptionArgs {
  std::string type = "luks1";
  std::string cipher = "aes-xts-plain64";
  std::optional<std::uint32_t> key_bits;
  std::string uuid;
  KdfArgs kdf;
  MakeKeyArgs make_key;

  void declare(Options& options) {
    options.heading("Encryption");
    options.add({.name = "--type",
                 .value = "TYPE",
                 .help = "luks1 (default: what QEMU opens) or luks2",
                 .choices = {"luks1", "luks2"}},
                type);
    options.add({.name = "--cipher",
                 .value = "NAME",
                 .help = "cipher, mode and IV, e.g. aes-xts-plain64 (default)"},
                cipher);
    options.add({.name = "--key-size",
                 .value = "BITS",
                 .help = "size of the volume key (default: 512 for xts, 256 otherwise)"},
                key_bits);
    options.add({.name = "--uuid", .value = "UUID", .help = "instead of a random one"}, uuid);
    make_key.declare(options);
    kdf.declare(options);
  }

  // `key` is the source of the new passphrase, unless a key is made.
  NewVolumeArgs volume_args(const std::string& key) const {
    NewVolumeArgs args;
    args.type = type;
    args.cipher = cipher;
    args.key_bits = key_bits;
    args.uuid = uuid;
    args.key = key;
    args.kdf = kdf;
    return args;
  }
};

// What the four have in common.
class ImageCommand : public Command {
 protected:
  void declare_source(Options& options) {
    options.positional({.name = "SRC", .help = "the image: a file, a block device or a URI"},
                       source_args_.path);
    output_.declare(options);
    source_args_.declare_allow(options);
  }
  // With what opens it.
  void declare_encrypted_source(Options& options) {
    declare_source(options);
    KeyArgs& keys = source_args_.keys.emplace();
    options.add({.name = "--key",
                 .value = "SOURCE",
                 .help = "what opens the image: file:PATH[,offset=N][,size=N], fd:N, prompt: "
                         "(default), volume-key:PATH, keyring:NAME, manager:ID, binding:"},
                keys.key);
    declare_kdf_limit(options, keys.kdf_limit);
  }

  // Settles what may be overwritten, inspects the source and opens it; `encrypted`: whether it has
  // to be, if that matters.
  void open(const Session& session, std::optional<bool> encrypted) {
    output_.settle(session, source_args_.path);
    source_args_.direct = output_.copy.direct;
    source_ = inspect_source(session, source_args_);
    if (encrypted && source_.report.safe() && source_.report.encrypted != *encrypted) refuse_kind();
    disk_ = open_disk(source_args_, source_, output_.copy.keep_holes());
    if (disk_->size_bytes() != 0) return;
    throw Error(Code::kInvalidArgument,
                fmt::format("{} holds an empty disk", in_quotes(source_args_.path)));
  }

  ImageOutput::Job job(ImageSecret* secret = nullptr) const {
    return {.disk = *disk_,
            .source = source_args_.path,
            .source_bytes = source_.file->size_bytes(),
            .before_commit = [secret] {
              if (secret != nullptr) secret->image_is_coming();
            }};
  }

  OrderedJson result_json() const {
    return {{"source", source_args_.path},
            {"source_format", source_.report.format},
            {"destination", output_.path},
            {"format", output_.format},
            {"virtual_size", disk_->size_bytes()}};
  }

  std::string result_text(const Session& session, std::string_view did,
                          std::string_view would) const {
    return fmt::format("{} {} to {} {}: {}", session.dry_run ? would : did,
                       in_quotes(source_args_.path), output_.format, in_quotes(output_.path),
                       human_size(disk_->size_bytes()));
  }

  // A new volume of what was opened; `passphrase_source` if no key is made.
  void encrypt(const Session& session, EncryptionArgs& args, const std::string& passphrase_source,
               bool keep_volume_key, std::string_view did, std::string_view would) {
    NewVolumeArgs volume_args = args.volume_args(passphrase_source);
    output_.refuse_compression();
    if (output_.qcow2() && args.type == "luks2") {
      throw Error(Code::kUnsupported, "inside qcow2 there is LUKS1 only", "--type luks1");
    }
    if (keep_volume_key) volume_args.known_volume_key = source_.volume_key.clone();
    std::optional<ImageSecret> secret;
    if (args.make_key.type) {
      secret.emplace(session, args.make_key);
      volume_args.known_passphrase = secret->passphrase().clone();
    }
    const NewVolume volume = prepare_new_volume(
        session, volume_args, choose_sector_size(volume_args, disk_->size_bytes()), output_.path);
    if (!session.dry_run) {
      output_.write_new(session, job(secret ? &*secret : nullptr), volume);
    }
    if (secret) secret->keep();
    report_volume(session, volume, secret ? &*secret : nullptr, result_text(session, did, would));
  }

 private:
  [[noreturn]] void refuse_kind() const {
    if (source_.report.encrypted) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{} is encrypted already", in_quotes(source_args_.path)),
                  "'lukskeep image rekey' encrypts it anew");
    }
    throw Error(Code::kInvalidArgument,
                fmt::format("{} is not encrypted ({})", in_quotes(source_args_.path),
                            source_.report.format),
                "'lukskeep image convert' or 'lukskeep image encrypt'");
  }

  void report_volume(const Session& session, const NewVolume& volume, const ImageSecret* secret,
                     std::string text) const {
    OrderedJson json = result_json();
    const std::uint64_t payload = luks::round_up(disk_->size_bytes(), volume.sector_size_bytes());
    json.update(summary_json(volume.fresh.header));
    json["key_bits"] = volume.fresh.volume_key.size() * 8;
    json["payload_size"] = payload;
    json["padding"] = payload - disk_->size_bytes();
    json["key_id"] =
        secret != nullptr && !secret->id().empty() ? OrderedJson(secret->id()) : OrderedJson();
    text += ", " + describe(volume);
    if (payload != disk_->size_bytes()) {
      text += fmt::format("; {} zero bytes added to fill the last sector",
                          payload - disk_->size_bytes());
    }
    if (secret != nullptr && !secret->id().empty()) {
      text += fmt::format("; its key is secret {} in {}", printable(secret->id(), 128),
                          secret->manager());
    }
    report(session, std::move(json), text);
  }

 protected:
  ImageSourceArgs source_args_;
  ImageOutput output_;
  ImageSource source_;
  std::shared_ptr<Device> disk_;
};

class ImageEncrypt final : public ImageCommand {
 public:
  void declare(Options& options) override {
    declare_source(options);
    encryption_.declare(options);
    options.add({.name = "--key",
                 .value = "SOURCE",
                 .help = "the passphrase: file:PATH[,offset=N][,size=N], fd:N, manager:ID or "
                         "prompt: (default)"},
                key_);
  }

  void run(const Session& session) override {
    if (key_ && encryption_.make_key.type) {
      throw Error(Code::kUsage, "--key and --make-key contradict each other", "name one of them");
    }
    open(session, false);
    encrypt(session, encryption_, key_.value_or("prompt:"), false, "encrypted", "would encrypt");
  }

 private:
  EncryptionArgs encryption_;
  std::optional<std::string> key_;
};

class ImageDecrypt final : public ImageCommand {
 public:
  void declare(Options& options) override { declare_encrypted_source(options); }

  void run(const Session& session) override {
    open(session, true);
    if (!session.dry_run) output_.write_plain(session, job());
    report(session, result_json(), result_text(session, "decrypted", "would decrypt"));
  }
};

class ImageConvert final : public ImageCommand {
 public:
  void declare(Options& options) override { declare_encrypted_source(options); }

  void run(const Session& session) override {
    open(session, std::nullopt);
    if (!source_.header) {
      if (allowed_named_files().encrypted_backing) warn_of_plain_copy();
      if (!session.dry_run) output_.write_plain(session, job());
    } else {
      check_header(*source_.header);
      if (!session.dry_run) {
        output_.write_known(session, job(),
                            {.header = *source_.header,
                             .header_bytes = source_.header_bytes,
                             .volume_key = source_.volume_key.span()});
      }
    }
    OrderedJson json = result_json();
    json["encrypted"] = source_.header.has_value();
    if (source_.header) json.update(summary_json(*source_.header));
    std::string text = result_text(session, "converted", "would convert");
    if (source_.header) text += ", encrypted as before";
    report(session, std::move(json), text);
  }

 private:
  void warn_of_plain_copy() const {
    warn(
        fmt::format("a backing file of {} is encrypted and the image itself is not: the new image "
                    "has the contents of both in the clear ('lukskeep image encrypt' does not)",
                    in_quotes(source_args_.path)));
  }

  // What cannot be said of the new image by the same header.
  void check_header(const luks::Header& header) const {
    output_.refuse_compression();
    if (output_.qcow2() && header.version != luks::Version::kLuks1) {
      throw Error(Code::kUnsupported,
                  fmt::format("{} is LUKS2, and inside qcow2 there is LUKS1 only",
                              in_quotes(source_args_.path)),
                  "'lukskeep image rekey --type luks1 --format qcow2'");
    }
    const std::uint64_t payload = luks::payload_offset_bytes(header);
    if (payload < luks::header_size_bytes(header) || payload != source_.header_bytes.size()) {
      throw Error(
          Code::kUnsupported,
          fmt::format("the payload of {} does not follow its header", in_quotes(source_args_.path)),
          "'lukskeep image rekey' gives it a new header");
    }
  }
};

class ImageRekey final : public ImageCommand {
 public:
  void declare(Options& options) override {
    declare_encrypted_source(options);
    encryption_.declare(options);
    options.add({.name = "--new-key",
                 .value = "SOURCE",
                 .help = "the new passphrase: file:PATH[,offset=N][,size=N], fd:N, manager:ID or "
                         "prompt: (default)"},
                new_key_);
    options.flag({.name = "--keep-volume-key",
                  .help = "a new header with a new passphrase, and the volume key that it had"},
                 keep_volume_key_);
  }

  void run(const Session& session) override {
    if (new_key_ && encryption_.make_key.type) {
      throw Error(Code::kUsage, "--new-key and --make-key contradict each other",
                  "name one of them");
    }
    open(session, true);
    encrypt(session, encryption_, new_key_.value_or("prompt:"), keep_volume_key_, "encrypted anew",
            "would encrypt anew");
  }

 private:
  EncryptionArgs encryption_;
  std::optional<std::string> new_key_;
  bool keep_volume_key_ = false;
};

}  // namespace

std::unique_ptr<Command> make_image_encrypt() { return std::make_unique<ImageEncrypt>(); }
std::unique_ptr<Command> make_image_decrypt() { return std::make_unique<ImageDecrypt>(); }
std::unique_ptr<Command> make_image_convert() { return std::make_unique<ImageConvert>(); }
std::unique_ptr<Command> make_image_rekey() { return std::make_unique<ImageRekey>(); }

}  // namespace lukskeep::cli
