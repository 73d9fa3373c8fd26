// Carries keys through a fork.
#pragma once

#include <lukskeep/secret_bytes.h>

#include "storage/unique_fd.h"

namespace lukskeep::server {

// SecretBytes are empty in a forked child, and nbdkit forks (into the background, or for --run)
// after it has made its plugins ready. What is put here before comes out once, in order, in
// whichever process asks: it waits in the kernel, in no file and no process. Room for
// limits::kServeExportsMax keys of limits::kVolumeKeyBytesMax.
class KeyPipe {
 public:
  // Throws Error{kIo}.
  KeyPipe();
  void put(const SecretBytes& key);
  SecretBytes take();

 private:
  storage::UniqueFd read_end_;
  storage::UniqueFd write_end_;
};

}  // namespace lukskeep::server
