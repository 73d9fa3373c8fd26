// The guest's disk of a qcow2 image as a Device, and the EncryptedImage in front of it.
#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/qcow2.h"
#include "storage/qcow2_decompress.h"
#include "storage/qcow2_image.h"
#include "storage/qcow2_inflated.h"
#include "storage/request.h"
#include "storage/window_device.h"

namespace lukskeep::storage {
namespace {

using qcow2::Image;
using qcow2::Piece;
using qcow2::Placement;

class GuestDevice final : public Device {
 public:
  // `clusters` has the data at the offsets that L2 says: the file itself, the data file, or the
  // file behind a cipher.
  GuestDevice(std::shared_ptr<Image> image, std::shared_ptr<Device> clusters)
      : image_(std::move(image)),
        clusters_(std::move(clusters)),
        inflated_(image_->header().cluster_bytes()) {}

  std::string name() const override { return image_->name(); }
  std::uint64_t size_bytes() const override { return image_->size_bytes(); }
  bool writable() const override { return image_->parts().writable && clusters_->writable(); }
  std::uint32_t block_size_bytes() const override {
    const std::uint64_t unit = image_->header().unit_bytes();
    return std::max<std::uint32_t>(clusters_->block_size_bytes(),
                                   static_cast<std::uint32_t>(std::min<std::uint64_t>(unit, 4096)));
  }

  void read(std::uint64_t offset_bytes, MutableBytes out) const override {
    check_range(*this, "read", {offset_bytes, out.size()});
    const Image::Request request(*image_);
    read_present(offset_bytes, out);
  }

  void write(std::uint64_t offset_bytes, ByteView data) override {
    write_any(offset_bytes, data,
              [&](std::uint64_t at, ByteView part) { clusters_->write(at, part); });
  }

  void write_in_place(std::uint64_t offset_bytes, MutableBytes data) override {
    write_any(offset_bytes, data,
              [&](std::uint64_t at, MutableBytes part) { clusters_->write_in_place(at, part); });
  }

  void write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                    ZeroMode mode) override {
    check_change(*this, "zero", {offset_bytes, length_bytes});
    const std::uint64_t cluster = image_->header().cluster_bytes();
    std::uint64_t end = offset_bytes + length_bytes;
    // The last cluster is whole when the disk ends inside it.
    const std::uint64_t whole_end =
        end == size_bytes() ? (end + cluster - 1) / cluster : end / cluster;
    const std::uint64_t whole_start = (offset_bytes + cluster - 1) / cluster;
    if (whole_start >= whole_end) return zero_in_part(offset_bytes, length_bytes);
    zero_in_part(offset_bytes, whole_start * cluster - offset_bytes);
    for (std::uint64_t at = whole_start; at < whole_end;) {
      image_->relieve();
      const std::uint64_t done = image_->zero_clusters(at, whole_end - at, mode);
      if (done == 0) {
        const std::uint64_t start = at * cluster;
        zero_in_part(start, std::min(cluster, size_bytes() - start));
      }
      at += std::max<std::uint64_t>(done, 1);
    }
    if (whole_end * cluster < end) zero_in_part(whole_end * cluster, end - whole_end * cluster);
  }

  void flush() override { image_->flush(); }
  std::unique_ptr<DeviceLock> lock_metadata() override { return clusters_->lock_metadata(); }

  void resize(std::uint64_t size) override {
    if (!writable()) {
      throw Error(Code::kReadOnly, fmt::format("cannot resize '{}': it is read-only", name()));
    }
    const std::uint64_t old = size_bytes();
    const std::uint64_t cluster = image_->header().cluster_bytes();
    if (size < old) write_zeroes(size, old - size, ZeroMode::kPunch);
    image_->resize(size);
    // Behind the old end others may have left something in its cluster.
    const std::uint64_t behind = std::min(size, (old + cluster - 1) / cluster * cluster);
    if (behind > old) zero_in_part(old, behind - old);
  }

  std::vector<Extent> extents(std::uint64_t offset_bytes,
                              std::uint64_t length_bytes) const override {
    check_range(*this, "map", {offset_bytes, length_bytes});
    const Image::Request request(*image_);
    std::vector<Extent> all;
    const std::uint64_t end = offset_bytes + length_bytes;
    for (std::uint64_t at = offset_bytes; at < end;) {
      const Piece piece = image_->map(at, end - at);
      append_piece(piece, at, all);
      at += piece.length_bytes;
    }
    return all;
  }

