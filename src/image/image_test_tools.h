// Small images of every format, written field by field, for tests to spoil.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "image/crc32.h"
#include "image/inspect_device.h"
#include "luks/crypt_device.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"
#include "storage/memory_device.h"

namespace lukskeep::image::testing {

inline constexpr std::size_t kMiB = limits::kMiB;

struct Image {
  Bytes bytes;

  Image& put(std::size_t at, std::string_view text) {
    grow(at + text.size());
    std::copy_n(as_byte_view(text).begin(), text.size(),
                bytes.begin() + static_cast<std::ptrdiff_t>(at));
    return *this;
  }
  template <typename T>
  Image& be(std::size_t at, T value) {
    grow(at + sizeof(T));
    store_be<T>(&bytes[at], value);
    return *this;
  }
  template <typename T>
  Image& le(std::size_t at, T value) {
    grow(at + sizeof(T));
    store_le<T>(&bytes[at], value);
    return *this;
  }
  Image& be32(std::size_t at, std::uint32_t value) { return be(at, value); }
  Image& be64(std::size_t at, std::uint64_t value) { return be(at, value); }
  Image& le32(std::size_t at, std::uint32_t value) { return le(at, value); }
  Image& le64(std::size_t at, std::uint64_t value) { return le(at, value); }
  Image& hex(std::size_t at, std::string_view digits) {
    return put(at, as_string_view(*from_hex(digits)));
  }
  Image& zero(std::size_t at, std::size_t size) { return put(at, std::string(size, '\0')); }
  void grow(std::size_t size) { bytes.resize(std::max(bytes.size(), size)); }
};

inline Image blank(std::size_t size) { return {.bytes = Bytes(size)}; }

// Version 3, clusters of 64 KiB: header, refcount table, refcount block, L1 table, 1 MiB disk.
inline Image qcow2() {
  Image image = blank(4 * 65536);
  image.put(0, "QFI\xfb").be32(4, 3).be32(20, 16).be64(24, kMiB).be32(36, 1).be64(40, 3 * 65536);
  return image.be64(48, 65536).be32(56, 1).be32(96, 4).be32(100, 104);
}

inline void seal_sum(Image& image, std::size_t begin, std::size_t size, std::size_t at) {
  image.zero(at, 4);
  std::uint32_t sum = 0;
  for (std::size_t i = begin; i < begin + size; ++i) {
    sum += std::to_integer<std::uint32_t>(image.bytes[i]);
  }
  image.be32(at, ~sum);
}

inline void put_vhd_footer(Image& image, std::size_t at, std::uint32_t type, std::uint64_t size) {
  image.grow(at + 512);
  image.put(at, "conectix").be32(at + 8, 2).be32(at + 12, 0x10000);
  image.be64(at + 16, type == 2 ? UINT64_MAX : 512).put(at + 28, "test").be64(at + 40, size);
  image.be64(at + 48, size).be32(at + 60, type);
  seal_sum(image, at, 512, at + 64);
}

// Checksums of a dynamic VHD, and its footer as the copy at the start.
inline void seal_vhd(Image& image) {
  seal_sum(image, 0, 512, 64);
  seal_sum(image, 512, 1024, 512 + 36);
  std::copy_n(image.bytes.begin(), 512, image.bytes.end() - 512);
}

inline Image vhd() {
  Image image = blank(4096);
  put_vhd_footer(image, 0, 3, 4 * kMiB);
  image.put(512, "cxsparse").be64(512 + 8, UINT64_MAX).be64(512 + 16, 1536).be32(512 + 24, 0x10000);
  image.be32(512 + 28, 2).be32(512 + 32, 2 * kMiB);
  seal_vhd(image);
  return image;
}

inline Image vhd_fixed() {
  Image image = blank(kMiB);
  put_vhd_footer(image, kMiB, 2, kMiB);
  return image;
}

inline void seal_crc32c(Image& image, std::size_t at, std::size_t size) {
  const ByteView bytes = ByteView(image.bytes).subspan(at, size);
  image.le32(at + 4, crc_with_hole<kCrc32cPolynomial>(bytes, 4));
}

inline void seal_vhdx(Image& image) {
  seal_crc32c(image, 65536, 4096);
  seal_crc32c(image, 131072, 4096);
  std::copy_n(image.bytes.begin() + 196608, 65536, image.bytes.begin() + 262144);
  seal_crc32c(image, 196608, 65536);
  seal_crc32c(image, 262144, 65536);
}

// Block table at 1 MiB, metadata at 2 MiB, 8 MiB disk of blocks of 1 MiB.
inline Image vhdx() {
  Image image = blank(3 * kMiB);
  image.put(0, "vhdxfile");
  for (const std::size_t at : {65536U, 131072U}) {
    image.put(at, "head").le64(at + 8, at).le<std::uint16_t>(at + 66, 1);
  }
  image.put(196608, "regi").le32(196608 + 8, 2);
  image.hex(196608 + 16, "6677c22d23f600429d64115e9bfd4a08").le64(196608 + 32, kMiB);
  image.le32(196608 + 40, kMiB).le32(196608 + 44, 1);
  image.hex(196608 + 48, "06a27c8b90479a4bb8fe575f050f886e").le64(196608 + 64, 2 * kMiB);
  image.le32(196608 + 72, kMiB).le32(196608 + 76, 1);
  const std::size_t meta = 2 * kMiB;
  image.put(meta, "metadata").le<std::uint16_t>(meta + 10, 3);
  std::size_t entry = meta + 32;
  std::uint32_t at = 65536;
  for (const auto* id : {"3767a1ca36fa434db3b633f0aa44e76b", "2442a52f1bcd7648b2115dbed83bf4b8",
                         "1dbf41816fa90947ba47f233a8faab5f"}) {
    image.hex(entry, id).le32(entry + 16, at).le32(entry + 20, 8).le32(entry + 24, 4);
    entry += 32;
    at += 8;
  }
  image.le32(meta + 65536, kMiB).le64(meta + 65544, 8 * kMiB).le32(meta + 65552, 512);
  seal_vhdx(image);
  return image;
}

inline std::string vmdk_descriptor(std::string_view type) {
  return "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"" +
         std::string(type) + "\"\n\n# Extent description\nRW 2048 SPARSE \"disk.vmdk\"\n\n" +
         "ddb.adapterType = \"ide\"\n";
}

inline void put_vmdk_descriptor(Image& image, std::string_view text) {
  image.zero(512, 20 * 512).put(512, text);
}

inline Image vmdk() {
  Image image = blank(131072);
  image.put(0, "KDMV").le32(4, 1).le32(8, 3).le64(12, 2048).le64(20, 128).le64(28, 1).le64(36, 20);
  image.le32(44, 512).le64(48, 21).le64(56, 26).le64(64, 128).put(73, "\n \r\n");
  put_vmdk_descriptor(image, vmdk_descriptor("monolithicSparse"));
  return image;
}

// Its footer is as the header but for the place of the tables.
inline void seal_vmdk_stream(Image& image) {
  const std::size_t marker = image.bytes.size() - 1536;
  image.le64(marker, 1).le32(marker + 12, 3);
  image.put(marker + 512, as_string_view(ByteView(image.bytes).first(512)));
  image.le64(marker + 512 + 56, 26);
}

inline Image vmdk_stream() {
  Image image = vmdk();
  image.le32(4, 3).le32(8, 0x30001).le64(56, UINT64_MAX).le<std::uint16_t>(77, 1);
  put_vmdk_descriptor(image, vmdk_descriptor("streamOptimized"));
  seal_vmdk_stream(image);
  return image;
}

inline Image vmdk_text() {
  Image image;
  return image.put(0, vmdk_descriptor("monolithicFlat"));
}

inline Image vdi() {
  Image image = blank(kMiB + 1024);
  image.put(0, "<<< Oracle VM VirtualBox Disk Image >>>\n").le32(0x40, 0xbeda107f);
  image.le32(0x44, 0x10001).le32(0x48, 0x180).le32(0x4c, 1).le32(0x154, 512).le32(0x158, 1024);
  image.le32(0x168, 512).le64(0x170, 4 * kMiB).le32(0x178, kMiB).le32(0x180, 4).le32(0x184, 1);
  return image;
}

inline Image ploop() {
  Image image = blank(65536);
  image.put(0, "WithouFreSpacExt").le32(16, 2).le32(28, 2048).le32(32, 4).le64(36, 8192);
  return image;
}

inline void put_iso(Image& image, std::uint32_t blocks) {
  image.put(32768, std::string_view("\1CD001\1", 7)).le32(32768 + 80, blocks);
  image.be32(32768 + 84, blocks).le<std::uint16_t>(32768 + 128, 2048);
  image.be<std::uint16_t>(32768 + 130, 2048)
      .put(34816,
           "\xff"
           "CD001\1")
      .grow(36864);
}

inline Image iso() {
  Image image = blank(64 * 2048);
  put_iso(image, 64);
  return image;
}

inline void put_partition(Image& image, std::size_t slot, std::uint8_t type, std::uint32_t start,
                          std::uint32_t size) {
  const std::size_t at = 446 + slot * 16;
  image.zero(at, 16).put(510, "\x55\xaa").le<std::uint8_t>(at + 4, type);
  image.le32(at + 8, start).le32(at + 12, size);
}

inline Image mbr() {
  Image image = blank(kMiB);
  put_partition(image, 0, 0x83, 64, 512);
  return image;
}

inline void seal_gpt_header(Image& image, std::size_t at) {
  const ByteView header = ByteView(image.bytes).subspan(at, 92);
  image.le32(at + 16, crc_with_hole<kCrc32Polynomial>(header, 16));
}

// Checksums of a GPT whose backup is to say what its header says.
inline void seal_gpt(Image& image, std::size_t sectors = 2048) {
  Crc<kCrc32Polynomial> crc;
  crc.add(ByteView(image.bytes).subspan(1024, 128 * 128));
  image.le32(512 + 88, crc.value());
  seal_gpt_header(image, 512);
  const std::size_t backup = (sectors - 1) * 512;
  std::copy_n(image.bytes.begin() + 1024, 128 * 128,
              image.bytes.begin() + static_cast<std::ptrdiff_t>(backup - 32 * 512));
  image.put(backup, as_string_view(ByteView(image.bytes).subspan(512, 512)));
  image.le64(backup + 24, sectors - 1).le64(backup + 32, 1).le64(backup + 72, sectors - 33);
  seal_gpt_header(image, backup);
}

inline Image gpt() {
  Image image = blank(kMiB);
  put_partition(image, 0, 0xee, 1, 2047);
  image.put(447, std::string_view("\0\2\0", 3));
  image.put(512, "EFI PART").le32(520, 0x10000).le32(524, 92).le64(536, 1).le64(544, 2047);
  image.le64(552, 34).le64(560, 2014).put(568, "0123456789abcdef").le64(584, 2);
  image.le32(592, 128).le32(596, 128);
  image.put(1024, "0123456789abcdef").put(1040, "fedcba9876543210").le64(1056, 64).le64(1064, 128);
  seal_gpt(image);
  return image;
}

inline Image luks(luks::Version version) {
  return {.bytes = luks::testing::contents(
              luks::testing::make_volume(luks::testing::cheap_options(version)))};
}

inline Image luks1() { return luks(luks::Version::kLuks1); }
inline Image luks2() { return luks(luks::Version::kLuks2); }

// Both copies of the header anew, as `change` makes it.
template <typename Change>
void change_luks2(Image& image, Change change) {
  constexpr std::size_t kSize = 16384;
  auto header = luks::decode_luks2(ByteView(image.bytes).first(kSize), 0, "test");
  change(header);
  const Bytes salt(luks::kLuks2SaltBytes);
  image.put(0, as_string_view(luks::encode_luks2(header, luks::Luks2Copy::kPrimary, salt)));
  image.put(kSize, as_string_view(luks::encode_luks2(header, luks::Luks2Copy::kSecondary, salt)));
}

// Three volumes, each within another, whose innermost contents can be replaced.
class Nest {
 public:
  Nest() {
    device_ = std::make_shared<storage::MemoryDevice>(Bytes());
    inner_ = device_;
    for (const luks::Version version :
         {luks::Version::kLuks2, luks::Version::kLuks1, luks::Version::kLuks2}) {
      const luks::NewHeader fresh = luks::make_header(luks::testing::cheap_options(version));
      inner_->resize(luks::header_device_bytes(fresh.header) + 512);
      luks::create_volume(inner_, fresh, as_byte_view(luks::testing::kFirstPassphrase),
                          luks::testing::cheap_keyslot());
      inner_ = luks::make_crypt_device(fresh.header, inner_, fresh.volume_key.span(),
                                       {.writable = true});
      keys_.push_back(fresh.volume_key.clone());
    }
  }

  Report look(ByteView bytes) {
    inner_->resize(bytes.size());
    inner_->write(0, bytes);
    return inspect(device_, {.unlock = [this](const luks::HeaderFile&, unsigned layer) {
                     return std::optional(luks::Unlocked{.key = keys_.at(layer).clone()});
                   }});
  }

 private:
  std::shared_ptr<Device> device_;
  std::shared_ptr<Device> inner_;
  std::vector<SecretBytes> keys_;
};

}  // namespace lukskeep::image::testing
