#include "luks/header_file.h"

#include <algorithm>
#include <functional>
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/header_backup.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"
#include "storage/faulty_device.h"

namespace lukskeep::luks {
namespace {

using testing::cheap_keyslot;
using testing::cheap_options;
using testing::kFirstPassphrase;
using testing::kSecondPassphrase;
using testing::make_volume;
using testing::must_unlock;
using testing::opens;

Bytes contents(const HeaderFile& file) {
  Bytes bytes(file.device()->size_bytes());
  file.device()->read(0, bytes);
  return bytes;
}

HeaderFile reopen(Bytes bytes) {
  return HeaderFile::open(std::make_shared<storage::MemoryDevice>(std::move(bytes)));
}

HeaderChange label_change(const HeaderFile& file, std::string label) {
  HeaderChange change{.header = file.header()};
  change.header.label = std::move(label);
  return change;
}

TEST(HeaderFile, SecondaryServesWhenThePrimaryIsGone) {
  for (const std::uint64_t metadata : kLuks2MetadataSizes) {
    CreateOptions options = cheap_options(Version::kLuks2);
    options.metadata_size_bytes = metadata;
    HeaderFile file = make_volume(options);
    file.commit(label_change(file, "kept"));
    Bytes bytes = contents(file);
    std::fill_n(bytes.begin(), 8192, std::byte{0x5a});
    const HeaderFile found = reopen(bytes);
    EXPECT_EQ(found.header().label, "kept");
    EXPECT_EQ(found.report().primary, CopyState::kAbsent);
    EXPECT_EQ(found.report().secondary_offset_bytes, metadata);
    EXPECT_EQ(found.report().problems.size(), 1U);
    EXPECT_TRUE(opens(found, kFirstPassphrase)) << metadata;
  }
}

TEST(HeaderFile, SecondaryServesWhenThePrimaryHasAnUnknownVersion) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  Bytes bytes = contents(file);
  bytes[7] = std::byte{9};
  const HeaderFile found = reopen(bytes);
  EXPECT_EQ(found.report().primary, CopyState::kDamaged);
  EXPECT_TRUE(opens(found, kFirstPassphrase));
}

TEST(HeaderFile, ReadingNeverWritesAndACommitMendsBothCopies) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const std::uint64_t metadata = file.header().metadata_size_bytes;
  for (const std::size_t damaged_at :
       {std::size_t{4097}, static_cast<std::size_t>(metadata) + 4097}) {
    Bytes bytes = contents(file);
    bytes[damaged_at] ^= std::byte{1};
    auto device = std::make_shared<storage::MemoryDevice>(bytes);
    HeaderFile found = HeaderFile::open(device);
    EXPECT_EQ(found.report().problems.size(), 1U);
    EXPECT_TRUE(opens(found, kFirstPassphrase));
    EXPECT_EQ(device->contents(), bytes);
    found.commit(label_change(found, "mended"));
    EXPECT_TRUE(HeaderFile::open(device).report().problems.empty());
  }
}

TEST(HeaderFile, TheHigherSequenceIdWins) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Bytes old = contents(file);
  file.commit(label_change(file, "newer"));
  const auto metadata = static_cast<std::ptrdiff_t>(file.header().metadata_size_bytes);
  Bytes stale_primary = contents(file);
  std::copy_n(old.begin(), metadata, stale_primary.begin());
  const HeaderFile first = reopen(stale_primary);
  EXPECT_EQ(first.header().label, "newer");
  EXPECT_EQ(first.report().primary, CopyState::kStale);
  Bytes stale_secondary = contents(file);
  std::copy_n(old.begin() + metadata, metadata, stale_secondary.begin() + metadata);
  const HeaderFile second = reopen(stale_secondary);
  EXPECT_EQ(second.header().label, "newer");
  EXPECT_EQ(second.report().secondary, CopyState::kStale);
}

TEST(HeaderFile, BothCopiesBadIsDamageThatNamesBoth) {
  const HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  Bytes bytes = contents(file);
  bytes[4100] ^= std::byte{1};
  bytes[file.header().metadata_size_bytes + 6] = std::byte{9};
  try {
    reopen(bytes);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kDamaged);
    EXPECT_NE(error.message().find("primary LUKS2 header"), std::string::npos);
    EXPECT_NE(error.message().find("secondary LUKS2 header"), std::string::npos);
  }
}

TEST(HeaderFile, ForeignDataIsNotLuks) {
  for (const std::size_t size : {0U, 1U, 7U, 511U, 592U, 5000U, 100'000U}) {
    try {
      reopen(Bytes(size, std::byte{0x42}));
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kNotLuks) << size;
    }
  }
}

TEST(HeaderFile, AConcurrentChangeIsRefused) {
  for (const Version version : {Version::kLuks1, Version::kLuks2}) {
    HeaderFile mine = make_volume(cheap_options(version));
    HeaderFile theirs = HeaderFile::open(mine.device());
    add_keyslot(theirs, must_unlock(theirs, kFirstPassphrase), as_byte_view(kSecondPassphrase),
                cheap_keyslot());
    try {
      add_keyslot(mine, must_unlock(mine, kFirstPassphrase), as_byte_view("x"), cheap_keyslot(2));
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kConflict);
    }
    EXPECT_TRUE(opens(HeaderFile::open(mine.device()), kSecondPassphrase));
  }
}

