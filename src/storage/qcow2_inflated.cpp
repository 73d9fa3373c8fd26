#include "storage/qcow2_inflated.h"

#include <algorithm>

#include <lukskeep/secret_bytes.h>

namespace lukskeep::storage::qcow2 {

struct InflatedClusters::Cluster {
  Cluster() = default;
  ~Cluster() { wipe(bytes); }
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  std::mutex mutex;  // of `ready`: held while it is inflated
  bool ready = false;
  Bytes bytes;  // does not change any more once it is ready
};

InflatedClusters::InflatedClusters(std::size_t cluster_bytes, std::size_t budget_bytes)
    : cluster_bytes_(cluster_bytes),
      capacity_(std::max<std::size_t>(1, budget_bytes / cluster_bytes)) {}

void InflatedClusters::read(const CompressedPlace& place, std::size_t skip_bytes, MutableBytes out,
                            const Inflate& inflate) {
  // Whoever reads it keeps it, also when it is evicted meanwhile.
  const std::shared_ptr<Cluster> cluster = find_or_add(place);
  {
    const std::lock_guard lock(cluster->mutex);
    if (!cluster->ready) {
      cluster->bytes.resize(cluster_bytes_);
      inflate(cluster->bytes);
      cluster->ready = true;
    }
  }
  std::ranges::copy(ByteView(cluster->bytes).subspan(skip_bytes, out.size()), out.begin());
}

std::shared_ptr<InflatedClusters::Cluster> InflatedClusters::find_or_add(
    const CompressedPlace& place) {
  std::shared_ptr<Cluster> dropped;  // wiped when nobody waits for it
  const std::lock_guard lock(mutex_);
  if (const auto found = kept_.find(place); found != kept_.end()) {
    uses_.splice(uses_.begin(), uses_, found->second.use);
    return found->second.cluster;
  }
  if (kept_.size() == capacity_) {
    const auto oldest = kept_.find(uses_.back());
    dropped = std::move(oldest->second.cluster);
    kept_.erase(oldest);
    uses_.pop_back();
  }
  // Whatever is short of memory: both have it, or neither.
  Uses use = {place};
  const auto added =
      kept_.emplace(place, Kept{.cluster = std::make_shared<Cluster>(), .use = use.begin()});
  uses_.splice(uses_.begin(), use);
  return added.first->second.cluster;
}

}  // namespace lukskeep::storage::qcow2
