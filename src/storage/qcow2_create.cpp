// Making qcow2 images.
#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/file_device.h"
#include "storage/qcow2.h"
#include "storage/qcow2_image.h"

namespace lukskeep::storage {
namespace {

using qcow2::Header;

std::uint64_t divide_up(std::uint64_t value, std::uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}

void check_options(const Qcow2CreateOptions& options) {
  if (options.cluster_bits < limits::kQcow2ClusterBitsMin ||
      options.cluster_bits > limits::kQcow2ClusterBitsMax || options.refcount_order > 6 ||
      (options.extended_l2 && options.cluster_bits < 14)) {
    throw Error(Code::kInvalidArgument,
                fmt::format("qcow2 knows no clusters of 2^{} bytes with refcounts of 2^{} bits",
                            options.cluster_bits, options.refcount_order));
  }
  if (options.crypto_header_bytes > limits::kQcow2CryptoHeaderBytesMax) {
    throw Error(Code::kInvalidArgument, fmt::format("an encryption header of {} bytes is too large",
                                                    options.crypto_header_bytes));
  }
}

// Everything that is there before the first cluster of data, one after the other.
struct Layout {
  Header header;
  std::uint64_t blocks_offset_bytes = 0;  // of refcount blocks
  std::uint64_t blocks = 0;
  std::uint64_t clusters = 0;
};

Layout make_layout(const Qcow2CreateOptions& options) {
  Layout layout;
  Header& header = layout.header;
  header.cluster_bits = options.cluster_bits;
  header.refcount_order = options.refcount_order;
  header.size_bytes = options.size_bytes;
  if (options.extended_l2) header.incompatible_features |= qcow2::kIncompatibleExtendedL2;
  const std::uint64_t cluster = header.cluster_bytes();
  const std::uint64_t l1_entries = header.l1_entries_needed();
  if (l1_entries * 8 > limits::kQcow2L1BytesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("a qcow2 image with clusters of {} bytes cannot have {} bytes", cluster,
                            options.size_bytes));
  }
  std::uint64_t at = 1;
  if (options.crypto_header_bytes > 0) {
    header.crypt_method = qcow2::CryptMethod::kLuks;
    header.crypto_header = {at * cluster, options.crypto_header_bytes};
    at += divide_up(options.crypto_header_bytes, cluster);
  }
  header.l1_entries = static_cast<std::uint32_t>(l1_entries);
  header.l1_offset_bytes = l1_entries == 0 ? 0 : at * cluster;
  at += divide_up(l1_entries * 8, cluster);
  // The table has room for all that the image may come to have, so that it need not move.
  const std::uint64_t all_clusters = at + divide_up(options.size_bytes, cluster) + l1_entries;
  const std::uint64_t per_block = header.refcounts_in_block();
  const std::uint64_t all_blocks = divide_up(all_clusters, per_block) * 102 / 100 + 2;
  const std::uint64_t table_clusters =
      std::min(divide_up(all_blocks * 8, cluster), limits::kQcow2RefcountTableBytesMax / cluster);
  header.refcount_table_offset_bytes = at * cluster;
  header.refcount_table_clusters = static_cast<std::uint32_t>(table_clusters);
  at += table_clusters;
  layout.blocks_offset_bytes = at * cluster;
  while (divide_up(at + layout.blocks, per_block) > layout.blocks) ++layout.blocks;
  layout.clusters = at + layout.blocks;
  return layout;
}

void write_refcounts(Device& file, const Layout& layout) {
  const std::uint64_t cluster = layout.header.cluster_bytes();
  const std::uint64_t per_block = layout.header.refcounts_in_block();
  Bytes table(layout.blocks * 8);
  for (std::uint64_t i = 0; i < layout.blocks; ++i) {
    const std::uint64_t offset = layout.blocks_offset_bytes + i * cluster;
    store_be(&table[i * 8], offset);
    Bytes block(cluster);
    const std::uint64_t used = std::min(per_block, layout.clusters - i * per_block);
    for (std::uint64_t j = 0; j < used; ++j) {
      qcow2::set_refcount(block, j, layout.header.refcount_order, 1);
    }
    file.write(offset, block);
  }
  file.write(layout.header.refcount_table_offset_bytes, table);
}

class PendingQcow2 final : public PendingDevice {
 public:
  PendingQcow2(std::shared_ptr<PendingFile> file, const Qcow2CreateOptions& options)
      : file_(std::move(file)) {
    format_qcow2(file_->device(), options);
    // The image keeps the file, whoever keeps the image.
    image_ = std::make_shared<qcow2::Image>(qcow2::ImageParts{
        .file = std::shared_ptr<Device>(file_, &file_->device()), .writable = true});
    device_ = qcow2::make_device(image_);
  }

  Device& device() noexcept override { return *device_; }
  void commit() override {
    image_->settle();
    file_->commit();
  }

 private:
  std::shared_ptr<PendingFile> file_;
  std::shared_ptr<qcow2::Image> image_;
  std::unique_ptr<Device> device_;
};

}  // namespace

void format_qcow2(Device& file, const Qcow2CreateOptions& options) {
  check_options(options);
  const Layout layout = make_layout(options);
  const std::uint64_t bytes = layout.clusters << layout.header.cluster_bits;
  if (file.size_bytes() < bytes) file.resize(bytes);
  file.write_zeroes(0, bytes, ZeroMode::kPunch);
  file.flush();
  write_refcounts(file, layout);
  file.flush();
  file.write(0, qcow2::encode_header(layout.header));
  file.flush();
}

std::unique_ptr<PendingDevice> create_qcow2(const std::string& path,
                                            const Qcow2CreateOptions& options, bool replace,
                                            bool direct) {
  auto file = std::make_shared<PendingFile>(path, 0, replace);
  if (direct) file->use_direct_io();
  return std::make_unique<PendingQcow2>(std::move(file), options);
}

}  // namespace lukskeep::storage