 private:
  void read_present(std::uint64_t offset_bytes, MutableBytes out) const {
    while (!out.empty()) {
      const Piece piece = image_->map(offset_bytes, out.size());
      const MutableBytes part = out.first(piece.length_bytes);
      switch (piece.kind) {
        case Piece::Kind::kZero:
          std::ranges::fill(part, std::byte{0});
          break;
        case Piece::Kind::kBacking:
          read_backing(offset_bytes, part);
          break;
        case Piece::Kind::kData:
          read_clusters(piece.host_bytes, part);
          break;
        case Piece::Kind::kCompressed:
          read_compressed(piece, part);
      }
      offset_bytes += part.size();
      out = out.subspan(part.size());
    }
  }

  // What a file lacks at its end reads as zeroes, as it does for QEMU.
  static void read_padded(const Device& device, std::uint64_t offset_bytes, MutableBytes out) {
    const std::uint64_t size = device.size_bytes();
    const std::size_t present =
        offset_bytes >= size ? 0 : std::min<std::uint64_t>(out.size(), size - offset_bytes);
    if (present > 0) device.read(offset_bytes, out.first(present));
    std::ranges::fill(out.subspan(present), std::byte{0});
  }

  void read_backing(std::uint64_t offset_bytes, MutableBytes out) const {
    read_padded(*image_->parts().backing, offset_bytes, out);
  }

  void read_clusters(std::uint64_t host_bytes, MutableBytes out) const {
    read_padded(*clusters_, host_bytes, out);
  }

  void read_compressed(const Piece& piece, MutableBytes out) const {
    const auto inflate = [&](MutableBytes cluster) {
      Bytes data(piece.compressed_bytes);
      image_->file().read(piece.host_bytes, data, "a compressed cluster");
      qcow2::decompress(image_->header().compression, data, cluster,
                        fmt::format("'{}' at {}", name(), piece.host_bytes));
    };
    // Who reads whole clusters, as copies do, will not be back.
    if (out.size() == image_->header().cluster_bytes()) return inflate(out);
    inflated_.read({.host_bytes = piece.host_bytes, .compressed_bytes = piece.compressed_bytes},
                   piece.skip_bytes, out, inflate);
  }

  template <typename Span, typename Write>
  void write_any(std::uint64_t offset_bytes, Span data, const Write& write_clusters) {
    check_change(*this, "write", {offset_bytes, data.size()});
    while (!data.empty()) {
      image_->relieve();
      const Image::Request request(*image_);
      const Placement placement = image_->place(offset_bytes, data.size());
      const Span part = data.first(placement.length_bytes);
      if (placement.direct) {
        write_clusters(placement.host_bytes, part);
      } else {
        try {
          fill_around(placement);
          write_clusters(placement.host_bytes, part);
        } catch (...) {
          image_->abandon(placement);
          throw;
        }
        image_->link(placement);
      }
      offset_bytes += part.size();
      data = data.subspan(part.size());
    }
  }

  // A new cluster holds all that the old one, the backing file or nobody held there.
  void fill_around(const Placement& placement) {
    const std::uint64_t end = placement.offset_bytes + placement.length_bytes;
    fill(placement, placement.fill_start_bytes, placement.offset_bytes);
    fill(placement, end, placement.fill_end_bytes);
  }

  void fill(const Placement& placement, std::uint64_t from, std::uint64_t to) {
    if (from >= to) return;
    Bytes bytes(to - from);
    // The disk may end inside its last cluster.
    const std::uint64_t size = size_bytes();
    if (from < size) {
      read_present(from, MutableBytes(bytes).first(std::min(to, size) - from));
    }
    clusters_->write_in_place(placement.host_bytes + from - placement.offset_bytes, bytes);
  }

  // Less than a cluster. What is zero stays without data.
  void zero_in_part(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    static const std::array<std::byte, 64 * limits::kKiB> kZeroes{};
    while (length_bytes > 0) {
      const Piece piece =
          image_->map(offset_bytes, std::min<std::uint64_t>(length_bytes, kZeroes.size()));
      if (piece.kind != Piece::Kind::kZero) {
        write(offset_bytes, ByteView(kZeroes).first(piece.length_bytes));
      }
      offset_bytes += piece.length_bytes;
      length_bytes -= piece.length_bytes;
    }
  }

