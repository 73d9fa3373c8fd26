// Memory for keys and passphrases.
#pragma once

#include <cstddef>
#include <span>

#include <lukskeep/export.h>

namespace lukskeep {

// SecretBytes owns `size()` bytes on pages of their own: excluded from core dumps and from forked
// children, locked against swapping where the system allows it, wiped on destruction. Move-only;
// copying is spelt `clone()`. There is no output operator. A moved-from object is empty.
//
// Not synchronised: several threads may read one object, only one may change it.
class LUKSKEEP_API SecretBytes {
 public:
  SecretBytes() noexcept = default;
  // Zero-filled. Throws Error{kOutOfMemory}.
  explicit SecretBytes(std::size_t size_bytes);
  // A copy of `bytes`; the caller still has to wipe the original.
  explicit SecretBytes(std::span<const std::byte> bytes);

  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  ~SecretBytes();

  SecretBytes clone() const;

  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  std::span<std::byte> span() noexcept { return {data_, size_}; }
  std::span<const std::byte> span() const noexcept { return {data_, size_}; }

  // Shortens to `size_bytes` (at most size()); what is cut off is wiped.
  void truncate(std::size_t size_bytes);

 private:
  void release() noexcept;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_bytes_ = 0;
};

// Whether both hold the same bytes, in time that depends on the sizes only.
LUKSKEEP_API bool equal_constant_time(std::span<const std::byte> a,
                                      std::span<const std::byte> b) noexcept;

// Overwrites `bytes` with zeroes; the compiler does not remove it.
LUKSKEEP_API void wipe(std::span<std::byte> bytes) noexcept;

}  // namespace lukskeep
