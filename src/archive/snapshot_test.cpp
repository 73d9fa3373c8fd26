#include "archive/snapshot.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "archive/manifest_text.h"
#include "base/json.h"
#include "luks/header_backup.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"

namespace lukskeep::archive {
namespace {

using luks::HeaderFile;
using luks::Version;
using luks::testing::cheap_keyslot;
using luks::testing::cheap_options;
using luks::testing::kFirstPassphrase;
using luks::testing::make_volume;
using luks::testing::must_unlock;

struct Keys {
  AgeIdentity identity = make_age_identity();
  AgeRecipient recipient = recipient_of(identity);
};

Bytes snapshot_of(const HeaderFile& file, const Keys& keys) {
  return seal_snapshot(capture(file, "disk"), {&keys.recipient, 1});
}

class Snapshots : public ::testing::TestWithParam<Version> {};
INSTANTIATE_TEST_SUITE_P(Both, Snapshots, ::testing::Values(Version::kLuks1, Version::kLuks2),
                         luks::testing::version_name);

TEST_P(Snapshots, HoldTheExactBytesAndSayWhatTheyAre) {
  const HeaderFile file = make_volume(cheap_options(GetParam()));
  const Keys keys;
  const Bytes bytes = snapshot_of(file, keys);
  const Manifest manifest = read_snapshot(bytes, "x").manifest;
  EXPECT_EQ(manifest.uuid, file.header().uuid);
  EXPECT_EQ(manifest.version, GetParam() == Version::kLuks1 ? 1U : 2U);
  EXPECT_EQ(manifest.cipher, "aes-xts-plain64");
  EXPECT_EQ(manifest.keyslots.size(), 1U);
  EXPECT_EQ(manifest.device.path.substr(manifest.device.path.size() - 5), "/disk");
  EXPECT_EQ(decode_manifest(encode_manifest(manifest), "x"), manifest);
  EXPECT_EQ(open_snapshot(bytes, {&keys.identity, 1}, "x"), luks::backup_header(file));
  const Keys stranger;
  EXPECT_FALSE(open_snapshot(bytes, {&stranger.identity, 1}, "x"));
}

TEST_P(Snapshots, UnusedRoomDoesNotCountAsAChange) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const std::string before = content_id(file);
  const std::uint64_t end = luks::header_end_bytes(file.header());
  file.device()->write(end - 8, Bytes(8, std::byte{0x11}));  // of the last keyslot area, unused
  EXPECT_EQ(content_id(HeaderFile::open(file.device())), before);
  luks::add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view("x"), cheap_keyslot());
  EXPECT_NE(content_id(file), before);
}

// A keyslot that only moves to another number or place stays the same key.
TEST_P(Snapshots, AKeyIsKnownByWhatItIs) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const std::string first = capture(file, "d").manifest.keyslots.at(0).fingerprint;
  luks::add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view("x"), cheap_keyslot());
  const Manifest two = capture(file, "d").manifest;
  EXPECT_EQ(two.keyslots.at(0).fingerprint, first);
  EXPECT_NE(two.keyslots.at(1).fingerprint, first);
}

TEST_P(Snapshots, EveryChangeOfTheManifestIsNoticed) {
  const Keys keys;
  const Bytes bytes = snapshot_of(make_volume(cheap_options(GetParam())), keys);
  const std::size_t end = read_snapshot(bytes, "x").sealed_offset;
  for (std::size_t at = 0; at < end; ++at) {
    Bytes changed = bytes;
    changed[at] ^= std::byte{1};
    EXPECT_THROW(
        {
          const auto opened = open_snapshot(changed, {&keys.identity, 1}, "x");
          ADD_FAILURE() << "byte " << at << (opened ? " opened" : " found no key");
        },
        Error)
        << at;
  }
}

// Two states of one volume; which of them is read changes in the middle of the reading, also in the
// middle of one read.
class Restless final : public Device {
 public:
  // Each of `changes` is the number of a read.
  Restless(Bytes first, Bytes second, std::function<bool(int)> changes)
      : states_{std::move(first), std::move(second)}, changes_(std::move(changes)) {}