TEST(HeaderFile, ReadOnlyDeviceIsRefusedBeforeAnyWrite) {
  const Bytes bytes = contents(make_volume(cheap_options(Version::kLuks2)));
  HeaderFile file = HeaderFile::open(std::make_shared<storage::MemoryDevice>(bytes, false));
  try {
    file.commit(label_change(file, "x"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kReadOnly);
  }
}

TEST(HeaderFile, JsonThatDoesNotFitIsRefusedBeforeAnyWrite) {
  HeaderFile file = make_volume(cheap_options(Version::kLuks2));
  const Bytes before = contents(file);
  HeaderChange change{.header = file.header()};
  change.header.tokens[0] = parse_token(
      R"({"type":"big","keyslots":[],"x":")" + std::string(13'000, 'x') + R"("})", "token");
  EXPECT_THROW(file.commit(std::move(change)), Error);
  EXPECT_EQ(contents(file), before);
}

// Power is cut at every single write and flush of an operation, with the medium keeping any part of
// what was not flushed.
struct Operation {
  std::string name;
  std::function<void(HeaderFile&, const Unlocked&)> run;
  // One of these opens the volume at every point …
  std::vector<std::string_view> survivors;
  // … and each of these, which the operation has nothing to do with.
  std::vector<std::string_view> bystanders;
};

// Puts back the header as it was before the second keyslot was removed.
void remove_and_restore(HeaderFile& file) {
  const auto backup = std::make_shared<storage::MemoryDevice>(backup_header(file), false);
  remove_keyslot(file, 1, false);
  restore_header(plan_restore(backup, file.device()), *file.device());
}

void set_label(HeaderFile& file) {
  HeaderChange change{.header = file.header()};
  if (change.header.version == Version::kLuks2) {
    change.header.label = "label";
    change.header.tokens[0] = parse_token(R"({"type":"t","keyslots":["0"]})", "token");
  }
  file.commit(std::move(change));
}

std::vector<Operation> operations() {
  return {
      {"add",
       [](HeaderFile& file, const Unlocked& key) {
         add_keyslot(file, key, as_byte_view("third"), cheap_keyslot());
       },
       {kFirstPassphrase},
       {kSecondPassphrase}},
      {"remove",
       [](HeaderFile& file, const Unlocked&) { remove_keyslot(file, 1, false); },
       {kFirstPassphrase},
       {}},
      {"label and token",
       [](HeaderFile& file, const Unlocked&) { set_label(file); },
       {kFirstPassphrase},
       {kSecondPassphrase}},
      {"restore",
       [](HeaderFile& file, const Unlocked&) { remove_and_restore(file); },
       {kFirstPassphrase},
       {}},
      {"change",
       [](HeaderFile& file, const Unlocked& key) {
         change_keyslot(file, key, as_byte_view("third"), cheap_keyslot());
       },
       {kFirstPassphrase, "third"},
       {kSecondPassphrase}},
      {"change the only one",
       [](HeaderFile& file, const Unlocked& key) {
         remove_keyslot(file, 1, false);
         change_keyslot(file, key, as_byte_view("third"), cheap_keyslot());
       },
       {kFirstPassphrase, "third"},
       {}},
  };
}

bool any_opens(const HeaderFile& file, const std::vector<std::string_view>& passphrases) {
  return std::any_of(passphrases.begin(), passphrases.end(),
                     [&](std::string_view passphrase) { return opens(file, passphrase); });
}

struct Crash {
  std::uint64_t at = 0;
  std::uint64_t seed = 0;
};

// Runs the operation until the crash; true if it came.
bool survives_crash(const Bytes& start, const Operation& operation, const Crash& crash) {
  auto device = std::make_shared<storage::FaultyDevice>(
      start, storage::FaultPlan{.seed = crash.seed,
                                .crash_at_operation = crash.at,
                                .torn_writes = true,
                                .reorder_unflushed = true});
  HeaderFile file = HeaderFile::open(device);
  const Unlocked key = must_unlock(file, kFirstPassphrase);
  try {
    operation.run(file, key);
  } catch (const Error&) {
    EXPECT_TRUE(device->crashed());
  }
  const bool crashed = device->crashed();
  try {
    const HeaderFile after = reopen(device->after_crash());
    EXPECT_TRUE(any_opens(after, operation.survivors))
        << operation.name << " crash at " << crash.at << " seed " << crash.seed;
    for (const std::string_view passphrase : operation.bystanders) {
      EXPECT_TRUE(opens(after, passphrase))
          << operation.name << " crash at " << crash.at << " seed " << crash.seed;
    }
  } catch (const Error& error) {
    ADD_FAILURE() << operation.name << " crash at " << crash.at << " seed " << crash.seed << ": "
                  << error.message();
  }
  return crashed;
}

// Version and number of the operation.
class Crashes : public ::testing::TestWithParam<std::tuple<Version, std::size_t>> {};

TEST_P(Crashes, PassphrasesOpenAfterAPowerCutAtEveryWrite) {
  const auto& [version, number] = GetParam();
  const Operation operation = operations().at(number);
  HeaderFile file = make_volume(cheap_options(version));
  add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view(kSecondPassphrase),
              cheap_keyslot(1));
  const Bytes start = contents(file);
  std::size_t points = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    for (std::uint64_t at = 0; survives_crash(start, operation, {at, seed}); ++at) ++points;
  }
  RecordProperty("crash_points", static_cast<int>(points));
  // A commit is at least a write and a flush.
  EXPECT_GE(points, 2U * 20);
}

std::string crash_name(const ::testing::TestParamInfo<std::tuple<Version, std::size_t>>& tested) {
  const auto& [version, number] = tested.param;
  std::string name = operations().at(number).name;
  std::ranges::replace(name, ' ', '_');
  return (version == Version::kLuks1 ? "Luks1_" : "Luks2_") + name;
}

INSTANTIATE_TEST_SUITE_P(All, Crashes,
                         ::testing::Combine(::testing::Values(Version::kLuks1, Version::kLuks2),
                                            ::testing::Range(std::size_t{0}, operations().size())),
                         crash_name);

}  // namespace
}  // namespace lukskeep::luks
