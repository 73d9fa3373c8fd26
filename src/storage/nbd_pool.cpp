#include "storage/nbd_pool.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace lukskeep::storage {

NbdPool::NbdPool(NbdUri uri, const CancelToken* cancel) : uri_(std::move(uri)) {
  connections_.push_back(std::make_shared<NbdConnection>(uri_, cancel));
  export_ = connections_.front()->exported();
  may_grow_ = export_.can_multi_conn;
}

bool NbdPool::broken() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(connections_, [](const auto& one) { return one->broken(); });
}

std::shared_ptr<NbdConnection> NbdPool::pick(const CancelToken* cancel) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<NbdConnection> chosen = connections_.front();
  std::size_t least = chosen->requests_under_way();
  for (const auto& connection : connections_) {
    const std::size_t load = connection->requests_under_way();
    if (load < least) {
      least = load;
      chosen = connection;
    }
  }
  if (least == 0 || !may_grow_) return chosen;
  may_grow_ = connections_.size() + 1 < limits::kNbdConnectionsMax;
  try {
    auto another = std::make_shared<NbdConnection>(uri_, cancel);
    // Behind the same name may be another disk by now.
    if (another->exported() == export_) {
      connections_.push_back(another);
      return another;
    }
    may_grow_ = false;
  } catch (const Error& error) {
    if (error.code() == Code::kInterrupted) throw;
    may_grow_ = false;
  }
  return chosen;
}

std::shared_ptr<NbdPool> nbd_pool(const NbdUri& uri, const CancelToken* cancel) {
  static std::mutex mutex;
  static std::vector<std::shared_ptr<NbdPool>> pools;  // the last used is the last
  const std::lock_guard lock(mutex);
  std::erase_if(pools, [](const auto& pool) { return pool->broken(); });
  const auto found =
      std::ranges::find_if(pools, [&](const auto& pool) { return pool->uri().uri == uri.uri; });
  if (found != pools.end()) {
    std::rotate(found, found + 1, pools.end());
    return pools.back();
  }
  auto pool = std::make_shared<NbdPool>(uri, cancel);
  if (pools.size() == limits::kNbdServersMax) pools.erase(pools.begin());
  pools.push_back(pool);
  return pool;
}

}  // namespace lukskeep::storage