  std::string name() const override { return "restless"; }
  std::uint64_t size_bytes() const override { return states_[0].size(); }
  bool writable() const override { return false; }
  std::uint32_t block_size_bytes() const override { return 512; }
  void read(std::uint64_t offset_bytes, std::span<std::byte> out) const override {
    const bool change = changes_(reads_++);
    const std::size_t half = change ? out.size() / 2 : out.size();
    const auto at = [&](std::size_t more) {
      return states_[now_].begin() + static_cast<std::ptrdiff_t>(offset_bytes + more);
    };
    std::copy_n(at(0), half, out.begin());
    if (change) now_ = 1 - now_;
    std::copy_n(at(half), out.size() - half, out.begin() + static_cast<std::ptrdiff_t>(half));
  }
  void write(std::uint64_t, std::span<const std::byte>) override {}
  void flush() override {}

 private:
  std::array<Bytes, 2> states_;
  std::function<bool(int)> changes_;
  mutable int reads_ = 0;
  mutable std::size_t now_ = 0;
};

Bytes bytes_of(const Device& device) {
  Bytes bytes(device.size_bytes());
  device.read(0, bytes);
  return bytes;
}

TEST_P(Snapshots, AreOfOneStateWhateverOthersDoMeanwhile) {
  HeaderFile file = make_volume(cheap_options(GetParam()));
  const Bytes old = bytes_of(*file.device());
  const std::string old_content = content_id(file);
  luks::add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view("x"), cheap_keyslot());
  const Bytes fresh = bytes_of(*file.device());
  const std::string fresh_content = content_id(file);
  int taken = 0;
  const auto check = [&](const std::function<bool(int)>& changes) {
    try {
      const HeaderFile seen = HeaderFile::open(std::make_shared<Restless>(old, fresh, changes));
      const Capture captured = capture(seen, "disk");
      check_description(captured.manifest, captured.header, "the copy");
      EXPECT_TRUE(captured.manifest.content_id == old_content ||
                  captured.manifest.content_id == fresh_content);
      ++taken;
    } catch (const Error& error) {
      // A header that never stands still may not be readable at all.
      EXPECT_TRUE(error.code() == Code::kBusy || error.code() == Code::kDamaged) << error.message();
    }
  };
  for (int at = 0; at < 40; ++at) {
    check([at](int read) { return read == at; });
  }
  EXPECT_GE(taken, 38);
  for (int every = 1; every < 12; ++every) {
    check([every](int read) { return read % every == 0; });
  }
}

// Anything that a header may say gives a manifest that can be read again.
TEST(SnapshotManifest, OfTextsWithoutBounds) {
  luks::CreateOptions options = cheap_options(Version::kLuks2);
  options.metadata_size_bytes = std::uint64_t{1} << 20;
  HeaderFile file = make_volume(options);
  luks::HeaderChange change{.header = file.header()};
  for (int id = 0; id < 32; ++id) {
    Json token = {{"type", std::string(5000, '\x7f')}, {"keyslots", Json::array()}};
    change.header.tokens[id] = luks::parse_token(token.dump(), "token");
  }
  change.header.label = "\xff\xfe label";
  change.header.segments.begin()->second.encryption = std::string(5000, 'x');
  file.commit(std::move(change));
  const Manifest manifest = capture(file, "/dev/" + std::string(3000, '\xff')).manifest;
  EXPECT_EQ(manifest.tokens.size(), 32U);
  EXPECT_EQ(decode_manifest(encode_manifest(manifest), "x"), manifest);
}

