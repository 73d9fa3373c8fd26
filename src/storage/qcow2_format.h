// The qcow2 format to and from values: bytes in, values out; no I/O. References are to QEMU's
// docs/interop/qcow2.txt, here "qcow2 §Section". Everything on disk is big endian.
//
// Every decoder takes `what`, the name of the image, with which messages start, and throws
// Error{kDamaged} for what contradicts the format, kUnsupported for what is sound but unknown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace lukskeep::storage::qcow2 {

inline constexpr std::uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
inline constexpr std::size_t kHeaderBytesV2 = 72;
inline constexpr std::size_t kHeaderBytesV3 = 104;  // without the compression type
inline constexpr std::size_t kHeaderBytes = 112;    // what encode_header writes for version 3

// §Header, incompatible_features.
inline constexpr std::uint64_t kIncompatibleDirty = 1U << 0;
inline constexpr std::uint64_t kIncompatibleCorrupt = 1U << 1;
inline constexpr std::uint64_t kIncompatibleDataFile = 1U << 2;
inline constexpr std::uint64_t kIncompatibleCompression = 1U << 3;
inline constexpr std::uint64_t kIncompatibleExtendedL2 = 1U << 4;
inline constexpr std::uint64_t kIncompatibleKnown = 0x1f;
// §Header, autoclear_features.
inline constexpr std::uint64_t kAutoclearBitmaps = 1U << 0;
inline constexpr std::uint64_t kAutoclearRawDataFile = 1U << 1;

enum class CryptMethod : std::uint8_t { kNone = 0, kLegacyAes = 1, kLuks = 2 };
enum class Compression : std::uint8_t { kDeflate = 0, kZstd = 1 };

// A range of the image file.
struct Place {
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;

  bool operator==(const Place&) const = default;
};

struct Header {
  std::uint32_t version = 3;
  std::uint32_t cluster_bits = 16;
  std::uint64_t size_bytes = 0;  // of the guest's disk
  CryptMethod crypt_method = CryptMethod::kNone;
  std::uint64_t l1_offset_bytes = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t refcount_table_offset_bytes = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t snapshots = 0;
  std::uint64_t snapshots_offset_bytes = 0;
  std::uint64_t incompatible_features = 0;
  std::uint64_t compatible_features = 0;
  std::uint64_t autoclear_features = 0;
  std::uint32_t refcount_order = 4;
  Compression compression = Compression::kDeflate;
  std::string backing_file;                   // empty: none
  std::optional<std::string> backing_format;  // as the extension says
  std::optional<std::string> data_file;       // likewise
  std::optional<Place> crypto_header;         // the area of the LUKS header
  std::uint32_t bitmaps = 0;
  Place bitmap_directory;

  std::uint64_t cluster_bytes() const { return std::uint64_t{1} << cluster_bits; }
  bool extended_l2() const { return (incompatible_features & kIncompatibleExtendedL2) != 0; }
  bool has_data_file() const { return (incompatible_features & kIncompatibleDataFile) != 0; }
  bool raw_data_file() const { return (autoclear_features & kAutoclearRawDataFile) != 0; }
  std::uint32_t l2_entry_bytes() const { return extended_l2() ? 16 : 8; }
  std::uint64_t l2_entries() const { return cluster_bytes() / l2_entry_bytes(); }
  // The smallest unit that is allocated: a subcluster, or the cluster.
  std::uint64_t unit_bytes() const {
    return extended_l2() ? cluster_bytes() / 32 : cluster_bytes();
  }
  std::uint64_t refcounts_in_block() const { return cluster_bytes() * 8 >> refcount_order; }
  // L1 entries that the guest's disk needs.
  std::uint64_t l1_entries_needed() const;

  bool operator==(const Header&) const = default;
};

// Whether `start`, the first bytes of a file, has the magic of qcow2, of any version.
bool is_qcow2(ByteView start) noexcept;

// How many bytes from the start of the file decode_header needs: the first cluster, which holds all
// of the header. 0 if `start` (kHeaderBytesV2 bytes or more) does not say so soundly.
std::uint64_t header_area_bytes(ByteView start) noexcept;

