#include "luks/convert.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/luks2_codec.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using testing::cheap_keyslot;
using testing::cheap_options;
using testing::contents;
using testing::kFirstPassphrase;
using testing::kSecondPassphrase;
using testing::make_volume;
using testing::must_unlock;
using testing::opens;
using testing::reopen;

// Keyslots 0 and 1, of both passphrases.
HeaderFile make_double(const CreateOptions& options) {
  HeaderFile file = make_volume(options);
  add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view(kSecondPassphrase),
              cheap_keyslot(1));
  return file;
}

CreateOptions roomy_luks2() {
  CreateOptions options = cheap_options(Version::kLuks2);
  options.keyslots_size_bytes = 12 * keyslot_area_bytes(64);
  return options;
}

bool mentions(const std::vector<std::string>& lines, std::string_view text) {
  return std::ranges::any_of(
      lines, [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

void expect_both_open(const HeaderFile& file) {
  EXPECT_TRUE(file.report().problems.empty());
  EXPECT_TRUE(opens(file, kFirstPassphrase, 0));
  EXPECT_TRUE(opens(file, kSecondPassphrase, 1));
}

TEST(Convert, ThereAndBackKeepsKeysAndPayload) {
  HeaderFile file = make_double(cheap_options(Version::kLuks1));
  const Header before = file.header();
  const std::uint64_t payload = header_room_bytes(file);
  const Bytes data(4096, std::byte{0x61});
  file.device()->write(payload, data);

  convert_header(file, Version::kLuks2);
  EXPECT_EQ(file.header().version, Version::kLuks2);
  EXPECT_EQ(file.header().uuid, before.uuid);
  EXPECT_EQ(file.header().segments, before.segments);
  expect_both_open(HeaderFile::open(file.device()));

  convert_header(file, Version::kLuks1);
  const HeaderFile back = HeaderFile::open(file.device());
  EXPECT_EQ(back.header().version, Version::kLuks1);
  EXPECT_EQ(back.header().digests, before.digests);
  expect_both_open(back);
  Bytes now(data.size());
  file.device()->read(payload, now);
  EXPECT_EQ(now, data);
}

TEST(Convert, NothingOfTheOldHeaderIsLeft) {
  HeaderFile file = make_double(roomy_luks2());
  const Bytes before = contents(file);
  const std::uint64_t second = file.header().metadata_size_bytes;
  convert_header(file, Version::kLuks1);
  const Bytes after = contents(file);
  EXPECT_FALSE(std::equal(after.begin() + static_cast<std::ptrdiff_t>(second),
                          after.begin() + static_cast<std::ptrdiff_t>(second) + 512,
                          before.begin() + static_cast<std::ptrdiff_t>(second)));
  // A damaged LUKS1 header does not bring it back.
  Bytes damaged = after;
  std::fill_n(damaged.begin() + 208, 384, std::byte{0});
  EXPECT_THROW(reopen(damaged), Error);
}

// In LUKS1 the first keyslot stands where the second copy of LUKS2 goes.
TEST(Convert, MaterialThatIsInTheWayIsMovedAndWiped) {
  HeaderFile file = make_double(cheap_options(Version::kLuks1));
  Bytes old(file.header().keyslots.at(0).area.size_bytes);
  file.device()->read(file.header().keyslots.at(0).area.offset_bytes, old);
  convert_header(file, Version::kLuks2);
  EXPECT_GE(file.header().keyslots.at(0).area.offset_bytes, 0x8000U);
  const Bytes after = contents(file);
  EXPECT_FALSE(std::ranges::equal(ByteView(old).last(512),
                                  ByteView(after).subspan(4096 + old.size() - 512, 512)));
}

TEST(Convert, AllObstaclesAreNamedAndNothingIsWritten) {
  CreateOptions options = roomy_luks2();
  options.label = "l";
  options.sector_size_bytes = 4096;
  HeaderFile file = make_volume(options);
  NewKeyslot argon = cheap_keyslot(9);
  argon.cost = {
      .type = crypto::KdfType::kArgon2id, .iterations = 4, .memory_kib = 32, .parallel = 1};
  add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view("x"), argon);
  HeaderChange change{.header = file.header()};
  change.header.tokens[0] = parse_token(R"({"type":"t","keyslots":[]})", "token");
  file.commit(std::move(change));
  const Bytes before = contents(file);
  const auto obstacles = conversion_obstacles(file, Version::kLuks1);
  for (const char* text :
       {"no label", "no tokens", "another size than 512", "0 to 7", "argon2id"}) {
    EXPECT_TRUE(mentions(obstacles, text)) << text;
  }
  try {
    convert_header(file, Version::kLuks1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnsupported);
    for (const std::string& obstacle : obstacles) {
      EXPECT_NE(error.message().find(obstacle), std::string::npos) << obstacle;
    }
  }
  EXPECT_EQ(contents(file), before);
  EXPECT_TRUE(mentions(conversion_obstacles(file, Version::kLuks2), "LUKS2 already"));
}

TEST(Convert, EightKeyslotsLeaveNoRoom) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks1));
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  for (int id = 1; id < kLuks1KeyslotCount; ++id) {
    add_keyslot(file, key, as_byte_view(kSecondPassphrase), cheap_keyslot(id));
  }
  EXPECT_TRUE(mentions(conversion_obstacles(file, Version::kLuks2), "no other place is free"));
  remove_keyslot(file, 7, false);
  EXPECT_TRUE(mentions(conversion_obstacles(file, Version::kLuks2), "keyslots 0 to 5"));
  remove_keyslot(file, 5, false);
  convert_header(file, Version::kLuks2);
  EXPECT_EQ(file.header().keyslots.size(), 6U);
  expect_both_open(HeaderFile::open(file.device()));
}

