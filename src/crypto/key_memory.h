// Keys that stay in memory for later use and must never be used after a fork has wiped them.
#pragma once

#include <lukskeep/secret_bytes.h>

#include "base/bytes.h"

namespace lukskeep::crypto {

// Secret bytes that know whether they are still there: SecretBytes reads as zeroes in a forked
// child, and encrypting with a key of zeroes would destroy data without a word.
class KeyMemory {
 public:
  KeyMemory() noexcept = default;
  explicit KeyMemory(std::size_t size_bytes);
  explicit KeyMemory(ByteView bytes);

  MutableBytes span() noexcept { return {memory_.data(), size_}; }
  // Throws Error{kInternal} in a child of the process that made the object.
  ByteView bytes() const {
    if (memory_.data()[size_] != kAlive) throw_wiped();
    return {memory_.data(), size_};
  }

 private:
  static constexpr std::byte kAlive{0xa5};
  [[noreturn]] static void throw_wiped();

  SecretBytes memory_;
  std::size_t size_ = 0;
};

}  // namespace lukskeep::crypto