// Decodes `area`, the first cluster (or all of a file that is shorter), and checks what can be
// checked without the file: ranges, sizes, alignment, extensions, that no two tables overlap, and
// limits::kQcow2*. Unknown extensions and compatible bits are passed over, unknown incompatible
// bits are refused with the names that the image gives them. `file_bytes`: that tables start
// within the file.
Header decode_header(ByteView area, std::uint64_t file_bytes, std::string_view what);

// The header with its extensions, padded with zeroes to one cluster: what decode_header makes
// `header` of. Throws kInvalidArgument if it does not fit or is nothing that decode_header takes.
Bytes encode_header(const Header& header);

// The tables that the header names (itself included), without overlaps; none is empty.
std::vector<Place> main_tables(const Header& header);

// §Refcounts: entry `index` of a block.
std::uint64_t get_refcount(ByteView block, std::uint64_t index, std::uint32_t order) noexcept;
void set_refcount(MutableBytes block, std::uint64_t index, std::uint32_t order,
                  std::uint64_t value) noexcept;
std::uint64_t refcount_max(std::uint32_t order) noexcept;

// §Cluster mapping: the offset that an entry of the refcount table or of L1 holds, 0 for none.
// `owner` as in "L1 entry 3". Throws kDamaged for reserved bits and offsets between clusters.
std::uint64_t decode_refcount_table_entry(std::uint64_t entry, std::uint32_t cluster_bits,
                                          std::string_view what, std::uint64_t index);
std::uint64_t decode_l1_entry(std::uint64_t entry, std::uint32_t cluster_bits,
                              std::string_view what, std::uint64_t index);

inline constexpr std::uint64_t kCopiedFlag = std::uint64_t{1} << 63;  // refcount is exactly one
inline constexpr std::uint64_t kCompressedFlag = std::uint64_t{1} << 62;
inline constexpr std::uint64_t kZeroFlag = 1;

// One guest cluster as L2 has it.
struct L2Entry {
  enum class Kind : std::uint8_t { kUnallocated, kAllocated, kCompressed };
  Kind kind = Kind::kUnallocated;
  bool copied = false;
  std::uint64_t host_bytes = 0;        // kAllocated: of the cluster; kCompressed: of its first byte
  std::uint64_t compressed_bytes = 0;  // kCompressed: upper bound, to the end of its last sector
  // One bit a subcluster; without extended L2 all or none of them.
  std::uint32_t allocated = 0;
  std::uint32_t zero = 0;

  bool operator==(const L2Entry&) const = default;
};

// `guest_cluster` is for messages. `bitmap` is the second half of an extended entry.
struct L2Words {
  std::uint64_t entry = 0;
  std::uint64_t bitmap = 0;

  bool operator==(const L2Words&) const = default;
};
L2Entry decode_l2_entry(const Header& header, L2Words words, std::string_view what,
                        std::uint64_t guest_cluster);
// kUnallocated and kAllocated only: nothing here writes compressed clusters.
L2Words encode_l2_entry(const Header& header, const L2Entry& entry);

// §Snapshots and §Bitmaps: what is said when they stand in the way of writing.
struct Snapshot {
  std::string id;
  std::string name;
  std::uint64_t l1_offset_bytes = 0;
  std::uint32_t l1_entries = 0;
};
// `table` reaches from the table's start to limits::kQcow2SnapshotTableBytesMax or the end of the
// file; `count` is at most limits::kQcow2SnapshotsMax.
std::vector<Snapshot> decode_snapshots(ByteView table, std::uint32_t count,
                                       std::uint32_t cluster_bits, std::string_view what);
struct Bitmap {
  std::string name;
  std::uint64_t table_offset_bytes = 0;
  std::uint32_t table_entries = 0;
  bool in_use = false;
};
std::vector<Bitmap> decode_bitmaps(ByteView directory, std::uint32_t count,
                                   std::uint32_t cluster_bits, std::string_view what);

}  // namespace lukskeep::storage::qcow2
