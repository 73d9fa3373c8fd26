// Which clusters of an image are in use (qcow2 §Host cluster management): finding free ones and
// counting. What changes is in memory until the image commits. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "storage/qcow2_cache.h"
#include "storage/qcow2_format.h"
#include "storage/qcow2_host_file.h"

namespace lukskeep::storage::qcow2 {

// What is to be written where.
struct PlacedBytes {
  std::uint64_t offset_bytes = 0;
  Bytes bytes;
};

// Clusters of the image file, by number.
struct ClusterRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

class Refcounts {
 public:
  // Reads the refcount table. Throws kDamaged.
  Refcounts(const Header& header, HostFile& file, std::string name);

  std::uint64_t get(std::uint64_t cluster);
  // Takes free neighbours: `count` of them if `whole`, otherwise 1 to `count`. The file is long
  // enough for them afterwards. Throws kNoSpace.
  ClusterRun allocate(std::uint64_t count, bool whole);
  // One reference less. Throws kDamaged if there was none.
  void release(std::uint64_t cluster);

  bool crowded() const noexcept { return cache_.crowded(); }
  bool any_dirty() const noexcept { return cache_.any_dirty() || !changed_.empty(); }
  // Offsets of the refcount blocks.
  std::vector<std::uint64_t> blocks() const;
  // Behind the last cluster that is in use; at least what the file had when it was opened.
  std::uint64_t used_end_bytes();

  // What a commit writes: first the blocks, then, when they are durable, the table.
  struct Changes {
    std::vector<PlacedBytes> blocks;
    std::vector<std::uint64_t> table_indexes;
    std::vector<std::uint64_t> table;  // a copy; empty if nothing of it changed
    Place old_place;                   // of the table …
    Place place;                       // … and where it is from now on
  };
  Changes take_changes();
  // Offsets of the blocks that the table now has and storage does not.
  std::vector<std::uint64_t> take_new_blocks() { return std::exchange(new_blocks_, {}); }
  void write_table(const Changes& changes) const;
  void written() { cache_.written(); }

 private:
  std::uint64_t block_of(std::uint64_t cluster) const { return cluster / per_block_; }
  bool has_block(std::uint64_t block) const { return block < table_.size() && table_[block] != 0; }
  void set(std::uint64_t cluster, std::uint64_t value);
  TableCache::Slice& slice_of(std::uint64_t cluster, std::uint64_t& index_in_slice);
  std::uint64_t free_run(std::uint64_t at, std::uint64_t count);
  ClusterRun allocate_at_end(std::uint64_t count);
  std::uint64_t missing_blocks(std::uint64_t first, std::uint64_t end) const;
  void take(std::uint64_t first, std::uint64_t count);
  void move_table();

  HostFile& file_;
  std::string name_;
  std::uint64_t cluster_bytes_;
  std::uint32_t order_;
  std::uint64_t per_block_;
  std::size_t slice_bytes_;
  std::uint64_t per_slice_;
  Place place_;                         // of the table on storage
  std::vector<std::uint64_t> table_;    // offsets of blocks
  std::vector<std::uint64_t> changed_;  // indexes of table_ that storage lacks
  TableCache cache_;
  std::vector<std::uint64_t> new_blocks_;
  std::uint64_t first_end_ = 0;  // the end_ of the beginning
  std::uint64_t free_from_ = 0;  // no free cluster before this one
  std::uint64_t end_ = 0;        // all free from here on
};

}  // namespace lukskeep::storage::qcow2
