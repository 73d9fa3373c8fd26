#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/qcow2_test_image.h"

namespace lukskeep::storage::qcow2 {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kFileBytes = 64 * 65536;

// An image header that is sound, with everything in it that a header can name.
Header full_header() {
  Header header;
  header.size_bytes = 1 << 30;
  header.l1_entries = 2;
  header.l1_offset_bytes = 3 * 65536;
  header.refcount_table_offset_bytes = 65536;
  header.refcount_table_clusters = 1;
  return header;
}

Header crypto_header() {
  Header header = full_header();
  header.crypt_method = CryptMethod::kLuks;
  header.crypto_header = Place{4 * 65536, 2 * 65536};
  return header;
}

void put32(Bytes& bytes, std::size_t at, std::uint32_t value) { store_be(&bytes[at], value); }
void put64(Bytes& bytes, std::size_t at, std::uint64_t value) { store_be(&bytes[at], value); }

// Replaces the extensions of `bytes` by one.
void put_extension(Bytes& bytes, std::uint32_t type, std::uint32_t length, ByteView data) {
  put32(bytes, kHeaderBytes, type);
  put32(bytes, kHeaderBytes + 4, length);
  std::copy(data.begin(), data.end(), bytes.begin() + kHeaderBytes + 8);
}

TEST(Qcow2Format, EncodesWhatItDecodes) {
  Header with_names = full_header();
  with_names.backing_file = "base.img";
  with_names.backing_format = "raw";
  Header with_data = full_header();
  with_data.incompatible_features = kIncompatibleDataFile;
  with_data.autoclear_features = kAutoclearRawDataFile;
  with_data.data_file = "data.raw";
  Header with_bitmaps = full_header();
  with_bitmaps.autoclear_features = kAutoclearBitmaps;
  with_bitmaps.bitmaps = 2;
  with_bitmaps.bitmap_directory = {8 * 65536, 64};
  Header zstd = full_header();
  zstd.compression = Compression::kZstd;
  zstd.incompatible_features = kIncompatibleCompression | kIncompatibleExtendedL2;
  zstd.l1_entries = 4;
  Header old = full_header();
  old.version = 2;
  for (const Header& header :
       {full_header(), crypto_header(), with_names, with_data, with_bitmaps, zstd, old}) {
    const Bytes bytes = encode_header(header);
    EXPECT_EQ(bytes.size(), header.cluster_bytes());
    EXPECT_EQ(decode_header(bytes, kFileBytes, "x"), header);
  }
}

struct HostileHeader {
  std::string name;
  std::function<void(Bytes&)> harm;
  std::string message;
  Code code = Code::kDamaged;
  bool encrypted = false;
  std::uint64_t file_bytes = kFileBytes;
};

void PrintTo(const HostileHeader& row, std::ostream* out) { *out << row.name; }

std::vector<HostileHeader> fixed_field_rows() {
  const auto set32 = [](std::size_t at, std::uint32_t value) {
    return [=](Bytes& bytes) { put32(bytes, at, value); };
  };
  const auto set64 = [](std::size_t at, std::uint64_t value) {
    return [=](Bytes& bytes) { put64(bytes, at, value); };
  };
  const Code unsupported = Code::kUnsupported;
  return {
      {"no magic", set32(0, 0), "no qcow2", unsupported},
      {"empty", [](Bytes& b) { b.clear(); }, "no qcow2", unsupported},
      {"four bytes", [](Bytes& b) { b.resize(4); }, "no qcow2", unsupported},
      {"cut in version 2", [](Bytes& b) { b.resize(71); }, "no qcow2", unsupported},
      {"cut in version 3", [](Bytes& b) { b.resize(103); }, "ends inside the header"},
      {"version 1", set32(4, 1), "version 1", unsupported},
      {"version 4", set32(4, 4), "version 4", unsupported},
      {"cluster_bits 8", set32(20, 8), "cluster_bits 8"},
      {"cluster_bits 22", set32(20, 22), "cluster_bits 22"},
      {"cluster_bits huge", set32(20, 0xffffffff), "cluster_bits 4294967295"},
      {"crypt_method 3", set32(32, 3), "crypt_method 3", unsupported},
      {"LUKS without its header", set32(32, 2), "no encryption header"},
      {"L1 of 4 GiB entries", set32(36, 0xffffffff), "L1 table of 4294967295"},
      {"L1 just too large", set32(36, 4194305), "L1 table of 4194305"},
      {"L1 too small", set32(36, 1), "has 1 entries, 2 are needed"},
      {"L1 empty", set32(36, 0), "has 0 entries"},
      {"size beyond L1", set64(24, UINT64_MAX), "are needed"},
      {"L1 between clusters", set64(40, 3 * 65536 + 8), "not at the start"},
      {"L1 beyond the file", set64(40, kFileBytes), "beyond the end"},
      {"L1 far beyond", set64(40, 0xffffffffffff0000), "beyond the end"},
      {"L1 on the header", set64(40, 0), "overlap"},
      {"L1 on the refcount table", set64(40, 65536), "overlap"},
      {"L1 cut off",
       [](Bytes& b) {
         put32(b, 36, 100000);
         put64(b, 40, 60 * 65536);
       },
       "ends beyond the file"},
      {"refcount table between clusters", set64(48, 65537), "not at the start"},
      {"refcount table beyond the file", set64(48, kFileBytes * 2), "beyond the end"},
      {"refcount table on the header", set64(48, 0), "overlap"},
      {"refcount table empty", set32(56, 0), "refcount table of 0"},
      {"refcount table huge", set32(56, 0xffffffff), "refcount table of 4294967295"},
      {"refcount table just too large", set32(56, 129), "refcount table of 129"},
      {"refcount table cut off", set32(56, 100), "ends beyond the file"},
      {"refcount table over L1", set32(56, 3), "overlap"},
      {"snapshots too many", set32(60, 65537), "65537 snapshots"},
      {"snapshots nowhere",
       [](Bytes& b) {
         put32(b, 60, 1);
         put64(b, 64, kFileBytes);
       },
       "snapshot table"},
      {"snapshots between clusters",
       [](Bytes& b) {
         put32(b, 60, 1);
         put64(b, 64, 5 * 65536 + 512);
       },
       "not at the start"},
      {"snapshots on L1",
       [](Bytes& b) {
         put32(b, 60, 1);
         put64(b, 64, 3 * 65536);
       },
       "overlap"},
      {"more snapshots than fit",
       [](Bytes& b) {
         put32(b, 60, 65536);
         put64(b, 64, 63 * 65536);
       },
       "ends beyond the file"},
      {"refcount_order 7", set32(96, 7), "refcount_order 7"},
      {"refcount_order huge", set32(96, 0xffffffff), "refcount_order 4294967295"},
      {"header_length small", set32(100, 96), "header_length 96"},
      {"header_length odd", set32(100, 109), "header_length 109"},
      {"header_length huge", set32(100, 0xfffffff8), "header_length"},
      {"compression type 2", [](Bytes& b) { b[104] = std::byte{2}; }, "compression type 2",
       unsupported},
      {"zstd without its bit", [](Bytes& b) { b[104] = std::byte{1}; }, "contradict"},
      {"the bit of zstd alone", set64(72, kIncompatibleCompression), "contradict"},
      {"an unknown feature", set64(72, 1 << 5), "bit 5", unsupported},
      {"all features", set64(72, UINT64_MAX & ~kIncompatibleCompression), "bit 5", unsupported},
      {"subclusters in small clusters",
       [](Bytes& b) {
         put32(b, 20, 13);
         put64(b, 72, kIncompatibleExtendedL2);
       },
       "extended L2"},
      {"raw data file without one", set64(88, kAutoclearRawDataFile), "there is none"},
      {"an empty file", [](Bytes&) {}, "beyond the end", Code::kDamaged, false, 0},
  };
}

std::vector<HostileHeader> name_rows() {
  const auto backing = [](std::uint64_t offset, std::uint32_t length) {
    return [=](Bytes& bytes) {
      put64(bytes, 8, offset);
      put32(bytes, 16, length);
    };
  };
  const auto extension = [](std::uint32_t type, std::uint32_t length, std::string_view data = {}) {
    return [=](Bytes& bytes) { put_extension(bytes, type, length, as_byte_view(data)); };
  };
  return {
      {"backing name huge", backing(4096, 0xffffffff), "name of the backing file has"},
      {"backing name of 1024", backing(4096, 1024), "name of the backing file has 1024"},
      {"backing name empty", backing(4096, 0), "is empty"},
      {"backing name in the header", backing(40, 20), "not inside the first cluster"},
      {"backing name across the cluster", backing(65530, 20), "not inside the first cluster"},
      {"backing name far away", backing(UINT64_MAX - 3, 20), "not inside the first cluster"},
      {"backing name with a zero", backing(8192, 20), "zero byte"},
      {"extension beyond the cluster", extension(0x12345678, 65536), "ends beyond the header"},
      {"extension of 4 GiB", extension(0x12345678, 0xffffffff), "ends beyond the header"},
      {"backing format too long", extension(0xe2792aca, 17, "12345678901234567"), "has 17 bytes"},
      {"backing format with a zero", extension(0xe2792aca, 4, {"ra\0w", 4}), "zero byte"},
      {"data file name too long", extension(0x44415441, 2000), "has 2000 bytes"},
      {"crypto header in a plain image", extension(0x0537be77, 16), "crypt_method 0"},
      {"crypto header of 8 bytes", extension(0x0537be77, 8), "not 16", Code::kDamaged, true},
      {"crypto header empty", extension(0x0537be77, 16, {"\0\0\0\0\0\4\0\0\0\0\0\0\0\0\0\0", 16}),
       "of 0 bytes", Code::kDamaged, true},
      {"crypto header of 1 TiB",
       extension(0x0537be77, 16, {"\0\0\0\0\0\4\0\0\0\0\1\0\0\0\0\0", 16}),
       "an encryption header of", Code::kDamaged, true},
      {"crypto header on the refcounts",
       extension(0x0537be77, 16, {"\0\0\0\0\0\1\0\0\0\0\0\0\0\1\0\0", 16}), "overlap",
       Code::kDamaged, true},
      {"crypto header between clusters",
       extension(0x0537be77, 16, {"\0\0\0\0\0\4\0\1\0\0\0\0\0\1\0\0", 16}), "not at the start",
       Code::kDamaged, true},
      {"crypto header beyond the file",
       extension(0x0537be77, 16, {"\0\0\0\0\1\0\0\0\0\0\0\0\0\1\0\0", 16}), "beyond the end",
       Code::kDamaged, true},
      {"bitmaps of a wrong size", extension(0x23852875, 16), "not 24"},
      {"no bitmaps",
       [](Bytes& b) {
         put64(b, 88, kAutoclearBitmaps);
         put_extension(b, 0x23852875, 24, {});
       },
       "0 bitmaps"},
      {"a bitmap directory of 1 PiB",
       [](Bytes& b) {
         put64(b, 88, kAutoclearBitmaps);
         put_extension(b, 0x23852875, 24, {});
         put32(b, kHeaderBytes + 8, 1);
         put64(b, kHeaderBytes + 16, std::uint64_t{1} << 50);
       },
       "bitmap directory of"},
      {"a bitmap directory on L1",
       [](Bytes& b) {
         put64(b, 88, kAutoclearBitmaps);
         put_extension(b, 0x23852875, 24, {});
         put32(b, kHeaderBytes + 8, 1);
         put64(b, kHeaderBytes + 16, 32);
         put64(b, kHeaderBytes + 24, 3 * 65536);
       },
       "overlap"},
      {"an unknown feature with a name",
       [](Bytes& b) {
         put64(b, 72, 1 << 6);
         put_extension(b, 0x6803f857, 48, {});
         b[kHeaderBytes + 9] = std::byte{6};
         const auto name = as_byte_view("time\x1b travel");
         std::copy(name.begin(), name.end(), b.begin() + kHeaderBytes + 10);
       },
       "'time\\x1b travel' (bit 6)", Code::kUnsupported},
  };
}

class HostileHeaders : public ::testing::TestWithParam<HostileHeader> {};

TEST_P(HostileHeaders, AreRefused) {
  const HostileHeader& row = GetParam();
  Bytes bytes = encode_header(row.encrypted ? crypto_header() : full_header());
  row.harm(bytes);
  const Bytes exact(bytes.begin(), bytes.end());
  try {
    decode_header(exact, row.file_bytes, "image 'x'");
    FAIL() << "decoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), row.code) << error.message();
    EXPECT_THAT(error.message(), ::testing::StartsWith("image 'x': "));
    EXPECT_THAT(error.message(), HasSubstr(row.message));
    EXPECT_LT(error.message().size(), 400U);
  }
}

INSTANTIATE_TEST_SUITE_P(Fields, HostileHeaders, ::testing::ValuesIn(fixed_field_rows()));
INSTANTIATE_TEST_SUITE_P(Names, HostileHeaders, ::testing::ValuesIn(name_rows()));

TEST(Qcow2Format, BoundsWhatHasNoEnd) {
  // As many unknown extensions as the first cluster holds: passed over in one go.
  Bytes bytes = encode_header(full_header());
  for (std::size_t at = kHeaderBytes; at + 8 <= bytes.size(); at += 8) put32(bytes, at, 7);
  EXPECT_EQ(decode_header(bytes, kFileBytes, "x"), full_header());
}

TEST(Qcow2Format, RefcountsOfEveryWidth) {
  for (std::uint32_t order = 0; order <= 6; ++order) {
    Bytes block(512);
    const std::uint64_t entries = 512 * 8 >> order;
    const std::uint64_t max = refcount_max(order);
    set_refcount(block, 3, order, max);
    set_refcount(block, entries - 1, order, 1);
    EXPECT_EQ(get_refcount(block, 3, order), max) << order;
    EXPECT_EQ(get_refcount(block, 2, order), 0U);
    EXPECT_EQ(get_refcount(block, 4, order), 0U);
    EXPECT_EQ(get_refcount(block, entries - 1, order), 1U);
    set_refcount(block, 3, order, 0);
    set_refcount(block, entries - 1, order, 0);
    EXPECT_EQ(block, Bytes(512)) << order;
  }
}

struct HostileEntry {
  std::string name;
  L2Words words;
  std::string message;
  std::function<void(Header&)> change;
};

void PrintTo(const HostileEntry& row, std::ostream* out) { *out << row.name; }

class HostileEntries : public ::testing::TestWithParam<HostileEntry> {};

TEST_P(HostileEntries, AreRefused) {
  Header header = full_header();
  if (GetParam().change) GetParam().change(header);
  try {
    decode_l2_entry(header, GetParam().words, "image 'x'", 77);
    FAIL() << "decoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kDamaged);
    EXPECT_THAT(error.message(), HasSubstr("guest cluster 77"));
    EXPECT_THAT(error.message(), HasSubstr(GetParam().message));
  }
}

void extend(Header& header) { header.incompatible_features |= kIncompatibleExtendedL2; }

INSTANTIATE_TEST_SUITE_P(
    L2, HostileEntries,
    ::testing::Values(
        HostileEntry{"reserved low bits", {.entry = 0x10000 | 2}, "reserved", {}},
        HostileEntry{"reserved high bits", {.entry = (1ULL << 57) | 0x10000}, "reserved", {}},
        HostileEntry{"between clusters", {.entry = 0x10200}, "between clusters", {}},
        HostileEntry{
            "zero flag in version 2", {.entry = 1}, "reserved", [](Header& h) { h.version = 2; }},
        HostileEntry{"compressed and in place", {.entry = 3ULL << 62}, "in place", {}},
        HostileEntry{"compressed in an encrypted image",
                     {.entry = 1ULL << 62},
                     "encrypted",
                     [](Header& h) { h = crypto_header(); }},
        HostileEntry{"compressed in a data file",
                     {.entry = 1ULL << 62},
                     "data file",
                     [](Header& h) { h.incompatible_features |= kIncompatibleDataFile; }},
        HostileEntry{"compressed with subclusters",
                     {.entry = 1ULL << 62, .bitmap = 1},
                     "subclusters",
                     extend},
        HostileEntry{"compressed far beyond every file",
                     {.entry = (1ULL << 62) | (1ULL << 57)},
                     "56 bits",
                     [](Header& h) { h.cluster_bits = 9; }},
        HostileEntry{"zero flag with subclusters", {.entry = 1}, "reserved", extend},
        HostileEntry{"subclusters allocated and zero",
                     {.entry = 0x50000, .bitmap = (1ULL << 32) | 1},
                     "both",
                     extend},
        HostileEntry{"subclusters nowhere", {.entry = 0, .bitmap = 1}, "no cluster", extend}));

TEST(Qcow2Format, RefusesEntriesOfL1AndRefcountTable) {
  for (const std::uint64_t entry : {0x10001ULL, 0x18000ULL, 1ULL << 56, 1ULL << 62}) {
    EXPECT_THROW(decode_l1_entry(entry, 16, "x", 0), Error) << entry;
    EXPECT_THROW(decode_refcount_table_entry(entry, 16, "x", 0), Error) << entry;
  }
  EXPECT_THROW(decode_refcount_table_entry(kCopiedFlag | 0x10000, 16, "x", 0), Error);
  EXPECT_EQ(decode_l1_entry(kCopiedFlag | 0x30000, 16, "x", 0), 0x30000U);
}

TEST(Qcow2Format, RefusesHostileLists) {
  const auto fails = [](const Bytes& table, std::uint32_t count, bool bitmaps) {
    try {
      if (bitmaps) {
        decode_bitmaps(table, count, 16, "x");
      } else {
        decode_snapshots(table, count, 16, "x");
      }
      return std::string("decoded");
    } catch (const Error& error) {
      return error.message();
    }
  };
  Bytes snapshot(48);
  EXPECT_THAT(fails(Bytes(39), 1, false), HasSubstr("ends beyond"));
  EXPECT_THAT(fails(snapshot, 2, false), HasSubstr("entry 1"));
  put32(snapshot, 36, 0xffffffff);  // extra data
  EXPECT_THAT(fails(snapshot, 1, false), HasSubstr("ends beyond"));
  put32(snapshot, 36, 0);
  put32(snapshot, 12, 0xffffffff);  // id and name
  EXPECT_THAT(fails(snapshot, 1, false), HasSubstr("ends beyond"));
  put32(snapshot, 12, 0);
  put32(snapshot, 8, 0xffffffff);
  EXPECT_THAT(fails(snapshot, 1, false), HasSubstr("too large"));
  put32(snapshot, 8, 1);
  put64(snapshot, 0, 512);
  EXPECT_THAT(fails(snapshot, 1, false), HasSubstr("between clusters"));
  Bytes bitmap(32);
  EXPECT_THAT(fails(bitmap, 1, true), HasSubstr("name of 0 bytes"));
  put32(bitmap, 16, 0x0000ffff);
  EXPECT_THAT(fails(bitmap, 1, true), HasSubstr("name of 65535"));
  put32(bitmap, 16, 8);
  put32(bitmap, 20, 0xfffffff0);
  EXPECT_THAT(fails(bitmap, 1, true), HasSubstr("ends beyond"));
}

}  // namespace
}  // namespace lukskeep::storage::qcow2
