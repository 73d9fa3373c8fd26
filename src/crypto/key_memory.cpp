#include "crypto/key_memory.h"

#include <algorithm>

#include <lukskeep/error.h>

namespace lukskeep::crypto {

KeyMemory::KeyMemory(std::size_t size_bytes) : memory_(size_bytes + 1), size_(size_bytes) {
  memory_.data()[size_] = kAlive;
}

KeyMemory::KeyMemory(ByteView bytes) : KeyMemory(bytes.size()) {
  std::ranges::copy(bytes, memory_.data());
}

void KeyMemory::throw_wiped() {
  throw Error(Code::kInternal, "the key is not there: it does not pass a fork",
              "unlock in the process that uses the volume");
}

}  // namespace lukskeep::crypto
