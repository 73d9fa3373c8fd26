#include "storage/qcow2_compress.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include <zlib.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/copy_job.h"
#include "storage/extents.h"
#include "storage/qcow2_format.h"

namespace lukskeep::storage {
namespace {

constexpr std::uint32_t kClusterBits = 16;
constexpr std::uint64_t kCluster = std::uint64_t{1} << kClusterBits;
constexpr std::uint64_t kL2Entries = kCluster / 8;
constexpr std::uint64_t kRefcountsInBlock = kCluster / 2;
constexpr std::uint64_t kGrowBytes = 64 * limits::kMiB;
// §Compressed Clusters Descriptor.
constexpr unsigned kSectorsShift = 62 - (kClusterBits - 8);
// QEMU (block/qcow2-threads.c): raw deflate with a window of 4 KiB.
constexpr int kWindowBits = -12;
constexpr int kMemoryLevel = 9;

std::uint64_t divide_up(std::uint64_t value, std::uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}

// One guest cluster on its way: compressed, as it is, or nothing.
struct Packed {
  Bytes bytes;  // empty: all zero
  bool compressed = false;
};

class Deflater {
 public:
  Deflater() {
    if (deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWindowBits, kMemoryLevel,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
      throw Error(Code::kOutOfMemory, "no memory to compress with");
    }
  }
  ~Deflater() { deflateEnd(&stream_); }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  // `cluster` may be shorter at the end of the disk.
  Packed pack(ByteView cluster) {
    if (all_zero(cluster)) return {};
    Bytes whole(cluster.begin(), cluster.end());
    whole.resize(kCluster);
    Bytes out(kCluster - 1);
    deflateReset(&stream_);
    stream_.next_in = reinterpret_cast<Bytef*>(whole.data());
    stream_.avail_in = static_cast<uInt>(whole.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    if (deflate(&stream_, Z_FINISH) != Z_STREAM_END) return {.bytes = std::move(whole)};
    out.resize(out.size() - stream_.avail_out);
    return {.bytes = std::move(out), .compressed = true};
  }

 private:
  z_stream stream_{};
};

// Puts clusters one behind the other, and the tables where their time comes. One thread at a time.
class Writer {
 public:
  Writer(Device& file, std::uint64_t size_bytes) : file_(file) {
    header_.cluster_bits = kClusterBits;
    header_.size_bytes = size_bytes;
    const std::uint64_t l1_entries = header_.l1_entries_needed();
    if (l1_entries * 8 > limits::kQcow2L1BytesMax) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("a qcow2 image with clusters of {} bytes cannot have {} bytes",
                              kCluster, size_bytes));
    }
    header_.l1_entries = static_cast<std::uint32_t>(l1_entries);
    header_.l1_offset_bytes = kCluster;
    l1_.resize(l1_entries * 8);
    l2_.resize(kCluster);
    file_.resize(0);
    end_bytes_ = kCluster;
    take_clusters(divide_up(l1_.size(), kCluster));
    count(0, kCluster);
  }

  // Guest clusters in their order.
  void add(std::uint64_t cluster, const Packed& packed) {
    const std::uint64_t table = cluster / kL2Entries;
    if (table != table_) end_table();
    table_ = table;
    if (packed.bytes.empty()) return;
    l2_used_ = true;
    std::byte* entry = &l2_[cluster % kL2Entries * 8];
    if (!packed.compressed) return store_be(entry, put_clusters(packed.bytes) | qcow2::kCopiedFlag);
    const std::uint64_t at = end_bytes_;
    const std::uint64_t size = packed.bytes.size();
    put(at, packed.bytes);
    // Counted as QEMU counts it: each cluster that its sectors touch.
    count(at, size);
    end_bytes_ += size;
    const std::uint64_t more_sectors = (at + size - 1) / 512 - at / 512;
    store_be(entry, qcow2::kCompressedFlag | more_sectors << kSectorsShift | at);
  }

  void finish() {
    end_table();
    put(header_.l1_offset_bytes, l1_);
    put_refcounts();
    file_.resize(divide_up(end_bytes_, kCluster) * kCluster);
    put(0, qcow2::encode_header(header_));
  }

 private:
  // Where whole clusters start that are at the end of the file.
  std::uint64_t take_clusters(std::uint64_t clusters) {
    const std::uint64_t at = divide_up(end_bytes_, kCluster) * kCluster;
    end_bytes_ = at + clusters * kCluster;
    if (clusters != 0) count(at, clusters * kCluster);
    return at;
  }

