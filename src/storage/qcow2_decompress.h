// Compressed clusters of qcow2.
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "storage/qcow2_format.h"

namespace lukskeep::storage::qcow2 {

// Fills `out`, one cluster, from `data`, which may have more behind the compressed bytes: the rest
// of their last sector. Memory is bounded by limits::kQcow2ZstdWindowLogMax, time by the size of
// `out`. Throws Error{kDamaged} unless the data gives exactly one cluster.
void decompress(Compression kind, ByteView data, MutableBytes out, std::string_view what);

}  // namespace lukskeep::storage::qcow2
