// Small qcow2 images in memory, for tests.
#pragma once

#include <cstdint>
#include <memory>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "storage/memory_device.h"
#include "storage/qcow2.h"
#include "storage/qcow2_format.h"

namespace lukskeep::storage::qcow2_testing {

inline Bytes fresh_image(const Qcow2CreateOptions& options) {
  MemoryDevice file(Bytes{});
  format_qcow2(file, options);
  return file.contents();
}

inline std::unique_ptr<Device> open_image(std::shared_ptr<Device> file, bool writable) {
  return open_qcow2_on({.file = std::move(file), .writable = writable});
}

inline qcow2::Header header_of(ByteView image) {
  const std::uint64_t area = std::min<std::uint64_t>(qcow2::header_area_bytes(image), image.size());
  return qcow2::decode_header(image.first(area), image.size(), "image");
}

// What `qemu-img check` finds, for images without snapshots: the reason of the first corruption, or
// "" with the number of clusters that are counted more often than they are used in `leaks`.
std::string check_image(ByteView image, std::uint64_t& leaks);

}  // namespace lukskeep::storage::qcow2_testing