  static void append(std::vector<Extent>& all, const Extent& next) {
    if (next.length_bytes == 0) return;
    if (!all.empty() && all.back().zero == next.zero) {
      all.back().length_bytes += next.length_bytes;
    } else {
      all.push_back(next);
    }
  }

  // The extents of `below` from `host_bytes` on, which is `at` here; behind its end all is zero.
  static void append_below(const Device& below, std::uint64_t host_bytes, const Extent& range,
                           std::vector<Extent>& all) {
    const std::uint64_t size = below.size_bytes();
    const std::uint64_t present =
        host_bytes >= size ? 0 : std::min(range.length_bytes, size - host_bytes);
    if (present > 0) {
      for (const Extent& extent : below.extents(host_bytes, present)) {
        append(all, {.offset_bytes = extent.offset_bytes - host_bytes + range.offset_bytes,
                     .length_bytes = extent.length_bytes,
                     .zero = extent.zero});
      }
    }
    append(all, {.offset_bytes = range.offset_bytes + present,
                 .length_bytes = range.length_bytes - present,
                 .zero = true});
  }

  void append_piece(const Piece& piece, std::uint64_t at, std::vector<Extent>& all) const {
    const Extent range{.offset_bytes = at,
                       .length_bytes = piece.length_bytes,
                       .zero = piece.kind == Piece::Kind::kZero};
    if (piece.kind == Piece::Kind::kData) {
      append_below(*clusters_, piece.host_bytes, range, all);
    } else if (piece.kind == Piece::Kind::kBacking) {
      append_below(*image_->parts().backing, at, range, all);
    } else {
      append(all, range);
    }
  }

  std::shared_ptr<Image> image_;
  std::shared_ptr<Device> clusters_;
  mutable qcow2::InflatedClusters inflated_;
};

class LuksImage final : public EncryptedImage {
 public:
  explicit LuksImage(std::shared_ptr<Image> image)
      : image_(std::move(image)), area_(make_area(*image_)) {}

  std::shared_ptr<Device> sectors() const override { return image_->parts().file; }
  std::unique_ptr<Device> contents(std::shared_ptr<Device> decrypted) const override {
    return std::make_unique<GuestDevice>(image_, std::move(decrypted));
  }
  std::uint64_t contents_bytes() const override { return image_->size_bytes(); }

  std::string name() const override { return image_->name(); }
  std::uint64_t size_bytes() const override { return area_->size_bytes(); }
  bool writable() const override { return image_->parts().writable; }
  std::uint32_t block_size_bytes() const override { return area_->block_size_bytes(); }
  void read(std::uint64_t offset_bytes, MutableBytes out) const override {
    area_->read(offset_bytes, out);
  }
  void write(std::uint64_t offset_bytes, ByteView data) override {
    check_change(*this, "write", {offset_bytes, data.size()});
    area_->write(offset_bytes, data);
  }
  void flush() override { image_->flush(); }
  std::unique_ptr<DeviceLock> lock_metadata() override { return area_->lock_metadata(); }

 private:
  // decode_header refuses LUKS images without such an area.
  static std::unique_ptr<Device> make_area(const Image& image) {
    const qcow2::Place area = image.header().crypto_header.value_or(qcow2::Place{});
    return make_window(image.parts().file,
                       {.offset_bytes = area.offset_bytes, .size_bytes = area.size_bytes});
  }

  std::shared_ptr<Image> image_;
  std::unique_ptr<Device> area_;
};

}  // namespace

namespace qcow2 {

std::unique_ptr<Device> make_device(std::shared_ptr<Image> image) {
  if (image->header().crypt_method == CryptMethod::kLuks) {
    return std::make_unique<LuksImage>(std::move(image));
  }
  const ImageParts& parts = image->parts();
  auto clusters = image->header().has_data_file() ? parts.data_file : parts.file;
  return std::make_unique<GuestDevice>(std::move(image), std::move(clusters));
}

}  // namespace qcow2

std::unique_ptr<Device> open_qcow2_on(Qcow2Devices devices) {
  return qcow2::make_device(
      std::make_shared<Image>(qcow2::ImageParts{.file = std::move(devices.file),
                                                .backing = std::move(devices.backing),
                                                .data_file = std::move(devices.data_file),
                                                .writable = devices.writable}));
}

}  // namespace lukskeep::storage
