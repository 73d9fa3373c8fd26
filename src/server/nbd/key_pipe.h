// Carries keys through a fork.
#pragma once

#include <cstddef>
#include <vector>

#include <lukskeep/secret_bytes.h>

#include "storage/unique_fd.h"

namespace lukskeep::server {

// SecretBytes are empty in a forked child, and nbdkit forks (into the background, or for --run)
// after it has made its plugins ready. What is put here before comes out once, in whichever
// process asks: it waits in the kernel, in no file and no process. Room for the keys of
// one export: limits::kQcow2ChainMax of limits::kVolumeKeyBytesMax.
class KeyPipe {
 public:
  // Throws Error{kIo}.
  KeyPipe();
  // Once.
  void put(const std::vector<SecretBytes>& keys);
  // All of them, in the same order.
  std::vector<SecretBytes> take();

 private:
  storage::UniqueFd read_end_;
  storage::UniqueFd write_end_;
  std::size_t keys_ = 0;
};

}  // namespace lukskeep::server