  std::uint64_t put_clusters(ByteView bytes) {
    const std::uint64_t at = take_clusters(divide_up(bytes.size(), kCluster));
    put(at, bytes);
    return at;
  }

  void put(std::uint64_t at, ByteView bytes) {
    if (at + bytes.size() > file_.size_bytes()) {
      file_.resize(divide_up(at + bytes.size(), kGrowBytes) * kGrowBytes);
    }
    file_.write(at, bytes);
  }

  void count(std::uint64_t at, std::uint64_t size) {
    const std::uint64_t last = (at + size - 1) / kCluster;
    if (refcounts_.size() <= last) refcounts_.resize(last + 1);
    for (std::uint64_t i = at / kCluster; i <= last; ++i) ++refcounts_[i];
  }

  void end_table() {
    if (!l2_used_) return;
    store_be(&l1_[table_ * 8], put_clusters(l2_) | qcow2::kCopiedFlag);
    std::ranges::fill(l2_, std::byte{0});
    l2_used_ = false;
  }

  // Blocks and table count themselves as well: as many as are enough for that.
  void put_refcounts() {
    const std::uint64_t before = divide_up(end_bytes_, kCluster);
    std::uint64_t blocks = 0;
    std::uint64_t table = 0;
    const auto all = [&] { return before + blocks + table; };
    while (divide_up(all(), kRefcountsInBlock) > blocks ||
           divide_up(blocks * 8, kCluster) > table) {
      blocks = divide_up(all(), kRefcountsInBlock);
      table = divide_up(blocks * 8, kCluster);
    }
    header_.refcount_table_offset_bytes = take_clusters(table);
    header_.refcount_table_clusters = static_cast<std::uint32_t>(table);
    const std::uint64_t first_block = take_clusters(blocks);
    Bytes entries(table * kCluster);
    for (std::uint64_t i = 0; i < blocks; ++i) {
      const std::uint64_t offset = first_block + i * kCluster;
      store_be(&entries[i * 8], offset);
      Bytes block(kCluster);
      const std::uint64_t start = i * kRefcountsInBlock;
      const std::uint64_t end = std::min(start + kRefcountsInBlock, refcounts_.size());
      for (std::uint64_t j = start; j < end; ++j) {
        store_be(&block[(j - start) * 2], refcounts_[j]);
      }
      put(offset, block);
    }
    put(header_.refcount_table_offset_bytes, entries);
  }

  Device& file_;
  qcow2::Header header_;
  Bytes l1_;
  Bytes l2_;  // the table that is being filled
  std::uint64_t table_ = 0;
  bool l2_used_ = false;
  std::uint64_t end_bytes_ = 0;
  std::vector<std::uint16_t> refcounts_;
};

bool is_hole(const Device& source, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  return !any_extent(source, offset_bytes, length_bytes,
                     [](const Extent& extent) { return !extent.zero; });
}

}  // namespace

void write_compressed_qcow2(const Device& source, Device& file, const CopyOptions& options) {
  static_assert(limits::kCopyChunkBytes % kCluster == 0);
  const std::uint64_t size = source.size_bytes();
  CopyOptions chosen = options;
  chosen.chunk_bytes = limits::kCopyChunkBytes;
  CopyJob job(chosen, size);
  Writer writer(file, size);
  std::atomic<std::uint64_t> next_index{0};
  const std::uint64_t chunks = divide_up(size, job.chunk_bytes());
  job.run([&](MutableBytes buffer) {
    Deflater deflater;
    for (std::uint64_t index = next_index++; index < chunks; index = next_index++) {
      const std::uint64_t offset = index * job.chunk_bytes();
      const MutableBytes data =
          buffer.first(std::min<std::uint64_t>(job.chunk_bytes(), size - offset));
      const bool hole = is_hole(source, offset, data.size());
      if (!job.admit(hole ? 0 : data.size())) return;
      std::vector<Packed> packed(divide_up(data.size(), kCluster));
      if (!hole) {
        source.read(offset, data);
        for (std::size_t i = 0; i < packed.size(); ++i) {
          const ByteView rest = ByteView(data).subspan(i * kCluster);
          packed[i] = deflater.pack(rest.first(std::min<std::uint64_t>(rest.size(), kCluster)));
        }
      }
      if (!job.wait_for_turn(index)) return;
      for (std::size_t i = 0; i < packed.size(); ++i) {
        writer.add(offset / kCluster + i, packed[i]);
      }
      job.end_turn();
      job.add_done(data.size());
    }
  });
  writer.finish();
}

}  // namespace lukskeep::storage
