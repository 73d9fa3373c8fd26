#include "luks/crypt_device.h"

#include <random>
#include <thread>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "crypto/sector_cipher.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using storage::MemoryDevice;

constexpr std::uint64_t kOffset = 8192;

Header plain_header(std::uint32_t sector_bytes, std::uint64_t iv_tweak = 0) {
  Header header;
  header.metadata_size_bytes = 0x4000;
  header.segments[0] = Segment{.offset_bytes = kOffset,
                               .iv_tweak = iv_tweak,
                               .encryption = "aes-xts-plain64",
                               .sector_size_bytes = sector_bytes};
  return header;
}

Bytes test_key() {
  Bytes key(64);
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i * 7 + 1);
  return key;
}

Code code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing thrown";
  return Code::kInternal;
}

TEST(CryptDevice, AnyAlignmentAgreesWithAModel) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (const std::uint32_t sector : {512U, 1024U, 2048U, 4096U}) {
    auto payload = std::make_shared<MemoryDevice>(Bytes(kOffset + 65'536));
    auto device = make_crypt_device(plain_header(sector), payload, test_key(), {.writable = true});
    ASSERT_EQ(device->size_bytes(), 65'536U);
    Bytes model(65'536);
    device->write(0, model);
    for (int i = 0; i < 200; ++i) {
      const std::size_t at = random() % model.size();
      const std::size_t length = 1 + random() % std::min<std::size_t>(model.size() - at, 9000);
      Bytes data(length);
      for (std::byte& b : data) b = static_cast<std::byte>(random());
      device->write(at, data);
      std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
      const std::size_t from = random() % model.size();
      Bytes read(1 + random() % (model.size() - from));
      device->read(from, read);
      ASSERT_TRUE(
          std::equal(read.begin(), read.end(), model.begin() + static_cast<std::ptrdiff_t>(from)));
    }
    // What is stored is what the cipher alone makes of it: sector numbers from the payload's start.
    Bytes stored(payload->contents().begin() + kOffset, payload->contents().end());
    crypto::make_sector_cipher(crypto::parse_cipher_spec("aes-xts-plain64"), test_key(), sector)
        ->decrypt(0, stored);
    EXPECT_EQ(stored, model);
  }
}

TEST(CryptDevice, IvTweakShiftsTheSectorNumbers) {
  auto payload = std::make_shared<MemoryDevice>(Bytes(kOffset + 4096, std::byte{0x11}));
  Bytes shifted(512);
  make_crypt_device(plain_header(512, 3), payload, test_key(), {})->read(0, shifted);
  Bytes expected(512, std::byte{0x11});
  crypto::make_sector_cipher(crypto::parse_cipher_spec("aes-xts-plain64"), test_key(), 512)
      ->decrypt(3, expected);
  EXPECT_EQ(shifted, expected);
}

TEST(CryptDevice, SeveralSegmentsFollowEachOther) {
  Header header = plain_header(512);
  header.segments.at(0).size_bytes = 4096;
  header.segments[1] = header.segments.at(0);
  header.segments.at(1).offset_bytes = kOffset + 16'384;
  header.segments.at(1).iv_tweak = 8;
  header.segments.at(1).size_bytes.reset();
  header.segments[2] = header.segments.at(0);
  header.segments.at(2).flags = {"backup-final"};
  auto payload = std::make_shared<MemoryDevice>(Bytes(kOffset + 16'384 + 4096));
  auto device = make_crypt_device(header, payload, test_key(), {.writable = true});
  ASSERT_EQ(device->size_bytes(), 8192U);
  Bytes data(6000);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
  device->write(1000, data);
  Bytes read(6000);
  device->read(1000, read);
  EXPECT_EQ(read, data);
  EXPECT_TRUE(all_zero(ByteView(payload->contents()).subspan(kOffset + 4096, 12'288)));
}

TEST(CryptDevice, WritersOfOneSectorDoNotLoseEachOther) {
  auto payload = std::make_shared<MemoryDevice>(Bytes(kOffset + 4096));
  const auto device =
      make_crypt_device(plain_header(4096), payload, test_key(), {.writable = true});
  device->write(0, Bytes(4096));
  const auto writer = [&](std::size_t at) {
    for (int i = 1; i <= 100; ++i) device->write(at, Bytes(64, static_cast<std::byte>(i)));
  };
  {
    const std::jthread one(writer, 0);
    const std::jthread two(writer, 2000);
    writer(4000);
  }
  for (const std::size_t at : {0U, 2000U, 4000U}) {
    Bytes read(64);
    device->read(at, read);
    EXPECT_EQ(read, Bytes(64, std::byte{100})) << at;
  }
}

TEST(CryptDevice, HolesReadAsZeroesOnlyWhenAsked) {
  auto payload = std::make_shared<MemoryDevice>(Bytes(kOffset + 8192));
  const auto strict = make_crypt_device(plain_header(512), payload, test_key(), {});
  Bytes read(1024);
  strict->read(0, read);
  EXPECT_FALSE(all_zero(read));
  const auto holes = make_crypt_device(plain_header(512), payload, test_key(),
                                       {.writable = true, .holes_as_zeroes = true});
  holes->write(512, Bytes(512, std::byte{9}));
  holes->read(0, read);
  EXPECT_TRUE(all_zero(ByteView(read).first(512)));
  EXPECT_EQ(read[512], std::byte{9});
  holes->write_zeroes(512, 512, ZeroMode::kPunch);
  EXPECT_TRUE(all_zero(payload->contents()));
}

TEST(CryptDevice, GrowsWithItsPayload) {
  auto payload = std::make_shared<MemoryDevice>(Bytes(kOffset));
  const auto device = make_crypt_device(plain_header(512), payload, test_key(), {.writable = true});
  EXPECT_EQ(device->size_bytes(), 0U);
  device->resize(4096);
  EXPECT_EQ(device->size_bytes(), 4096U);
  EXPECT_EQ(payload->size_bytes(), kOffset + 4096);
}

TEST(CryptDevice, WhatItRefuses) {
  const auto payload = [](std::size_t size) { return std::make_shared<MemoryDevice>(Bytes(size)); };
  const auto make = [&](const Header& header, std::size_t size = kOffset + 4096) {
    return code_of([&] { make_crypt_device(header, payload(size), test_key(), {}); });
  };
  Header header = plain_header(512);
  header.config.requirements = {"made-up"};
  EXPECT_EQ(make(header), Code::kUnsupported);
  header = plain_header(512);
  header.segments.at(0).encryption = "cipher_null-ecb";
  EXPECT_EQ(make(header), Code::kUnsafe);
  header = plain_header(512);
  header.segments.at(0).type = Segment::Type::kLinear;
  EXPECT_EQ(make(header), Code::kUnsafe);
  header = plain_header(512);
  header.segments.at(0).has_integrity = true;
  EXPECT_EQ(make(header), Code::kUnsupported);
  EXPECT_EQ(make(plain_header(1536)), Code::kUnsupported);
  EXPECT_EQ(make(plain_header(512), kOffset - 1), Code::kTooSmall);
  header = plain_header(512);
  header.segments.clear();
  EXPECT_EQ(make(header), Code::kDamaged);
  header = plain_header(512);
  header.segments[1] = header.segments.at(0);
  EXPECT_EQ(make(header), Code::kDamaged);
  header = plain_header(512);
  header.segments.at(0).size_bytes = 512;
  header.segments[1] = header.segments.at(0);
  header.segments.at(1).offset_bytes += 512;
  header.digests[0].segments = {0};
  header.digests[1].segments = {1};
  EXPECT_EQ(make(header), Code::kUnsupported);

  const auto device = make_crypt_device(plain_header(512), payload(kOffset + 4096), test_key(), {});
  Bytes byte(1);
  EXPECT_EQ(code_of([&] { device->read(4096, byte); }), Code::kTooSmall);
  EXPECT_EQ(code_of([&] { device->read(UINT64_MAX, byte); }), Code::kTooSmall);
  EXPECT_EQ(code_of([&] { device->write(0, byte); }), Code::kReadOnly);
}

TEST(CryptDevice, DiscardsWholeSectorsOnly) {
  for (const bool holes : {false, true}) {
    SCOPED_TRACE(holes);
    auto payload = std::make_shared<MemoryDevice>(Bytes(kOffset + 65'536));
    auto device = make_crypt_device(plain_header(4096), payload, test_key(),
                                    {.writable = true, .holes_as_zeroes = holes});
    const Bytes data(65'536, std::byte{7});
    device->write(0, data);
    const Bytes before = payload->contents();
    device->discard(100, 4096);  // no whole sector
    device->discard(65'535, 1);
    device->discard(5, 0);
    EXPECT_EQ(payload->contents(), before);
    device->discard(4095, 3 * 4096);  // the second and third
    Bytes expected = before;
    std::fill_n(expected.begin() + kOffset + 4096, 2 * 4096, std::byte{0});
    EXPECT_EQ(payload->contents(), expected);
    Bytes back(65'536);
    device->read(0, back);
    EXPECT_TRUE(std::equal(back.begin(), back.begin() + 4096, data.begin()));
    EXPECT_TRUE(std::equal(back.begin() + 3 * 4096, back.end(), data.begin()));
    EXPECT_EQ(all_zero(ByteView(back).subspan(4096, 2 * 4096)), holes);
  }
}

TEST(CryptDevice, PunchesWholeSectorsAndZeroesTheRest) {
  auto payload = std::make_shared<MemoryDevice>(Bytes(kOffset + 65'536));
  auto device = make_crypt_device(plain_header(4096), payload, test_key(),
                                  {.writable = true, .holes_as_zeroes = true});
  struct Case {
    std::uint64_t offset;
    std::uint64_t length;
    std::uint64_t punched_at;
    std::uint64_t punched;
  };
  for (const Case& tested :
       {Case{0, 8192, 0, 8192}, Case{1, 4095, 0, 0}, Case{100, 50, 0, 0}, Case{4000, 200, 0, 0},
        Case{4095, 4098, 4096, 4096}, Case{61'440, 4096, 61'440, 4096}, Case{10, 0, 0, 0}}) {
    SCOPED_TRACE(tested.offset);
    Bytes model(65'536, std::byte{9});
    device->write(0, model);
    device->write_zeroes(tested.offset, tested.length, ZeroMode::kPunch);
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(tested.offset), tested.length,
                std::byte{0});
    Bytes back(65'536);
    device->read(0, back);
    EXPECT_EQ(back, model);
    for (std::uint64_t at = 0; at < back.size(); at += 4096) {
      const bool punched = at >= tested.punched_at && at < tested.punched_at + tested.punched;
      EXPECT_EQ(all_zero(ByteView(payload->contents()).subspan(kOffset + at, 4096)), punched) << at;
    }
  }
}

}  // namespace
}  // namespace lukskeep::luks
