// tang backup, restore.
#include <algorithm>
#include <ctime>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "cli/archive_args.h"
#include "cli/command.h"
#include "cli/tang_args.h"
#include "nbde/ecmr.h"
#include "server/tang_backup.h"
#include "storage/file_device.h"

namespace lukskeep::cli {
namespace {

using server::TangBackup;
using server::TangKeyFile;

class TangBackupWrite final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "FILE", .help = "to write"}, file_);
    keys_.declare(options);
    options.add_each({.name = "--recipient",
                      .value = "AGE1…",
                      .help = "who can open it, as age-keygen prints it; may be repeated"},
                     recipients_);
  }

  void run(const Session& session) override {
    std::vector<archive::AgeRecipient> recipients;
    for (const std::string& text : recipients_) {
      recipients.push_back(archive::parse_age_recipient(text));
    }
    if (recipients.empty()) {
      throw Error(Code::kUsage, "--recipient is missing",
                  "age-keygen makes a pair: the recipient is its public side");
    }
    const auto files = keys_.folder().read();
    for (const std::string& problem : files.problems) warn(problem);
    const Bytes sealed = server::make_tang_backup(files.keys, recipients, std::time(nullptr));
    if (!session.dry_run) {
      storage::PendingFile pending(file_, sealed.size(), false);
      pending.device().write(0, sealed);
      pending.commit();
    }
    report(session,
           {{"file", file_},
            {"keys", files.keys.size()},
            {"fingerprint", server::key_set_fingerprint(files.keys)}},
           fmt::format("{} {} keys to '{}'", session.dry_run ? "would write" : "wrote",
                       files.keys.size(), printable(file_, 256)));
  }

 private:
  std::string file_;
  KeyFolderArgs keys_;
  std::vector<std::string> recipients_;
};

// An exchange with each key, as a client would: what was restored opens what was sealed to it.
void prove(const std::vector<TangKeyFile>& keys) {
  for (const TangKeyFile& file : keys) {
    if (!server::is_exchange_key(file.key)) continue;
    const auto sealed = nbde::ecmr_seal(file.key.point);
    const auto request = nbde::ecmr_request(sealed.ephemeral);
    const auto answer = nbde::ecmr_answer(request.blinded, file.key.secret.value());
    const SecretBytes found = nbde::ecmr_finish(answer, file.key.point, request.secret);
    if (!equal_constant_time(found.span(), sealed.shared_x.span())) {
      throw Error(Code::kDamaged, fmt::format("the key {} does not work", file.thumbprint));
    }
  }
}

class TangRestore final : public Command {
 public:
  void declare(Options& options) override {
    options.positional({.name = "FILE", .help = "that tang backup wrote"}, file_);
    keys_.declare(options);
    identity_.declare(options);
    options.add({.name = "--signed-by",
                 .value = "KEY",
                 .help = "refuse a backup that the key of this thumbprint has not signed"},
                signer_);
    options.flag({.name = "--merge", .help = "into a folder that has other keys too"}, merge_);
  }

  void run(const Session& session) override {
    const TangBackup backup = open(session);
    check_signer(session, backup);
    check_folder(backup);
    if (!session.dry_run) write(backup);
    const std::string fingerprint = server::key_set_fingerprint(backup.keys);
    report(session,
           {{"keys", keys_.path},
            {"restored", backup.keys.size()},
            {"signers", backup.signers},
            {"created", time_text(backup.created_s)},
            {"fingerprint", fingerprint}},
           fmt::format("{} {} keys of {}, signed by {}; each was read back and used",
                       session.dry_run ? "would restore" : "restored", backup.keys.size(),
                       time_text(backup.created_s), fmt::join(backup.signers, ", ")));
  }

 private:
  TangBackup open(const Session& session) const {
    const auto device = storage::open_file(file_, {.lock = false});
    const std::string what = fmt::format("'{}'", printable(file_, 256));
    if (device->size_bytes() > limits::kTangBackupBytesMax) {
      throw Error(Code::kDamaged, fmt::format("{} is larger than any backup of keys", what));
    }
    Bytes sealed(device->size_bytes());
    device->read(0, sealed);
    return server::read_tang_backup(sealed, identity_.read(session), what);
  }

  // Anybody can seal to a recipient: the signature tells whose keys these are.
  void check_signer(const Session& session, const TangBackup& backup) const {
    if (!signer_.empty()) {
      // Whole: a key whose thumbprint starts like another is quickly made.
      const auto key = std::ranges::find_if(backup.keys, [&](const TangKeyFile& each) {
        return nbde::has_thumbprint(each.key.point, signer_);
      });
      if (key == backup.keys.end()) {
        throw Error(Code::kNotFound, fmt::format("the backup has no key '{}'", printable(signer_)),
                    "--signed-by wants the whole thumbprint");
      }
      if (std::ranges::find(backup.signers, key->thumbprint) == backup.signers.end()) {
        throw Error(Code::kUnsafe, fmt::format("the backup is not signed by {}", key->thumbprint));
      }
      return;
    }
    confirm(session,
            fmt::format("The backup is signed by {}. Are these keys yours?",
                        fmt::join(backup.signers, ", ")),
            Error(Code::kUnsafe, "nobody said whose keys are in the backup",
                  "--signed-by names a signing key of yours, --yes takes any"));
  }

  void check_folder(const TangBackup& backup) const {
    std::vector<TangKeyFile> present;
    try {
      present = keys_.folder().read().keys;
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound) throw;
    }
    for (const TangKeyFile& key : present) {
      const auto same = std::ranges::find(backup.keys, key.thumbprint, &TangKeyFile::thumbprint);
      if (same == backup.keys.end() && !merge_) {
        throw Error(Code::kExists,
                    fmt::format("'{}' has a key that is not in the backup: {}",
                                printable(keys_.path, 256), key.thumbprint),
                    "restore into an empty folder, or use --merge");
      }
      if (same != backup.keys.end() && same->name != key.name) {
        throw Error(Code::kExists,
                    fmt::format("the key {} is there as '{}', and in the backup as '{}'",
                                key.thumbprint, printable(key.name), same->name),
                    "hide or unhide it first");
      }
    }
  }

  void write(const TangBackup& backup) const {
    const auto folder = keys_.folder();
    for (const TangKeyFile& key : backup.keys) {
      folder.put(key.name, nbde::private_jwk_text(key.key).span());
    }
    std::vector<TangKeyFile> found = folder.read().keys;
    std::erase_if(found, [&](const TangKeyFile& key) {
      return std::ranges::find(backup.keys, key.thumbprint, &TangKeyFile::thumbprint) ==
             backup.keys.end();
    });
    if (server::key_set_fingerprint(found) != server::key_set_fingerprint(backup.keys)) {
      throw Error(Code::kDamaged, fmt::format("the keys in '{}' are not those of the backup",
                                              printable(keys_.path, 256)));
    }
    prove(found);
  }

  std::string file_;
  std::string signer_;
  bool merge_ = false;
  KeyFolderArgs keys_;
  IdentityArgs identity_;
};

}  // namespace

std::unique_ptr<Command> make_tang_backup() { return std::make_unique<TangBackupWrite>(); }
std::unique_ptr<Command> make_tang_restore() { return std::make_unique<TangRestore>(); }

}  // namespace lukskeep::cli