TEST(ManifestText, IsTextAndGoesBack) {
  const std::vector<std::pair<std::string, std::string>> rows = {
      {"", ""},
      {"/dev/sda \\xff", "/dev/sda \\xff"},
      {"\xc3\xbc", "\xc3\xbc"},
      {"a\xff",
       "a\xef\xbf\xbd"
       "ff"},
      {"\xc3",
       "\xef\xbf\xbd"
       "c3"},
      {"\xef\xbf\xbd"
       "ff",
       "\xef\xbf\xbd"
       "ef\xef\xbf\xbd"
       "bf\xef\xbf\xbd"
       "bdff"},
  };
  for (const auto& [bytes, text] : rows) {
    EXPECT_EQ(manifest_text(bytes), text);
    EXPECT_EQ(manifest_bytes(text), bytes);
    EXPECT_TRUE(is_utf8(text));
  }
  EXPECT_EQ(manifest_text("abc", 2), "ab");
  EXPECT_EQ(manifest_bytes("\xef\xbf\xbd"), "\xef\xbf\xbd");
  EXPECT_EQ(manifest_bytes("\xef\xbf\xbdzz\xff"), "\xef\xbf\xbdzz\xff");
}

TEST(SnapshotManifest, RefusesWhatIsOutOfBounds) {
  const std::string good =
      encode_manifest(capture(make_volume(cheap_options(Version::kLuks2)), "disk").manifest);
  using Change = std::function<void(Json&)>;
  const std::vector<std::pair<const char*, Change>> rows = {
      {"'uuid' is missing", [](Json& m) { m.erase("uuid"); }},
      {"'uuid' is no string", [](Json& m) { m["uuid"] = 1; }},
      {"'uuid' is too long", [](Json& m) { m["uuid"] = std::string(5000, 'x'); }},
      {"'version' is neither", [](Json& m) { m["version"] = 3; }},
      {"'sequence_id' is no number", [](Json& m) { m["sequence_id"] = -1; }},
      {"'sequence_id' is no number", [](Json& m) { m["sequence_id"] = 1.5; }},
      {"'header_bytes' is more", [](Json& m) { m["header_bytes"] = std::uint64_t{1} << 40; }},
      {"'sector_bytes' is no number", [](Json& m) { m["sector_bytes"] = std::uint64_t{1} << 32; }},
      {"'sha256' is no SHA-256", [](Json& m) { m["sha256"] = "00"; }},
      {"'content_id' is no SHA-256", [](Json& m) { m["content_id"] = "xyz"; }},
      {"'keyslots' is no list", [](Json& m) { m["keyslots"] = Json::object(); }},
      {"'keyslots' is no list", [](Json& m) { m["keyslots"] = Json(std::vector<int>(65)); }},
      {"is no object", [](Json& m) { m["keyslots"] = {1}; }},
      {"'number' is no number", [](Json& m) { m["keyslots"][0]["number"] = "0"; }},
      {"'fingerprint' is no SHA-256", [](Json& m) { m["keyslots"][0]["fingerprint"] = ""; }},
      {"'problems' is no list of texts", [](Json& m) { m["problems"] = {1}; }},
      {"'device' is missing", [](Json& m) { m.erase("device"); }},
      {"'path' is missing", [](Json& m) { m["device"] = Json::object(); }},
  };
  for (const auto& [message, change] : rows) {
    Json json = Json::parse(good);
    change(json);
    try {
      decode_manifest(json.dump(), "test");
      ADD_FAILURE() << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kDamaged);
      EXPECT_NE(error.message().find(message), std::string::npos) << error.message();
    }
  }
}

TEST(SnapshotFiles, WhatIsNone) {
  const auto code = [](std::string_view text) {
    try {
      read_snapshot(as_byte_view(text), "x");
    } catch (const Error& error) {
      return error.code();
    }
    return Code::kInternal;
  };
  EXPECT_EQ(code(""), Code::kDamaged);
  EXPECT_EQ(code("LUKS"), Code::kDamaged);
  EXPECT_EQ(code("lukskeep-snapshot 2\n{}\n"), Code::kUnsupported);
  EXPECT_EQ(code("lukskeep-snapshot 1\n{}"), Code::kDamaged);
  EXPECT_EQ(code("lukskeep-snapshot 1\n{}\n"), Code::kDamaged);
}

}  // namespace
}  // namespace lukskeep::archive