TEST(Resize, MetadataGrowsAndShrinksAndKeyslotsMove) {
  HeaderFile file = make_double(roomy_luks2());
  for (const std::uint64_t size : {0x10000U, 0x4000U, 0x8000U, 0x40000U, 0x20000U, 0x4000U}) {
    resize_header(file, {.metadata_size_bytes = size, .keyslots_size_bytes = {}});
    const HeaderFile now = HeaderFile::open(file.device());
    EXPECT_EQ(now.header().metadata_size_bytes, size);
    EXPECT_EQ(header_end_bytes(now.header()), header_room_bytes(now));
    expect_both_open(now);
    // The second copy is the new one.
    Bytes bytes = contents(now);
    std::fill_n(bytes.begin(), 4096, std::byte{0});
    EXPECT_EQ(reopen(bytes).header().metadata_size_bytes, size);
  }
}

TEST(Resize, TheKeyslotsAreaShrinksToWhatIsUsed) {
  HeaderFile file = make_double(roomy_luks2());
  remove_keyslot(file, 0, false);
  const std::uint64_t one = keyslot_area_bytes(64);
  resize_header(file, {.metadata_size_bytes = {}, .keyslots_size_bytes = one});
  EXPECT_EQ(file.header().config.keyslots_size_bytes, one);
  EXPECT_TRUE(opens(HeaderFile::open(file.device()), kSecondPassphrase));
}

TEST(Resize, ObstaclesNameTheObject) {
  HeaderFile file = make_double(roomy_luks2());
  const auto obstacles = [&](const HeaderGeometry& geometry) {
    return resize_obstacles(file, geometry);
  };
  EXPECT_TRUE(mentions(obstacles({.metadata_size_bytes = 0x5000}), "none of the nine"));
  EXPECT_TRUE(mentions(obstacles({.keyslots_size_bytes = 5000}), "no multiple"));
  EXPECT_TRUE(mentions(obstacles({.keyslots_size_bytes = 64U << 20}), "do not fit"));
  EXPECT_TRUE(mentions(obstacles({.metadata_size_bytes = 4U << 20, .keyslots_size_bytes = 4096}),
                       "do not fit"));
  EXPECT_TRUE(mentions(obstacles({.keyslots_size_bytes = 8192}), "no room for keyslot 0"));
  EXPECT_TRUE(mentions(resize_obstacles(make_volume(cheap_options(Version::kLuks1)), {}), "LUKS1"));
}

}  // namespace
}  // namespace lukskeep::luks
