// The one copy engine: device to device, pipe to device, device to pipe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <lukskeep/device.h>
#include <lukskeep/progress.h>

#include "base/limits.h"

namespace lukskeep::storage {

enum class Holes : std::uint8_t {
  kFill,  // every byte of the source is written, holes as zeroes
  kKeep,  // holes and zero chunks of the source become holes (write_zeroes, kPunch) below
};

struct CopyOptions {
  std::string_view phase = "copy";  // for progress
  Holes holes = Holes::kFill;
  unsigned threads = 0;  // 0: hardware_threads(), at least limits::kCopyThreadsMin
  std::size_t chunk_bytes = limits::kCopyChunkBytes;
  // The destination is known to read as zeroes: with kKeep nothing is written for holes.
  bool destination_is_zero = false;
  // Bytes a second, 0: as fast as it goes.
  std::uint64_t rate_limit_bytes = 0;
  ProgressCallback progress;
  const CancelToken* cancel = nullptr;
};

// Copies `length_bytes` (at most source.size_bytes()) from the start of `source` to the start of
// `destination`, chunks in parallel; does not flush. Memory: threads * chunk_bytes, at most
// limits::kCopyMemoryBytesMax. The first error wins and is rethrown, its message naming the offset.
// Throws kTooSmall before the first write if `destination` is shorter.
void copy(const Device& source, Device& destination, std::uint64_t length_bytes,
          const CopyOptions& options);

// Reads `fd` (a pipe, socket or file, from where it stands) to its end or to `length_bytes_max`,
// whichever comes first, and writes to `destination`. A last partial block is padded with zeroes to
// `pad_to_bytes` (a power of two, at most 4096). If `destination` can be resized it has exactly the
// padded size in the end, otherwise throws kTooSmall when the input is longer. Returns the bytes
// read, without the padding.
std::uint64_t copy_from_fd(int fd, Device& destination, std::uint64_t length_bytes_max,
                           std::uint32_t pad_to_bytes, const CopyOptions& options);

// Writes the first `length_bytes` of `source` to `fd` in order; decryption runs ahead in parallel.
// A closed pipe throws kIo naming the offset (the caller ignores SIGPIPE).
void copy_to_fd(const Device& source, int fd, std::uint64_t length_bytes,
                const CopyOptions& options);

}  // namespace lukskeep::storage
