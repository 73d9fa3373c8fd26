// Compressed qcow2 images, written whole.
#pragma once

#include <lukskeep/device.h>

#include "storage/copy.h"

namespace lukskeep::storage {

// Makes `file`, whose contents are lost and which must be able to grow, a qcow2 image of version 3
// with the contents of `source`: clusters of 64 KiB, compressed with zlib where that makes them
// smaller, absent where they are zero. Reads and compresses in parallel, writes in one pass; does
// not flush. Memory: as copy(), and two bytes for each cluster that is stored.
// Of `options`, `holes`, `chunk_bytes` and `destination_is_zero` mean nothing. Throws what copy()
// throws, and kInvalidArgument for a size that qcow2 cannot hold.
void write_compressed_qcow2(const Device& source, Device& file, const CopyOptions& options);

}  // namespace lukskeep::storage
