// The metadata of an open qcow2 image: where the bytes of the guest's disk are, and changing that
// so that no power cut leaves more than clusters that nobody uses.
//
// Order of writes. Data goes to new clusters at once; what refers to them stays in memory until
// commit(), which writes, with a flush after each step:
//   1. refcount blocks (and by its flush the data and the new, zeroed tables);
//   2. the refcount table, if it has new blocks, and the header, if that table has moved;
//   3. L2 and L1 entries;
//   4. refcounts of what nothing refers to any more.
// So on storage every cluster that is referred to is counted, always (qcow2 §Refcounts): a cut
// leaves clusters that are counted and not used, which `qemu-img check` calls leaks. Lazy refcounts
// would save step 1 at the price of an image that must be repaired after a cut.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include <lukskeep/device.h>

#include "storage/qcow2_cache.h"
#include "storage/qcow2_format.h"
#include "storage/qcow2_host_file.h"
#include "storage/qcow2_refcounts.h"

namespace lukskeep::storage::qcow2 {

struct ImageParts {
  std::shared_ptr<Device> file;
  std::shared_ptr<Device> backing;    // null: none; what is not allocated is zero
  std::shared_ptr<Device> data_file;  // as the header says whether there is one
  bool writable = false;
};

// A stretch of the guest's disk that has one answer.
struct Piece {
  enum class Kind : std::uint8_t { kZero, kBacking, kData, kCompressed };
  Kind kind = Kind::kZero;
  std::uint64_t length_bytes = 0;
  std::uint64_t host_bytes = 0;        // kData: of its first byte; kCompressed: of the cluster's
  std::uint64_t compressed_bytes = 0;  // kCompressed
  std::uint64_t skip_bytes = 0;        // kCompressed: inside the cluster
};

// Where a write goes. What is not `direct` is linked when its data is written, or abandoned.
struct Placement {
  std::uint64_t offset_bytes = 0;  // on the guest's disk
  std::uint64_t length_bytes = 0;  // of the part of the request that this is for
  std::uint64_t host_bytes = 0;
  bool direct = false;
  bool fresh = false;               // the host clusters are new
  std::uint64_t first_cluster = 0;  // on the guest's disk
  std::uint64_t clusters = 0;
  // Before and behind the request, up to here, the present contents are to be copied along.
  std::uint64_t fill_start_bytes = 0;
  std::uint64_t fill_end_bytes = 0;
};

// Reads and decodes the header of the image in `file`, for the names in it.
Header read_header(Device& file);

// All functions may be called by all threads. What throws kDamaged in the middle of a change leaves
// the image on storage as the last commit left it.
class Image {
 public:
  // Reads and checks the header and L1. Throws Error: kUnsupported, kDamaged; for writing also what
  // stands in its way (snapshots, bitmaps, a dirty image), with the remedy.
  explicit Image(ImageParts parts);
  // Commits what is not yet; what fails then is lost, as it was never flushed.
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  const Header& header() const noexcept { return header_; }
  const ImageParts& parts() const noexcept { return parts_; }
  const HostFile& file() const noexcept { return file_; }
  std::string name() const { return parts_.file->name(); }
  std::uint64_t size_bytes() const;

  // While one of these lives, no cluster that the image stops to use is given to somebody else:
  // what was mapped can be read.
  class Request {
   public:
    explicit Request(const Image& image);
    ~Request();
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

   private:
    const Image& image_;
    unsigned generation_ = 0;
  };

  // The first piece of a range, which is not empty and lies inside the disk.
  Piece map(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;

  // Waits for whoever is about to link the first cluster of the range.
  Placement place(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  void link(const Placement& placement);
  void abandon(const Placement& placement) noexcept;

  // Makes whole clusters read as zeroes, without data: as many from `first` as it can in one go, at
  // most `count`, which it returns. 0: this image cannot say so, zeroes must be written.
  std::uint64_t zero_clusters(std::uint64_t first, std::uint64_t count, ZeroMode mode);

  void flush();
  // Brings everything to storage, the refcounts of what was given up too, and cuts off room that
  // was made at the end of the file but not used. Nobody else may use the image meanwhile.
  void settle();
  // Commits if there is much to.
  void relieve();
  void resize(std::uint64_t size_bytes);

 private:
  friend class Request;

  std::string quoted_name() const;
  void require_parts();
  void read_l1();
  void check_writable();
  void refuse_snapshots() const;
  void refuse_bitmaps() const;
  void collect_metadata();
  void require_unfailed() const;

  // Under mutex_.
  std::uint64_t cluster_of(std::uint64_t offset) const { return offset >> header_.cluster_bits; }
  TableCache::Slice* slice_of(std::uint64_t cluster) const;
  L2Entry entry(std::uint64_t cluster) const;
  void set_entry(std::uint64_t cluster, const L2Entry& entry);
  void ensure_l2(std::uint64_t cluster);
  bool is_metadata(std::uint64_t offset_bytes) const;
  Piece piece_at(std::uint64_t offset_bytes) const;
  void check_host(const L2Entry& entry, std::uint64_t cluster) const;
  std::optional<Placement> place_present(const L2Entry& entry, std::uint64_t offset_bytes,
                                         std::uint64_t length_bytes) const;
  Placement place_new(const L2Entry& entry, std::uint64_t offset_bytes, std::uint64_t length_bytes);
  std::uint32_t units_touched(const Placement& placement, std::uint64_t cluster) const;
  void link_one(const Placement& placement, std::uint64_t index);
  void free_host(const L2Entry& entry);
  void refuse_table(std::uint64_t host_bytes) const;
  void finish(const Placement& placement);
  std::optional<L2Entry> zeroed(const L2Entry& entry, ZeroMode mode) const;

  // The steps of a commit.
  struct Changes {
    Refcounts::Changes refcounts;
    std::vector<PlacedBytes> slices;
    std::vector<PlacedBytes> l1;
    std::vector<ClusterRun> freed;
  };
  bool commit();
  Changes take_changes();
  void write_changes(const Changes& changes);
  void write_all(const std::vector<PlacedBytes>& writes);
  void retire(std::vector<ClusterRun> freed);
  void release_limbo(bool all);
  void write_header_fields(std::uint64_t offset_bytes, ByteView bytes);
  void punch(const std::vector<ClusterRun>& runs);
  std::vector<ClusterRun> move_l1(std::uint64_t entries);

  ImageParts parts_;
  mutable HostFile file_;
  Header header_;
  std::vector<Place> main_tables_;

  std::mutex commit_mutex_;  // one commit at a time; taken before mutex_
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> l1_;
  std::set<std::uint64_t> l1_changed_;
  mutable TableCache slices_;
  std::unique_ptr<Refcounts> refcounts_;  // of a writable image
  std::vector<std::uint64_t> metadata_;   // sorted offsets of L2 tables and refcount blocks
  std::unordered_set<std::uint64_t> new_metadata_;
  std::set<std::uint64_t> busy_;  // guest clusters that are about to be linked
  std::condition_variable not_busy_;
  std::string failure_;  // of a commit: nothing is written any more

  // Clusters that nothing refers to: in memory; on storage too, but perhaps a request still reads
  // them. Requests are counted by two generations.
  std::vector<ClusterRun> freed_;
  std::vector<ClusterRun> limbo_next_;
  std::vector<ClusterRun> limbo_;
  mutable std::array<std::uint64_t, 2> requests_{};
  unsigned generation_ = 0;
};

// The guest's disk, or an EncryptedImage.
std::unique_ptr<Device> make_device(std::shared_ptr<Image> image);

}  // namespace lukskeep::storage::qcow2
