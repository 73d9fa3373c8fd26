// A checker of refcounts for tests, written apart from the code under test as far as it can be.
#include <map>

#include <fmt/format.h>

#include "storage/qcow2_test_image.h"

namespace lukskeep::storage::qcow2_testing {
namespace {

struct Uses {
  std::map<std::uint64_t, std::uint64_t> of_cluster;
  std::uint64_t cluster_bytes = 0;

  void add(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    if (length_bytes == 0) return;
    const std::uint64_t last = (offset_bytes + length_bytes - 1) / cluster_bytes;
    for (std::uint64_t i = offset_bytes / cluster_bytes; i <= last; ++i) ++of_cluster[i];
  }
};

Bytes piece(ByteView image, std::uint64_t offset, std::uint64_t length) {
  Bytes out(length);
  for (std::uint64_t i = 0; i < length && offset + i < image.size(); ++i)
    out[i] = image[offset + i];
  return out;
}

void add_guest_clusters(ByteView image, const qcow2::Header& header, Uses& uses) {
  const Bytes l1 = piece(image, header.l1_offset_bytes, std::uint64_t{header.l1_entries} * 8);
  for (std::uint64_t i = 0; i < header.l1_entries; ++i) {
    const auto word = load_be<std::uint64_t>(&l1[i * 8]);
    const std::uint64_t table = qcow2::decode_l1_entry(word, header.cluster_bits, "l1", i);
    if (table == 0) continue;
    uses.add(table, header.cluster_bytes());
    const Bytes l2 = piece(image, table, header.cluster_bytes());
    for (std::uint64_t j = 0; j < header.l2_entries(); ++j) {
      const std::byte* at = &l2[j * header.l2_entry_bytes()];
      qcow2::L2Words words{.entry = load_be<std::uint64_t>(at)};
      if (header.extended_l2()) words.bitmap = load_be<std::uint64_t>(at + 8);
      const qcow2::L2Entry entry = qcow2::decode_l2_entry(header, words, "l2", j);
      if (entry.kind == qcow2::L2Entry::Kind::kAllocated) {
        uses.add(entry.host_bytes, header.cluster_bytes());
      } else if (entry.kind == qcow2::L2Entry::Kind::kCompressed) {
        uses.add(entry.host_bytes, entry.compressed_bytes);
      }
    }
  }
}

}  // namespace

std::string check_image(ByteView image, std::uint64_t& leaks) {
  const qcow2::Header header = header_of(image);
  const std::uint64_t cluster = header.cluster_bytes();
  Uses uses{.of_cluster = {}, .cluster_bytes = cluster};
  for (const qcow2::Place& place : qcow2::main_tables(header)) {
    uses.add(place.offset_bytes, place.size_bytes);
  }
  add_guest_clusters(image, header, uses);
  const Bytes table =
      piece(image, header.refcount_table_offset_bytes, header.refcount_table_clusters * cluster);
  std::map<std::uint64_t, std::uint64_t> counted;
  for (std::uint64_t i = 0; i * 8 < table.size(); ++i) {
    const auto offset = load_be<std::uint64_t>(&table[i * 8]);
    if (offset == 0) continue;
    uses.add(offset, cluster);
    const Bytes block = piece(image, offset, cluster);
    for (std::uint64_t j = 0; j < header.refcounts_in_block(); ++j) {
      const std::uint64_t count = qcow2::get_refcount(block, j, header.refcount_order);
      if (count != 0) counted[i * header.refcounts_in_block() + j] = count;
    }
  }
  for (const auto& [number, used] : uses.of_cluster) {
    if (counted[number] < used) {
      return fmt::format("cluster {} is used {} times, its refcount is {}", number, used,
                         counted[number]);
    }
  }
  leaks = 0;
  for (const auto& [number, count] : counted) {
    if (count > uses.of_cluster[number]) ++leaks;
  }
  return {};
}

namespace {

// The checker itself: what it must find is planted.
class CheckImageTest : public ::testing::Test {
 protected:
  // The refcount of the cluster `number`, 16 bits wide.
  void set_refcount(std::uint64_t number, std::uint16_t count) {
    const qcow2::Header header = header_of(image_);
    const auto block = load_be<std::uint64_t>(&image_[header.refcount_table_offset_bytes]);
    store_be<std::uint16_t>(&image_[block + number * 2], count);
  }

  Bytes image_ = fresh_image({.size_bytes = 1 << 20, .cluster_bits = 12});
  std::uint64_t leaks_ = 0;
};

TEST_F(CheckImageTest, FindsAClusterThatIsUsedAndNotCounted) {
  set_refcount(0, 0);
  EXPECT_EQ(check_image(image_, leaks_), "cluster 0 is used 1 times, its refcount is 0");
}

TEST_F(CheckImageTest, CountsLeaks) {
  const std::uint64_t last = image_.size() / 4096;
  set_refcount(last, 1);
  set_refcount(last + 1, 1);
  EXPECT_EQ(check_image(image_, leaks_), "");
  EXPECT_EQ(leaks_, 2U);
}

}  // namespace
}  // namespace lukskeep::storage::qcow2_testing
