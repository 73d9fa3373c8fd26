// Images that are not to be used: none is called safe, however it arrives, and none costs memory.
//
// For each format the fields that advisories and defects of other inspectors are about
// (OSSA-2023-002, OSSA-2024-001, -002, CVE-2024-4467, CVE-2025-59054), then every format cut short
// and every format that is a second one as well.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "crypto/hash.h"
#include "image/image_test_tools.h"
#include "image/inspect_device.h"
#include "image/inspector.h"
#include "storage/memory_device.h"

namespace {

std::atomic<std::size_t> live_bytes;
std::atomic<std::size_t> peak_bytes;

void* counted(std::size_t size) {
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  const std::size_t now = live_bytes += malloc_usable_size(memory);
  if (now > peak_bytes) peak_bytes = now;
  return memory;
}

void uncount(void* memory) noexcept {
  if (memory != nullptr) live_bytes -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { uncount(memory); }
void operator delete[](void* memory) noexcept { uncount(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { uncount(memory); }
void operator delete[](void* memory, std::size_t /*size*/) noexcept { uncount(memory); }

namespace lukskeep::image {
namespace {

using namespace testing;
using namespace std::string_view_literals;

struct Row {
  std::string format;
  std::string name;
  std::string finding;  // among the dangers; empty: any
  Image image;
};

struct Base {
  std::string format;
  Image (*make)();
  std::vector<std::size_t> cuts;  // sizes at which the format can tell that it is cut
};

std::vector<Base> bases() {
  return {
      {"qcow2", qcow2, {4, 7, 71, 103, 512, 65536, 131071, 196608}},
      {"vhd", vhd, {8, 100, 511, 512, 1000, 1536, 2048, 3584, 4095}},
      {"vhdx", vhdx, {8, 512, 65536, 131072, 196608, 300000, 327680, 2097152, 2100000, 3000000}},
      {"vmdk", vmdk, {4, 100, 511, 512, 1024, 10000, 13312}},
      {"vmdk stream", vmdk_stream, {4, 511, 512, 10752, 65536, 130560, 131071}},
      {"vdi", vdi, {68, 100, 511, 512, 520, 527}},
      {"ploop", ploop, {16, 20, 40, 63, 64, 70, 79}},
      {"iso", iso, {32775, 34816, 36000, 36864, 100000, 131071}},
      {"gpt", gpt, {520, 600, 1023, 1024, 5000, 17407, 65536, 1000000, 1048575}},
      {"mbr", mbr, {512, 513, 1024, 32768, 100000, 200000, 294911}},
      {"luks1", luks1, {6, 7, 100, 591, 592, 4096, 100000}},
      {"luks2", luks2, {6, 7, 511, 4095, 4096, 16384, 20480, 32767, 32768, 500000}}};
}

// ---- each format's own ------------------------------------------------------------------------

struct Spoiling {
  std::string name;
  std::string finding;
  std::function<void(Image&)> spoil;
};

// An extension at the end of a header of 104 bytes.
void extend(Image& image, std::uint32_t type, std::string_view data) {
  image.be32(104, type).be32(108, static_cast<std::uint32_t>(data.size())).put(112, data);
}

std::string place(std::uint64_t offset, std::uint64_t size) {
  Image image;
  return std::string(as_string_view(image.be64(0, offset).be64(8, size).bytes));
}

std::string bitmaps(std::uint32_t count, std::uint64_t size, std::uint64_t offset) {
  Image image;
  return std::string(
      as_string_view(image.be32(0, count).be32(4, 0).be64(8, size).be64(16, offset).bytes));
}

void put_snapshot(Image& image, std::uint64_t l1, std::uint32_t entries, std::uint32_t extra) {
  image.be32(60, 1).be64(64, 262144).be64(262144, l1).be32(262152, entries).be32(262180, extra);
  image.grow(262144 + 65536);
}

void put_qcow2_luks(Image& image, const Image& luks) {
  image.be32(32, 2);
  extend(image, 0x0537be77, place(262144, 592));
  image.put(262144, as_string_view(ByteView(luks.bytes).first(592))).grow(262144 + 65536);
}

std::vector<Spoiling> qcow2_spoilings() {
  return {
      {"backing file (OSSA-2015-014)", "qcow2-backing-file",
       [](Image& i) { i.be64(8, 512).be32(16, 11).put(512, "/etc/passwd"); }},
      {"backing file without a name", "qcow2-backing-file", [](Image& i) { i.be64(8, 512); }},
      {"backing name outside", "qcow2-backing-file", [](Image& i) { i.be64(8, UINT64_MAX); }},
      {"backing size alone", "qcow2-backing-file", [](Image& i) { i.be32(16, 5); }},
      {"data file bit (OSSA-2024-001)", "qcow2-data-file", [](Image& i) { i.be64(72, 4); }},
      {"data file extension only", "qcow2-data-file",
       [](Image& i) { extend(i, 0x44415441, "json:{\"driver\":\"host_device\"}"); }},
      {"raw external data bit", "qcow2-data-file", [](Image& i) { i.be64(88, 2); }},
      {"unknown feature", "qcow2-unknown-features", [](Image& i) { i.be64(72, 32); }},
      {"highest feature", "qcow2-unknown-features",
       [](Image& i) { i.be64(72, std::uint64_t{1} << 63); }},
      {"unknown compression", "qcow2-unknown-features",
       [](Image& i) { i.be64(72, 8).be32(100, 112).put(104, "\x07"); }},
      {"version 4", "qcow2-header", [](Image& i) { i.be32(4, 4); }},
      {"version 0", "qcow2-header", [](Image& i) { i.be32(4, 0); }},
      {"version 1", "unsupported-format", [](Image& i) { i.be32(4, 1); }},
      {"cluster bits 63", "qcow2-header", [](Image& i) { i.be32(20, 63); }},
      {"cluster bits 64", "qcow2-header", [](Image& i) { i.be32(20, 0xffffffff); }},
      {"cluster bits 8", "qcow2-header", [](Image& i) { i.be32(20, 8); }},
      {"header bomb", "qcow2-header", [](Image& i) { i.be32(100, 0xfffffff8); }},
      {"header of 0 bytes", "qcow2-header", [](Image& i) { i.be32(100, 0); }},
      {"refcount order", "qcow2-header", [](Image& i) { i.be32(96, 7); }},
      {"disk of 16 EiB", "qcow2-header", [](Image& i) { i.be64(24, UINT64_MAX - 511); }},
      {"extended L2 in small clusters", "qcow2-header",
       [](Image& i) { i.be32(20, 9).be64(72, 16); }},
      {"L1 too small", "qcow2-tables", [](Image& i) { i.be64(24, std::uint64_t{1} << 40); }},
      {"L1 of 32 GiB", "qcow2-tables", [](Image& i) { i.be32(36, 0xffffffff); }},
      {"L1 behind the end", "qcow2-tables", [](Image& i) { i.be64(40, 1 << 30); }},
      {"L1 overflows", "qcow2-tables", [](Image& i) { i.be64(40, UINT64_MAX - 65535); }},
      {"L1 in the header", "qcow2-tables", [](Image& i) { i.be64(40, 0); }},
      {"L1 within a cluster", "qcow2-tables", [](Image& i) { i.be64(40, 131073); }},
      {"refcount table of 280 TB", "qcow2-tables", [](Image& i) { i.be32(56, 0xffffffff); }},
      {"refcount table behind the end", "qcow2-tables", [](Image& i) { i.be64(48, 1 << 20); }},
      {"no refcount table", "qcow2-tables", [](Image& i) { i.be32(56, 0); }},
      {"extension bomb", "qcow2-extensions",
       [](Image& i) { i.be32(104, 0x6803f857).be32(108, 0xffffffff); }},
      {"extensions without end", "qcow2-extensions",
       [](Image& i) {
         for (std::size_t at = 104; at < 65536; at += 8) i.be32(at, 1).be32(at + 4, 0);
         i.be32(65528, 1).be32(65532, 8);
       }},
      {"too many snapshots", "qcow2-snapshots",
       [](Image& i) { i.be32(60, 0xffffffff).be64(64, 131072); }},
      {"snapshot table behind the end", "qcow2-snapshots",
       [](Image& i) { i.be32(60, 1).be64(64, 1 << 30); }},
      {"snapshot with a huge L1", "qcow2-snapshots",
       [](Image& i) { put_snapshot(i, 131072, 0xffffffff, 16); }},
      {"snapshot with huge extras", "qcow2-snapshots",
       [](Image& i) { put_snapshot(i, 131072, 1, 0xffffffff); }},
      {"snapshot L1 behind the end", "qcow2-snapshots",
       [](Image& i) { put_snapshot(i, 1 << 30, 1, 16); }},
      {"bitmap directory bomb", "qcow2-bitmaps",
       [](Image& i) { extend(i, 0x23852875, bitmaps(1, UINT64_MAX, 65536)); }},
      {"bitmap directory behind the end", "qcow2-bitmaps",
       [](Image& i) { extend(i, 0x23852875, bitmaps(1, 64, 1 << 30)); }},
      {"no bitmaps", "qcow2-bitmaps",
       [](Image& i) { extend(i, 0x23852875, bitmaps(0, 64, 65536)); }},
      {"corrupt", "qcow2-corrupt", [](Image& i) { i.be64(72, 2); }},
      {"old AES", "qcow2-legacy-aes", [](Image& i) { i.be32(32, 1); }},
      {"encryption 3", "qcow2-encryption", [](Image& i) { i.be32(32, 3); }},
      {"LUKS without a header", "qcow2-encryption", [](Image& i) { i.be32(32, 2); }},
      {"header without LUKS", "qcow2-encryption",
       [](Image& i) { extend(i, 0x0537be77, place(65536, 592)); }},
      {"LUKS header behind the end", "qcow2-encryption",
       [](Image& i) { i.be32(32, 2), extend(i, 0x0537be77, place(1 << 30, 592)); }},
      {"LUKS header that is none", "luks-header",
       [](Image& i) { i.be32(32, 2), extend(i, 0x0537be77, place(65536, 592)); }},
      {"null cipher within", "luks-null-cipher",
       [](Image& i) {
         Image luks = luks1();
         put_qcow2_luks(i, luks.zero(8, 64).put(8, "cipher_null").put(40, "ecb"));
       }},
      {"absurd stripes within (oslo.utils)", "luks-stripes",
       [](Image& i) {
         Image luks = luks1();
         put_qcow2_luks(i, luks.be32(208 + 44, 0x7fffffff));
       }},
  };
}

std::vector<Spoiling> vhd_spoilings() {
  const auto sealed = [](std::function<void(Image&)> spoil) {
    return [spoil = std::move(spoil)](Image& i) { spoil(i), seal_vhd(i); };
  };
  return {
      {"differencing", "vhd-parent", sealed([](Image& i) { i.be32(60, 4); })},
      {"parent of a dynamic disk", "vhd-parent", sealed([](Image& i) { i.put(512 + 64, "x"); })},
      {"parent locator", "vhd-parent", sealed([](Image& i) { i.put(512 + 576, "W2ku"); })},
      {"fixed at the start", "vhd-header", sealed([](Image& i) { i.be32(60, 2); })},
      {"type 77", "vhd-header", sealed([](Image& i) { i.be32(60, 77); })},
      {"version 2", "vhd-header", sealed([](Image& i) { i.be32(12, 0x20000); })},
      {"disk of 16 EiB", "vhd-header", sealed([](Image& i) { i.be64(48, UINT64_MAX - 511); })},
      {"half a sector", "vhd-header", sealed([](Image& i) { i.be64(48, 1000); })},
      {"header behind the end", "vhd-header", sealed([](Image& i) { i.be64(16, 1 << 30); })},
      {"header overflows", "vhd-header", sealed([](Image& i) { i.be64(16, UINT64_MAX - 8); })},
      {"blocks of 0 bytes", "vhd-tables", sealed([](Image& i) { i.be32(512 + 32, 0); })},
      {"blocks of 3 bytes", "vhd-tables", sealed([](Image& i) { i.be32(512 + 32, 3); })},
      {"too few blocks", "vhd-tables", sealed([](Image& i) { i.be32(512 + 28, 1); })},
      {"table of 16 GiB", "vhd-tables", sealed([](Image& i) { i.be32(512 + 28, 0xffffffff); })},
      {"table behind the end", "vhd-tables", sealed([](Image& i) { i.be64(512 + 16, 1 << 30); })},
      {"table overflows", "vhd-tables", sealed([](Image& i) { i.be64(512 + 16, UINT64_MAX - 3); })},
      {"wrong checksum", "vhd-header", [](Image& i) { i.be32(64, 1); }},
      {"wrong checksum of the header", "vhd-header", [](Image& i) { i.be32(512 + 36, 1); }},
      {"another footer", "vhd-footer", [](Image& i) { i.put(4096 - 100, "x"); }},
      {"no footer", "vhd-footer", [](Image& i) { i.zero(4096 - 512, 512); }},
      {"only a footer of a dynamic disk", "vhd-header",
       [](Image& i) {
         i = blank(8192);
         put_vhd_footer(i, 8192, 3, 4 * kMiB);
       }},
      {"fixed and cut", "vhd-footer",
       [](Image& i) {
         i = blank(8192);
         put_vhd_footer(i, 8192, 2, kMiB);
       }},
  };
}

std::vector<Spoiling> vhdx_spoilings() {
  constexpr std::size_t kMeta = 2 * kMiB;
  const auto sealed = [](std::function<void(Image&)> spoil) {
    return [spoil = std::move(spoil)](Image& i) { spoil(i), seal_vhdx(i); };
  };
  return {
      {"parent", "vhdx-parent", sealed([](Image& i) { i.le32(kMeta + 65540, 2); })},
      {"parent locator", "vhdx-parent",
       sealed([](Image& i) { i.hex(kMeta + 96, "2d5fd3a80bb34d45abf7d3d84834ab0c"); })},
      {"log", "vhdx-log", sealed([](Image& i) { i.put(131072 + 48, "x"); })},
      {"version 2", "vhdx-header", sealed([](Image& i) { i.le<std::uint16_t>(131072 + 66, 2); })},
      {"no header", "vhdx-header", [](Image& i) { i.put(65536, "x").put(131072, "x"); }},
      {"no region table", "vhdx-regions", [](Image& i) { i.put(196608, "x").put(262144, "x"); }},
      {"region tables differ", "vhdx-regions",
       [](Image& i) {
         i.le32(262144 + 40, 2 * kMiB);
         seal_crc32c(i, 262144, 65536);
       }},
      {"too many regions", "vhdx-regions", sealed([](Image& i) { i.le32(196608 + 8, 2048); })},
      {"region bomb", "vhdx-regions", sealed([](Image& i) { i.le32(196608 + 8, 0xffffffff); })},
      {"no regions", "vhdx-regions", sealed([](Image& i) { i.le32(196608 + 8, 0); })},
      {"unknown region", "vhdx-regions", sealed([](Image& i) { i.put(196608 + 48, "xxxx"); })},
      {"region twice", "vhdx-regions",
       sealed([](Image& i) { i.hex(196608 + 48, "6677c22d23f600429d64115e9bfd4a08"); })},
      {"region behind the end", "vhdx-regions",
       sealed([](Image& i) { i.le64(196608 + 32, std::uint64_t{1} << 40); })},
      {"metadata behind the end", "vhdx-metadata",
       sealed([](Image& i) { i.le64(196608 + 64, std::uint64_t{1} << 40); })},
      {"metadata overflows", "vhdx-metadata",
       sealed([](Image& i) { i.le64(196608 + 64, UINT64_MAX - kMiB + 1); })},
      {"region at 0", "vhdx-regions", sealed([](Image& i) { i.le64(196608 + 64, 0); })},
      {"no metadata", "vhdx-metadata", [](Image& i) { i.put(kMeta, "x"); }},
      {"too many items", "vhdx-metadata",
       [](Image& i) { i.le<std::uint16_t>(kMeta + 10, 0xffff); }},
      {"item outside", "vhdx-metadata", [](Image& i) { i.le32(kMeta + 48, 0xfffffff0); }},
      {"item in the table", "vhdx-metadata", [](Image& i) { i.le32(kMeta + 48, 0); }},
      {"item too small", "vhdx-metadata", [](Image& i) { i.le32(kMeta + 52, 1); }},
      {"unknown item", "vhdx-metadata", [](Image& i) { i.put(kMeta + 32, "xxxx"); }},
      {"no size", "vhdx-metadata", [](Image& i) { i.le<std::uint16_t>(kMeta + 10, 1); }},
      {"disk of 16 EiB", "vhdx-metadata",
       [](Image& i) { i.le64(kMeta + 65544, UINT64_MAX - 511); }},
      {"sectors of 0", "vhdx-metadata", [](Image& i) { i.le32(kMeta + 65552, 0); }},
      {"blocks of 0", "vhdx-metadata", [](Image& i) { i.le32(kMeta + 65536, 0); }},
      {"table too small", "vhdx-regions",
       [](Image& i) { i.le64(kMeta + 65544, std::uint64_t{1} << 40); }},
  };
}

std::vector<Spoiling> vmdk_spoilings() {
  const auto described = [](std::string from, std::string to) {
    return [from = std::move(from), to = std::move(to)](Image& i) {
      std::string text = vmdk_descriptor("monolithicSparse");
      text.replace(text.find(from), from.size(), to);
      put_vmdk_descriptor(i, text);
    };
  };
  return {
      {"flat extent (OSSA-2023-002)", "vmdk-extents",
       described("RW 2048 SPARSE \"disk.vmdk\"", "RW 2048 FLAT \"/etc/passwd\" 0")},
      {"flat type", "vmdk-type", described("monolithicSparse", "monolithicFlat")},
      {"extent with a path", "vmdk-extents", described("disk.vmdk", "/etc/passwd")},
      {"extent above", "vmdk-extents", described("disk.vmdk", "../disk.vmdk")},
      {"extent with a drive", "vmdk-extents", described("disk.vmdk", "c:disk.vmdk")},
      {"extent of a protocol", "vmdk-extents", described("disk.vmdk", "nbd:localhost")},
      {"extent without a name", "vmdk-extents", described(" \"disk.vmdk\"", "")},
      {"two extents", "vmdk-extents", described("RW 2048", "RW 1 SPARSE \"other.vmdk\"\nRW 2048")},
      {"no extent", "vmdk-extents", described("RW 2048 SPARSE \"disk.vmdk\"", "")},
      {"read-only extent", "vmdk-extents", described("RW 2048", "RDONLY 2048")},
      {"parent", "vmdk-parent", described("parentCID=ffffffff", "parentCID=00000001")},
      {"parent file", "vmdk-parent",
       described("CID=12345678", "parentFileNameHint=\"/etc/passwd\"")},
      {"parent file in a comment", "vmdk-parent",
       described("# Extent description", "# parentFileNameHint=\"/etc/passwd\"")},
      {"parent in a line of the disk database", "vmdk-parent",
       described("CID=12345678", "ddb.x = \"parentFileNameHint=\"")},
      {"no sectors", "vmdk-header", [](Image& i) { i.le64(12, 0); }},
      {"type in a comment", "vmdk-descriptor",
       described("# Extent description", "# createType=\"monolithicFlat\"")},
      {"type in other letters", "vmdk-descriptor",
       described("# Extent description", "CREATETYPE=\"monolithicFlat\"")},
      {"no type", "vmdk-type", described("createType=\"monolithicSparse\"", "")},
      {"unknown line", "vmdk-descriptor", described("CID=12345678", "evil=1")},
      {"line without a value", "vmdk-descriptor", described("CID=12345678", "evil")},
      {"change tracking file", "vmdk-extents",
       described("CID=12345678", "changeTrackPath=\"/etc/passwd\"")},
      {"no text", "vmdk-descriptor", described("CID=12345678", "CID=\xff")},
      {"text behind the end", "vmdk-descriptor", [](Image& i) { i.put(8192, "RW 1 FLAT \"x\""); }},
      {"descriptor elsewhere", "vmdk-descriptor", [](Image& i) { i.le64(28, 30); }},
      {"descriptor bomb", "vmdk-descriptor", [](Image& i) { i.le64(36, UINT64_MAX); }},
      {"no descriptor", "vmdk-descriptor", [](Image& i) { i.le64(28, 0).le64(36, 0); }},
      {"version 9", "vmdk-header", [](Image& i) { i.le32(4, 9); }},
      {"disk of 16 EiB", "vmdk-header", [](Image& i) { i.le64(12, UINT64_MAX); }},
      {"grains of 0", "vmdk-header", [](Image& i) { i.le64(20, 0); }},
      {"grain tables of 4 G entries", "vmdk-header", [](Image& i) { i.le32(44, 0xffffffff); }},
      {"transferred as text", "vmdk-header", [](Image& i) { i.put(73, "\n\n\n\n"); }},
      {"unknown compression", "vmdk-header", [](Image& i) { i.le<std::uint16_t>(77, 2); }},
      {"directory behind the end", "vmdk-tables", [](Image& i) { i.le64(56, 1 << 30); }},
      {"directory overflows", "vmdk-tables", [](Image& i) { i.le64(56, UINT64_MAX - 1); }},
      {"text alone", "vmdk-text", [](Image& i) { i = vmdk_text(); }},
      {"text after comments, for QEMU", "vmdk-text",
       [](Image& i) { i = Image(), i.put(0, "#\n \n# x\nversion=1\ncreateType=\"custom\"\n"); }},
      {"text before data", "vmdk-text",
       [](Image& i) { i = vmdk_text(), i.grow(100000), i.put(99000, "\xff\xff"); }},
  };
}

std::vector<Spoiling> vmdk_stream_spoilings() {
  constexpr std::size_t kFooter = 131072 - 1024;
  return {
      {"no footer", "vmdk-footer", [](Image& i) { i.zero(kFooter - 512, 1536); }},
      {"another marker", "vmdk-footer", [](Image& i) { i.le32(kFooter - 512 + 12, 1); }},
      {"marker with data", "vmdk-footer", [](Image& i) { i.put(kFooter - 1, "x"); }},
      {"no end of stream", "vmdk-footer", [](Image& i) { i.put(131071, "x"); }},
      {"footer of the footer", "vmdk-footer", [](Image& i) { i.le64(kFooter + 56, UINT64_MAX); }},
      {"footer with another descriptor", "vmdk-footer", [](Image& i) { i.le64(kFooter + 28, 9); }},
      {"footer with another size", "vmdk-footer", [](Image& i) { i.le64(kFooter + 12, 4096); }},
      {"footer of another version", "vmdk-footer", [](Image& i) { i.le32(kFooter + 4, 1); }},
      {"tables behind the end", "vmdk-tables", [](Image& i) { i.le64(kFooter + 56, 1 << 30); }},
      {"more behind the end", "vmdk-footer", [](Image& i) { i.grow(132000); }},
  };
}

std::vector<Spoiling> vdi_spoilings() {
  return {
      {"differencing", "vdi-parent", [](Image& i) { i.le32(0x4c, 4); }},
      {"undo", "vdi-parent", [](Image& i) { i.le32(0x4c, 3); }},
      {"linked", "vdi-parent", [](Image& i) { i.put(0x1a8, "x"); }},
      {"parent", "vdi-parent", [](Image& i) { i.put(0x1b8, "x"); }},
      {"type 9", "vdi-header", [](Image& i) { i.le32(0x4c, 9); }},
      {"version 9", "vdi-header", [](Image& i) { i.le32(0x44, 9); }},
      {"sectors of 4096", "vdi-header", [](Image& i) { i.le32(0x168, 4096); }},
      {"blocks of 0", "vdi-header", [](Image& i) { i.le32(0x178, 0); }},
      {"extra bytes", "vdi-header", [](Image& i) { i.le32(0x17c, 8); }},
      {"table in the header", "vdi-header", [](Image& i) { i.le32(0x154, 0); }},
      {"table within a sector", "vdi-header", [](Image& i) { i.le32(0x154, 513); }},
      {"data within a sector", "vdi-header", [](Image& i) { i.le32(0x158, 1025); }},
      {"table behind the end", "vdi-tables", [](Image& i) { i.le32(0x154, 0x40000000); }},
      {"table of 16 GiB", "vdi-tables", [](Image& i) { i.le32(0x180, 0xffffffff); }},
      {"too few blocks", "vdi-tables", [](Image& i) { i.le32(0x180, 3); }},
      {"disk of 16 EiB", "vdi-tables", [](Image& i) { i.le64(0x170, UINT64_MAX); }},
      {"more blocks than there are", "vdi-tables", [](Image& i) { i.le32(0x184, 5); }},
  };
}

std::vector<Spoiling> ploop_spoilings() {
  return {
      {"version 3", "ploop-header", [](Image& i) { i.le32(16, 3); }},
      {"disk of 16 EiB", "ploop-header", [](Image& i) { i.le64(36, UINT64_MAX); }},
      {"blocks of 0", "ploop-tables", [](Image& i) { i.le32(28, 0); }},
      {"too few blocks", "ploop-tables", [](Image& i) { i.le32(32, 3); }},
      {"no blocks", "ploop-tables", [](Image& i) { i.le32(32, 0); }},
      {"table of 16 GiB", "ploop-tables", [](Image& i) { i.le32(32, 0xffffffff); }},
      {"old mark, no blocks", "ploop-tables",
       [](Image& i) { i.put(0, "WithoutFreeSpace").le32(32, 0); }},
  };
}

std::vector<Spoiling> iso_spoilings() {
  return {
      {"volume above the file", "iso-truncated",
       [](Image& i) { i.le32(32768 + 80, 65).be32(32768 + 84, 65); }},
      {"volume of 8 TiB", "iso-truncated",
       [](Image& i) { i.le32(32768 + 80, 0xffffffff).be32(32768 + 84, 0xffffffff); }},
      {"byte orders differ", "iso-header", [](Image& i) { i.be32(32768 + 84, 32); }},
      {"block sizes differ", "iso-header", [](Image& i) { i.be<std::uint16_t>(32768 + 130, 512); }},
      {"blocks of 0", "iso-header",
       [](Image& i) { i.le<std::uint16_t>(32768 + 128, 0).be<std::uint16_t>(32768 + 130, 0); }},
      {"no end", "iso-header", [](Image& i) { i.zero(34816, 7); }},
      {"no primary descriptor", "iso-header", [](Image& i) { i.put(32768, "\2"); }},
      {"descriptors without end", "iso-header",
       [](Image& i) {
         for (std::size_t at = 34816; at < 131072; at += 2048) i.put(at, "\2CD001\1");
       }},
  };
}

std::vector<Spoiling> gpt_spoilings() {
  const auto sealed = [](std::function<void(Image&)> spoil) {
    return [spoil = std::move(spoil)](Image& i) { spoil(i), seal_gpt(i); };
  };
  const auto header = [](std::function<void(Image&)> spoil) {
    return [spoil = std::move(spoil)](Image& i) { spoil(i), seal_gpt_header(i, 512); };
  };
  return {
      {"wrong checksum", "gpt-header", [](Image& i) { i.le32(528, 1); }},
      {"revision 2", "gpt-header", header([](Image& i) { i.le32(520, 0x20000); })},
      {"header bomb", "gpt-header", header([](Image& i) { i.le32(524, 0xffffffff); })},
      {"header of 0 bytes", "gpt-header", header([](Image& i) { i.le32(524, 0); })},
      {"says it is elsewhere", "gpt-header", header([](Image& i) { i.le64(536, 7); })},
      {"two headers", "gpt-header", [](Image& i) { i.put(4096, "EFI PART"); }},
      {"entries checksum", "gpt-entries", [](Image& i) { i.put(1100, "x"); }},
      {"4 G entries", "gpt-entries", header([](Image& i) { i.le32(592, 0xffffffff); })},
      {"entries of 4 GiB", "gpt-entries", header([](Image& i) { i.le32(596, 0x80000000); })},
      {"entries of 1 byte", "gpt-entries", header([](Image& i) { i.le32(596, 1); })},
      {"entries far away", "gpt-entries", header([](Image& i) { i.le64(584, UINT64_MAX); })},
      {"partition in the header", "gpt-entries", sealed([](Image& i) { i.le64(1056, 0); })},
      {"partition behind the end", "gpt-entries", sealed([](Image& i) { i.le64(1064, 1 << 30); })},
      {"partition backwards", "gpt-entries", sealed([](Image& i) { i.le64(1056, 200); })},
      {"partitions overlap", "gpt-entries",
       sealed([](Image& i) { i.put(1152, "x").le64(1184, 100).le64(1192, 300); })},
      {"no backup", "gpt-backup", [](Image& i) { i.zero(2047 * 512, 512); }},
      {"damaged backup", "gpt-backup", [](Image& i) { i.put(2047 * 512 + 60, "x"); }},
      {"damaged entries of the backup", "gpt-backup", [](Image& i) { i.put(2015 * 512, "x"); }},
      {"backup of another disk", "gpt-backup",
       [](Image& i) { i.put(2047 * 512 + 56, "x"), seal_gpt_header(i, 2047 * 512); }},
      {"backup behind the end", "gpt-backup", header([](Image& i) { i.le64(544, 1 << 30); })},
      {"backup overflows", "gpt-backup", header([](Image& i) { i.le64(544, UINT64_MAX); })},
      {"backup at 0", "gpt-backup", header([](Image& i) { i.le64(544, 0); })},
      {"two backups", "gpt-backup",
       [](Image& i) { i.grow(2 * kMiB), i.put(2 * kMiB - 512, "EFI PART"); }},
      {"backup alone", "gpt-header", [](Image& i) { i.zero(0, 20000); }},
      {"no MBR", "mbr-protective", [](Image& i) { i.zero(446, 66); }},
      {"MBR protects nothing", "mbr-protective",
       [](Image& i) { put_partition(i, 0, 0x83, 64, 64); }},
      {"hybrid MBR", "mbr-hybrid", [](Image& i) { put_partition(i, 1, 0x83, 64, 64); }},
      {"protection starts late", "mbr-protective",
       [](Image& i) { put_partition(i, 0, 0xee, 2, 2047); }},
      {"boot flag", "mbr-partitions", [](Image& i) { i.put(446, "\x01"); }},
  };
}

std::vector<Spoiling> mbr_spoilings() {
  return {
      {"boot flag 1", "mbr-partitions", [](Image& i) { i.put(446, "\x01"); }},
      {"boot flag of the last", "mbr-partitions", [](Image& i) { i.put(494, "\xff"); }},
      {"no partition", "mbr-partitions", [](Image& i) { i.zero(446, 64); }},
      {"empty partition", "mbr-partitions", [](Image& i) { put_partition(i, 0, 0x83, 64, 0); }},
      {"partition behind the end", "mbr-partitions",
       [](Image& i) { put_partition(i, 0, 0x83, 4096, 1); }},
      {"partition overflows", "mbr-partitions",
       [](Image& i) { put_partition(i, 0, 0x83, 0xffffffff, 0xffffffff); }},
      {"partition one too long", "mbr-partitions",
       [](Image& i) { put_partition(i, 0, 0x83, 64, 1985); }},
      {"third behind the end", "mbr-partitions", [](Image& i) { put_partition(i, 2, 7, 2048, 1); }},
      {"protects nothing", "gpt-header", [](Image& i) { put_partition(i, 0, 0xee, 1, 2047); }},
      {"protects nothing, beside a partition", "gpt-header",
       [](Image& i) { put_partition(i, 1, 0xee, 1, 2047); }},
      {"FAT boot sector with a partition too large", "mbr-partitions",
       [](Image& i) {
         i.put(0, "\xeb").put(16, "\2").put(21, "\xf8");
         put_partition(i, 0, 0x83, 64, 4096);
       }},
      {"NTFS boot sector with a partition too large", "mbr-partitions",
       [](Image& i) {
         i.put(3, "NTFS    ");
         put_partition(i, 0, 0x83, 64, 4096);
       }},
  };
}

std::vector<Spoiling> luks1_spoilings() {
  return {
      {"null cipher (CVE-2025-59054)", "luks-null-cipher",
       [](Image& i) { i.zero(8, 64).put(8, "cipher_null").put(40, "ecb"); }},
      {"null cipher, other mode", "luks-null-cipher",
       [](Image& i) { i.zero(8, 32).put(8, "cipher_null"); }},
      {"ECB", "luks-cipher", [](Image& i) { i.zero(40, 32).put(40, "ecb"); }},
      {"predictable IVs", "luks-cipher", [](Image& i) { i.zero(40, 32).put(40, "cbc-plain"); }},
      {"unknown cipher", "luks-cipher", [](Image& i) { i.zero(8, 32).put(8, "evil"); }},
      {"kernel crypto API", "luks-cipher", [](Image& i) { i.zero(8, 32).put(8, "capi:ecb(x)"); }},
      {"absurd stripes (oslo.utils)", "luks-stripes",
       [](Image& i) { i.be32(208 + 44, 0x7fffffff); }},
      {"no stripes", "luks-stripes", [](Image& i) { i.be32(208 + 44, 0); }},
      {"absurd iterations", "luks-kdf-cost", [](Image& i) { i.be32(208 + 4, 0xffffffff); }},
      {"one iteration", "luks-kdf-cost", [](Image& i) { i.be32(208 + 4, 1); }},
      {"absurd iterations of the digest", "luks-kdf-cost",
       [](Image& i) { i.be32(164, 0xffffffff); }},
      {"no iterations", "luks-header", [](Image& i) { i.be32(164, 0); }},
      {"unknown hash", "luks-policy", [](Image& i) { i.zero(72, 32).put(72, "md5"); }},
      {"key bomb", "luks-header", [](Image& i) { i.be32(108, 0xffffffff); }},
      {"no key", "luks-header", [](Image& i) { i.be32(108, 0); }},
      {"keyslot in the header", "luks-header", [](Image& i) { i.be32(208 + 40, 0); }},
      {"keyslot in the payload", "luks-header", [](Image& i) { i.be32(208 + 40, 0xffffffff); }},
      {"keyslots overlap", "luks-header",
       [](Image& i) { i.put(256 + 40, as_string_view(ByteView(i.bytes).subspan(208 + 40, 4))); }},
      {"payload behind the end", "luks-truncated",
       [](Image& i) { i.be32(104, 0xffffffff).bytes.resize(100'000); }},
      {"version 3", "luks-header", [](Image& i) { i.put(6, std::string_view("\0\3", 2)); }},
      {"text without end", "luks-header", [](Image& i) { i.put(8, std::string(32, 'a')); }},
  };
}

std::vector<Spoiling> luks2_spoilings() {
  const auto changed = [](std::function<void(luks::Header&)> change) {
    return [change = std::move(change)](Image& i) { change_luks2(i, change); };
  };
  const auto kdf = [changed](std::function<void(luks::Kdf&)> change) {
    return changed([change = std::move(change)](luks::Header& h) {
      luks::Kdf& found = h.keyslots.at(0).kdf;
      found.type = luks::Kdf::Type::kArgon2id;
      found.type_name = "argon2id";
      found.hash.clear();
      found.iterations = 4;
      found.memory_kib = 1024;
      found.parallel = 1;
      change(found);
    });
  };
  return {
      {"null cipher (CVE-2025-59054)", "luks-null-cipher",
       changed([](luks::Header& h) { h.segments.at(0).encryption = "cipher_null-ecb"; })},
      {"null cipher of a keyslot (CVE-2025-58356)", "luks-null-cipher",
       changed([](luks::Header& h) { h.keyslots.at(0).area.encryption = "cipher_null-ecb"; })},
      {"not encrypted", "luks-null-cipher", changed([](luks::Header& h) {
         luks::Segment& segment = h.segments.at(0);
         segment.type = luks::Segment::Type::kLinear;
         segment.type_name = "linear";
         segment.encryption.clear();
       })},
      {"unknown segment", "luks-policy", changed([](luks::Header& h) {
         h.segments.at(0).type = luks::Segment::Type::kUnknown;
         h.segments.at(0).type_name = "evil";
         h.segments.at(0).encryption.clear();
       })},
      {"ECB", "luks-cipher",
       changed([](luks::Header& h) { h.segments.at(0).encryption = "aes-ecb"; })},
      {"unknown cipher", "luks-cipher",
       changed([](luks::Header& h) { h.segments.at(0).encryption = "evil-xts-plain64"; })},
      {"argon2 memory", "luks-kdf-cost", kdf([](luks::Kdf& k) { k.memory_kib = 0xffffffff; })},
      {"argon2 time", "luks-kdf-cost", kdf([](luks::Kdf& k) { k.iterations = 0xffffffff; })},
      {"argon2 lanes", "luks-kdf-cost", kdf([](luks::Kdf& k) { k.parallel = 1024; })},
      {"iterations", "luks-kdf-cost",
       changed([](luks::Header& h) { h.keyslots.at(0).kdf.iterations = 0xffffffff; })},
      {"digest iterations", "luks-kdf-cost",
       changed([](luks::Header& h) { h.digests.at(0).iterations = 0xffffffff; })},
      {"requirement", "luks-policy",
       changed([](luks::Header& h) { h.config.requirements.insert("evil"); })},
      {"short digest", "luks-policy",
       changed([](luks::Header& h) { h.digests.at(0).digest.resize(16); })},
      {"copies differ", "luks-copies",
       [](Image& i) {
         const Image before = i;
         change_luks2(i, [](luks::Header& h) { h.sequence_id += 1; });
         i.put(0, as_string_view(ByteView(before.bytes).first(16384)));
       }},
      {"evil second copy", "luks-null-cipher",
       [](Image& i) {
         const Image before = i;
         change_luks2(i, [](luks::Header& h) {
           h.sequence_id += 1;
           h.segments.at(0).encryption = "cipher_null-ecb";
         });
         i.put(0, as_string_view(ByteView(before.bytes).first(16384)));
       }},
      {"second copy gone", "luks-copies", [](Image& i) { i.zero(16384, 16384); }},
      {"second copy alone", "luks-copies", [](Image& i) { i.zero(0, 16384); }},
      {"first copy damaged", "luks-header", [](Image& i) { i.put(5000, "x"); }},
      {"metadata of 4 MiB", "luks-header", [](Image& i) { i.be64(8, 0x400000); }},
      {"metadata bomb", "luks-header", [](Image& i) { i.be64(8, UINT64_MAX); }},
      {"segment behind the end", "luks-truncated",
       changed([](luks::Header& h) { h.segments.at(0).size_bytes = std::uint64_t{1} << 50; })},
  };
}

const std::map<std::string, std::vector<Spoiling>>& spoilings() {
  static const std::map<std::string, std::vector<Spoiling>> kAll = {
      {"qcow2", qcow2_spoilings()}, {"vhd", vhd_spoilings()},
      {"vhdx", vhdx_spoilings()},   {"vmdk", vmdk_spoilings()},
      {"vdi", vdi_spoilings()},     {"vmdk stream", vmdk_stream_spoilings()},
      {"ploop", ploop_spoilings()}, {"iso", iso_spoilings()},
      {"gpt", gpt_spoilings()},     {"mbr", mbr_spoilings()},
      {"luks1", luks1_spoilings()}, {"luks2", luks2_spoilings()},
  };
  return kAll;
}

// ---- a second format --------------------------------------------------------------------------

struct Overlay {
  std::string name;
  std::function<void(Image&)> put;
};

std::vector<Overlay> overlays() {
  std::vector<Overlay> all = {
      {"vhd footer", [](Image& i) { put_vhd_footer(i, i.bytes.size(), 2, i.bytes.size()); }},
      {"dmg trailer", [](Image& i) { i.put(i.bytes.size(), "koly" + std::string(508, '\0')); }},
      {"iso", [](Image& i) { put_iso(i, 18); }},
      {"mbr", [](Image& i) { put_partition(i, 0, 0x83, 0, 1); }},
      {"gpt", [](Image& i) { i.put(512, "EFI PART"); }},
      {"vdi", [](Image& i) { i.le32(0x40, 0xbeda107f); }},
  };
  for (const std::string_view mark :
       {"QFI\xfb\0\0\0\3"sv, "KDMV"sv, "conectix"sv, "vhdxfile"sv, "QED\0"sv, "LUKS\xba\xbe"sv,
        "\x1f\x8b\x08"sv, "\x28\xb5\x2f\xfd"sv, "\xfd\x37zXZ\0"sv, "WithoutFreeSpace"sv,
        "Bochs Virtual HD Image"sv, "# Disk DescriptorFile\n"sv, "COWD"sv}) {
    all.push_back({printable(mark), [mark](Image& i) { i.put(0, mark); }});
  }
  return all;
}

// What is a second format by nature: a wrapper, or a hybrid ISO.
bool is_lawful(const std::string& format, const std::string& overlay) {
  if (overlay == "vhd footer") return format == "gpt" || format == "mbr" || format == "iso";
  if (format == "ploop" && overlay == "WithoutFreeSpace") return true;
  if (format == "iso") return overlay == "mbr" || overlay == "gpt" || overlay == "iso";
  return (format == "mbr" && (overlay == "mbr" || overlay == "iso")) ||
         (format == "gpt" && overlay == "iso");
}

// One at a time: together they are half a gigabyte.
template <typename Use>
void for_each_row(Use use) {
  for (const Base& base : bases()) {
    const Image good = base.make();
    for (const Spoiling& spoiling : spoilings().at(base.format)) {
      Row row{base.format, spoiling.name, spoiling.finding, good};
      spoiling.spoil(row.image);
      use(row);
    }
    for (const std::size_t cut : base.cuts) {
      Row row{base.format, fmt::format("cut at {}", cut), {}, good};
      row.image.bytes.resize(cut);
      use(row);
    }
    for (const Overlay& overlay : overlays()) {
      Row row{base.format, "also " + overlay.name, {}, good};
      overlay.put(row.image);
      if (!is_lawful(base.format, overlay.name) && row.image.bytes != good.bytes) use(row);
    }
  }
}

std::string describe(const Report& report) {
  std::string text = fmt::format("{} {} {} {}", report.format, report.variant, report.size_bytes,
                                 report.virtual_size_bytes.value_or(0));
  for (const Finding& finding : report.findings) {
    text += fmt::format("\n{}: {}", finding.name, finding.what);
  }
  return text;
}

Report inspect_chunks(ByteView bytes, std::size_t chunk) {
  Inspector inspector;
  while (!bytes.empty()) {
    const ByteView part = bytes.first(std::min(chunk, bytes.size()));
    inspector.feed(part);
    bytes = bytes.subspan(part.size());
  }
  return inspector.finish();
}

TEST(HostileImages, BasesAreSafe) {
  for (const Base& base : bases()) {
    const Report report = inspect_chunks(base.make().bytes, 4096);
    EXPECT_TRUE(report.safe()) << base.format << ": " << describe(report);
    EXPECT_EQ(report.format, base.format.substr(0, base.format.find(' ')));
    EXPECT_EQ(report.formats.size(), 1U);
  }
  EXPECT_TRUE(inspect_chunks(vhd_fixed().bytes, 4096).safe());
}

TEST(HostileImages, TwentyOfEachFormat) {
  std::map<std::string, int> counts;
  for_each_row([&](const Row& row) { ++counts[row.format]; });
  for (const auto& [format, count] : counts) EXPECT_GE(count, 20) << format;
}

TEST(HostileImages, NoneIsCalledSafe) {
  for_each_row([](const Row& row) {
    const Report report = inspect_chunks(row.image.bytes, 65536);
    EXPECT_FALSE(report.safe()) << row.format << ", " << row.name << ": " << describe(report);
    const auto found =
        std::any_of(report.findings.begin(), report.findings.end(), [&](const Finding& f) {
          return f.dangerous() && (row.finding.empty() || f.name == row.finding);
        });
    EXPECT_TRUE(found) << row.format << ", " << row.name << ": " << row.finding << " not in "
                       << describe(report);
  });
}

TEST(HostileImages, TheVerdictDoesNotDependOnHowTheyArrive) {
  for_each_row([](const Row& row) {
    const std::string expected = describe(inspect_chunks(row.image.bytes, row.image.bytes.size()));
    for (const std::size_t chunk : {511U, 4096U, 300'007U}) {
      EXPECT_EQ(describe(inspect_chunks(row.image.bytes, chunk)), expected)
          << row.format << ", " << row.name;
    }
    const auto device = std::make_shared<storage::MemoryDevice>(row.image.bytes, false);
    EXPECT_EQ(describe(inspect(device, {})), expected) << row.format << ", " << row.name;
  });
  const Bytes bytes = qcow2().bytes;
  EXPECT_EQ(describe(inspect_chunks(bytes, 1)), describe(inspect_chunks(bytes, bytes.size())));
}

TEST(HostileImages, NoneTakesMoreMemoryThanTheBound) {
  inspect_chunks(luks2().bytes, 65536);  // what is made once
  for_each_row([](const Row& row) {
    const std::size_t before = live_bytes;
    peak_bytes = before;
    inspect_chunks(row.image.bytes, 65536);
    EXPECT_LE(peak_bytes - before, 4 * kMiB) << row.format << ", " << row.name;
  });
}

TEST(HostileImages, NoneIsCalledSafeUnderThreeLayersOfEncryption) {
  Nest nest;
  for_each_row([&](const Row& row) {
    Bytes bytes = row.image.bytes;
    bytes.resize((bytes.size() + 511) / 512 * 512);  // volumes hold whole sectors
    const Report flat = inspect_chunks(bytes, 65536);
    EXPECT_TRUE(!flat.safe() || bytes.size() != row.image.bytes.size()) << row.name;
    const Report outer = nest.look(bytes);
    EXPECT_EQ(outer.safe(), flat.safe()) << row.format << ", " << row.name;
    ASSERT_TRUE(outer.inner && outer.inner->inner && outer.inner->inner->inner);
    // What is encrypted in the row itself would be the fourth layer.
    if (flat.encrypted) return;
    EXPECT_EQ(describe(*outer.inner->inner->inner), describe(flat)) << row.format << row.name;
  });
}

// A JSON of small values takes the most memory of what a header can hold.
TEST(HostileImages, JsonBombStaysWithinTheBound) {
  Image image = luks2();
  constexpr std::size_t kCopy = 256 * 1024;
  std::string json = "{\"x\":[";
  while (json.size() < kCopy - 4096 - 8) json += "{},";
  json += "{}]}";
  image.bytes.assign(2 * kCopy, std::byte{});
  const Image small = luks2();
  image.put(0, as_string_view(ByteView(small.bytes).first(4096))).be64(8, kCopy).put(4096, json);
  image.zero(448, 64);
  const Bytes sum = crypto::hash("sha256", ByteView(image.bytes).first(kCopy));
  image.put(448, as_string_view(sum));
  const std::size_t before = live_bytes;
  peak_bytes = before;
  const Report report = inspect_chunks(image.bytes, 65536);
  EXPECT_FALSE(report.safe());
  EXPECT_EQ(report.findings.at(0).what.find("checksum"), std::string::npos)
      << report.findings.at(0).what;
  EXPECT_LE(peak_bytes - before, 14 * kMiB);
}

}  // namespace
}  // namespace lukskeep::image
