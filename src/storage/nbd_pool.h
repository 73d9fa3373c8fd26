// The connections of this process to one export. Internal to storage.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "storage/nbd_connection.h"

namespace lukskeep::storage {

// All functions may be called by several threads.
class NbdPool {
 public:
  // Makes one connection. Throws what NbdConnection throws.
  NbdPool(NbdUri uri, const CancelToken* cancel);

  const NbdUri& uri() const noexcept { return uri_; }
  const NbdExport& exported() const noexcept { return export_; }
  bool broken() const;

  // The connection with the least to do. Makes another one if all have something to do and the
  // server allows it; one that fails is done without.
  std::shared_ptr<NbdConnection> pick(const CancelToken* cancel);

 private:
  NbdUri uri_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<NbdConnection>> connections_;
  NbdExport export_;
  bool may_grow_ = false;
};

// The pool for `uri`, which is made if there is none that works.
std::shared_ptr<NbdPool> nbd_pool(const NbdUri& uri, const CancelToken* cancel);

}  // namespace lukskeep::storage
