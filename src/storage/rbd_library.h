// librbd and librados, loaded at run time. Internal to storage.
#pragma once

#include <rados/librados.h>
#include <rbd/librbd.h>

namespace lukskeep::storage {

struct RbdLibrary {
  decltype(&::rados_create) rados_create;
  decltype(&::rados_conf_read_file) rados_conf_read_file;
  decltype(&::rados_conf_set) rados_conf_set;
  decltype(&::rados_connect) rados_connect;
  decltype(&::rados_shutdown) rados_shutdown;
  decltype(&::rados_ioctx_create) rados_ioctx_create;
  decltype(&::rados_ioctx_destroy) rados_ioctx_destroy;
  decltype(&::rados_ioctx_set_namespace) rados_ioctx_set_namespace;
  decltype(&::rbd_open) rbd_open;
  decltype(&::rbd_open_read_only) rbd_open_read_only;
  decltype(&::rbd_close) rbd_close;
  decltype(&::rbd_create) rbd_create;
  decltype(&::rbd_remove) rbd_remove;
  decltype(&::rbd_rename) rbd_rename;
  decltype(&::rbd_get_size) rbd_get_size;
  decltype(&::rbd_get_features) rbd_get_features;
  decltype(&::rbd_lock_acquire) rbd_lock_acquire;
  decltype(&::rbd_flush) rbd_flush;
  decltype(&::rbd_diff_iterate2) rbd_diff_iterate2;
  decltype(&::rbd_aio_create_completion) rbd_aio_create_completion;
  decltype(&::rbd_aio_wait_for_complete) rbd_aio_wait_for_complete;
  decltype(&::rbd_aio_get_return_value) rbd_aio_get_return_value;
  decltype(&::rbd_aio_release) rbd_aio_release;
  decltype(&::rbd_aio_read) rbd_aio_read;
  decltype(&::rbd_aio_write) rbd_aio_write;
  decltype(&::rbd_aio_write_zeroes) rbd_aio_write_zeroes;
};

// Loaded once. Throws Error{kUnsupported} if it is not installed or too old.
const RbdLibrary& rbd_library();

}  // namespace lukskeep::storage
