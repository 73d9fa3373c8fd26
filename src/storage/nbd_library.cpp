#include "storage/nbd_library.h"

#include "base/shared_library.h"

namespace lukskeep::storage {
namespace {

NbdLibrary load() {
  const SharedLibrary library("libnbd.so.0", "talks to NBD servers", "libnbd0");
  NbdLibrary nbd{};
  library.resolve("nbd_create", nbd.create);
  library.resolve("nbd_close", nbd.close);
  library.resolve("nbd_get_error", nbd.get_error);
  library.resolve("nbd_get_errno", nbd.get_errno);
  library.resolve("nbd_add_meta_context", nbd.add_meta_context);
  library.resolve("nbd_set_uri_allow_local_file", nbd.set_uri_allow_local_file);
  library.resolve("nbd_is_read_only", nbd.is_read_only);
  library.resolve("nbd_can_flush", nbd.can_flush);
  library.resolve("nbd_can_zero", nbd.can_zero);
  library.resolve("nbd_can_multi_conn", nbd.can_multi_conn);
  library.resolve("nbd_can_meta_context", nbd.can_meta_context);
  library.resolve("nbd_get_size", nbd.get_size);
  library.resolve("nbd_get_block_size", nbd.get_block_size);
  library.resolve("nbd_aio_connect_uri", nbd.aio_connect_uri);
  library.resolve("nbd_aio_pread", nbd.aio_pread);
  library.resolve("nbd_aio_pwrite", nbd.aio_pwrite);
  library.resolve("nbd_aio_zero", nbd.aio_zero);
  library.resolve("nbd_aio_flush", nbd.aio_flush);
  library.resolve("nbd_aio_block_status", nbd.aio_block_status);
  library.resolve("nbd_aio_disconnect", nbd.aio_disconnect);
  library.resolve("nbd_aio_get_fd", nbd.aio_get_fd);
  library.resolve("nbd_aio_get_direction", nbd.aio_get_direction);
  library.resolve("nbd_aio_notify_read", nbd.aio_notify_read);
  library.resolve("nbd_aio_notify_write", nbd.aio_notify_write);
  library.resolve("nbd_aio_is_ready", nbd.aio_is_ready);
  library.resolve("nbd_aio_is_dead", nbd.aio_is_dead);
  library.resolve("nbd_aio_is_closed", nbd.aio_is_closed);
  return nbd;
}

}  // namespace

const NbdLibrary& nbd_library() {
  static const NbdLibrary library = load();
  return library;
}

}  // namespace lukskeep::storage
