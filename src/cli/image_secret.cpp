#include "cli/image_secret.h"

#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "cli/key_manager_args.h"
#include "crypto/random.h"
#include "keys/passphrase_resolver.h"
#include "keys/secret_text.h"

namespace lukskeep::cli {
namespace {

constexpr std::uint32_t kSymmetricBits = 256;  // as Cinder orders them
constexpr std::size_t kPassphraseBytes = 64;   // as Nova makes them, in base64

}  // namespace

void remove_made_secret(const Session& session, keys::KeyManager& manager, const std::string& id) {
  if (!session.cancel->cancelled()) return manager.remove(id);
  static const CancelToken never;
  Session calm = session;
  calm.cancel = &never;
  open_key_manager(calm)->remove(id);
}

void MakeKeyArgs::declare(Options& options) {
  options.add({.name = "--make-key",
               .value = "TYPE",
               .help = "have the key manager keep a new key and use that: symmetric, as Cinder and "
                       "Nova use them (in hex), or passphrase",
               .choices = {"symmetric", "passphrase"}},
              type);
  options.add({.name = "--key-name", .value = "NAME", .help = "what that key is called there"},
              name);
}

ImageSecret::ImageSecret(const Session& session, const MakeKeyArgs& args) : session_(session) {
  if (session.dry_run) {
    passphrase_ = crypto::random_secret(kPassphraseBytes);
    return;
  }
  manager_ = open_key_manager(session);
  if (args.type == "passphrase") {
    passphrase_ = keys::secret_base64(crypto::random_secret(kPassphraseBytes).span());
    keys::SecretInfo info{.id = {}, .name = args.name, .type = keys::SecretType::kPassphrase};
    info.content_type = "text/plain";
    id_ = manager_->store(info, passphrase_.span(), {});
    return;
  }
  id_ = manager_->order({.name = args.name, .algorithm = "aes", .bit_length = kSymmetricBits});
  try {
    passphrase_ = keys::certain_passphrase(manager_->get(id_), {}).passphrase;
  } catch (...) {
    undo();  // the destructor of what was not made is not called
    throw;
  }
}

ImageSecret::~ImageSecret() {
  if (!manager_ || state_ == State::kKept) return;
  if (state_ == State::kNamed) {
    warn(fmt::format("secret '{}' is still there: remove it if the image is not",
                     printable(id_, 128)));
    return;
  }
  undo();
}

void ImageSecret::undo() const noexcept {
  try {
    remove_made_secret(session_, *manager_, id_);
  } catch (const Error& error) {
    warn(fmt::format("secret '{}' was made and could not be removed again: {}", printable(id_, 128),
                     error.message()));
  } catch (...) {
    warn(fmt::format("secret '{}' was made and could not be removed again", printable(id_, 128)));
  }
}

std::string ImageSecret::manager() const { return manager_ ? manager_->description() : ""; }

}  // namespace lukskeep::cli
