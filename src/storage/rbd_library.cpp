#include "storage/rbd_library.h"

#include "base/shared_library.h"

namespace lukskeep::storage {
namespace {

RbdLibrary load() {
  const SharedLibrary rados("librados.so.2", "talks to Ceph", "librbd1");
  const SharedLibrary rbd("librbd.so.1", "talks to Ceph", "librbd1");
  RbdLibrary library{};
  rados.resolve("rados_create", library.rados_create);
  rados.resolve("rados_conf_read_file", library.rados_conf_read_file);
  rados.resolve("rados_conf_set", library.rados_conf_set);
  rados.resolve("rados_connect", library.rados_connect);
  rados.resolve("rados_shutdown", library.rados_shutdown);
  rados.resolve("rados_ioctx_create", library.rados_ioctx_create);
  rados.resolve("rados_ioctx_destroy", library.rados_ioctx_destroy);
  rados.resolve("rados_ioctx_set_namespace", library.rados_ioctx_set_namespace);
  rbd.resolve("rbd_open", library.rbd_open);
  rbd.resolve("rbd_open_read_only", library.rbd_open_read_only);
  rbd.resolve("rbd_close", library.rbd_close);
  rbd.resolve("rbd_create", library.rbd_create);
  rbd.resolve("rbd_remove", library.rbd_remove);
  rbd.resolve("rbd_rename", library.rbd_rename);
  rbd.resolve("rbd_get_size", library.rbd_get_size);
  rbd.resolve("rbd_get_features", library.rbd_get_features);
  rbd.resolve("rbd_lock_acquire", library.rbd_lock_acquire);
  rbd.resolve("rbd_flush", library.rbd_flush);
  rbd.resolve("rbd_diff_iterate2", library.rbd_diff_iterate2);
  rbd.resolve("rbd_aio_create_completion", library.rbd_aio_create_completion);
  rbd.resolve("rbd_aio_wait_for_complete", library.rbd_aio_wait_for_complete);
  rbd.resolve("rbd_aio_get_return_value", library.rbd_aio_get_return_value);
  rbd.resolve("rbd_aio_release", library.rbd_aio_release);
  rbd.resolve("rbd_aio_read", library.rbd_aio_read);
  rbd.resolve("rbd_aio_write", library.rbd_aio_write);
  rbd.resolve("rbd_aio_write_zeroes", library.rbd_aio_write_zeroes);
  return library;
}

}  // namespace

const RbdLibrary& rbd_library() {
  static const RbdLibrary library = load();
  return library;
}

}  // namespace lukskeep::storage
