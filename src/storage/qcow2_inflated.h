// Clusters of a qcow2 image that are stored compressed, as they are to the guest: inflated once for
// the many small reads of one cluster.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "base/bytes.h"
#include "base/limits.h"

namespace lukskeep::storage::qcow2 {

// Where compressed data is in the file. It is never written in place: while an L2 entry says this,
// it is the same cluster, so what is here needs no invalidation.
struct CompressedPlace {
  std::uint64_t host_bytes = 0;
  std::uint64_t compressed_bytes = 0;
  bool operator==(const CompressedPlace&) const = default;
};

// Keeps what was used last, up to limits::kQcow2InflatedBytesMax; what is dropped is wiped. May be
// used by all threads.
class InflatedClusters {
 public:
  explicit InflatedClusters(std::size_t cluster_bytes,
                            std::size_t budget_bytes = limits::kQcow2InflatedBytesMax);

  // Fills a whole cluster; what it throws, read() throws.
  using Inflate = std::function<void(MutableBytes cluster)>;

  // Copies from the cluster, `skip_bytes` into it, to `out`, which ends inside it. Calls `inflate`
  // if the cluster is not here; of many threads that want it at the same time one does, and the
  // others wait for it.
  void read(const CompressedPlace& place, std::size_t skip_bytes, MutableBytes out,
            const Inflate& inflate);

 private:
  struct Cluster;
  using Uses = std::list<CompressedPlace>;
  struct Kept {
    std::shared_ptr<Cluster> cluster;
    Uses::iterator use;
  };
  struct Hash {
    std::size_t operator()(const CompressedPlace& place) const noexcept {
      return std::hash<std::uint64_t>{}(place.host_bytes);
    }
  };

  std::shared_ptr<Cluster> find_or_add(const CompressedPlace& place);

  const std::size_t cluster_bytes_;
  const std::size_t capacity_;
  std::mutex mutex_;
  std::unordered_map<CompressedPlace, Kept, Hash> kept_;
  Uses uses_;  // the latest first
};

}  // namespace lukskeep::storage::qcow2
