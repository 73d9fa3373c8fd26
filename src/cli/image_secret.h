// --make-key: a secret that is made for the image that is made with it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <lukskeep/secret_bytes.h>

#include "cli/options.h"
#include "cli/session.h"
#include "keys/key_manager.h"

namespace lukskeep::cli {

struct MakeKeyArgs {
  std::optional<std::string> type;
  std::string name;

  // --make-key, --key-name.
  void declare(Options& options);
};

// Removes a secret to undo its making, after Ctrl-C too: `manager`, which was opened for the
// session, does nothing any more then, and another is opened. Throws what that does.
void remove_made_secret(const Session& session, keys::KeyManager& manager, const std::string& id);

// Gone again with this object, unless the image was made: a secret of nothing would be a leak, an
// image without its secret a loss.
class ImageSecret {
 public:
  // `session` has to outlive it. Has the key manager make a symmetric key, or stores a passphrase
  // as Nova makes them. With
  // --dry-run nothing is stored. Throws what the key manager throws.
  ImageSecret(const Session& session, const MakeKeyArgs& args);
  // Removes it, or warns that it could not.
  ~ImageSecret();
  ImageSecret(const ImageSecret&) = delete;
  ImageSecret& operator=(const ImageSecret&) = delete;

  const std::string& id() const noexcept { return id_; }  // empty with --dry-run
  std::string manager() const;
  // What opens the image.
  const SecretBytes& passphrase() const noexcept { return passphrase_; }

  // From now on the image may be there: what fails leaves the secret, and a warning names it.
  void image_is_coming() noexcept { state_ = State::kNamed; }
  void keep() noexcept { state_ = State::kKept; }

 private:
  enum class State : std::uint8_t { kRemoved, kNamed, kKept };

  // Whether anything is left is said in a warning.
  void undo() const noexcept;

  const Session& session_;
  std::unique_ptr<keys::KeyManager> manager_;  // null with --dry-run
  std::string id_;
  SecretBytes passphrase_;
  State state_ = State::kRemoved;
};

}  // namespace lukskeep::cli
