#include "luks/luks1_gap.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/convert.h"
#include "luks/crash_test_tools.h"
#include "luks/header_backup.h"
#include "luks/test_volume.h"

namespace lukskeep::luks {
namespace {

using testing::contents;
using testing::reopen;

constexpr LuksmetaType kType = {std::byte{1}, std::byte{2}};

HeaderFile make_volume() {
  CreateOptions options = testing::cheap_options(Version::kLuks1);
  options.key_size_bytes = 32;
  return testing::make_volume(options);
}

void save(const HeaderFile& file, int slot, std::string_view data) {
  Luks1Gap::open(file)->save({.slot = slot, .type = kType, .data = as_byte_view(data)});
}

std::string load(const HeaderFile& file, int slot) {
  const auto gap = Luks1Gap::open(file);
  if (!gap->table().slots.at(static_cast<std::size_t>(slot)).used()) return {};
  return std::string(as_string_view(gap->load(slot)));
}

bool contains(const Bytes& bytes, std::string_view text) {
  return as_string_view(bytes).find(text) != std::string_view::npos;
}

TEST(Luks1GapTest, KeepsRecords) {
  const HeaderFile file = make_volume();
  EXPECT_FALSE(Luks1Gap::open(file)->initialised());
  save(file, 1, "first record");
  save(file, 5, std::string(5000, 'x'));
  const HeaderFile again = reopen(contents(file));
  EXPECT_TRUE(Luks1Gap::open(again)->initialised());
  EXPECT_EQ(load(again, 1), "first record");
  EXPECT_EQ(load(again, 5), std::string(5000, 'x'));
  EXPECT_TRUE(testing::opens(again, testing::kFirstPassphrase));
}

TEST(Luks1GapTest, OverwritesWhatIsReplacedOrWiped) {
  const HeaderFile file = make_volume();
  save(file, 1, "first record");
  save(file, 1, "second record");
  EXPECT_EQ(load(file, 1), "second record");
  EXPECT_FALSE(contains(contents(file), "first record"));
  Luks1Gap::open(file)->wipe(1);
  EXPECT_EQ(load(file, 1), "");
  EXPECT_FALSE(contains(contents(file), "second record"));
}

TEST(Luks1GapTest, MovesARecordOverAnother) {
  const HeaderFile file = make_volume();
  save(file, 1, "the old record");
  save(file, 2, "the new record");
  Luks1Gap::open(file)->move(2, 1, 9);
  EXPECT_EQ(load(file, 1), "the new record");
  EXPECT_EQ(load(file, 2), "");
  EXPECT_EQ(Luks1Gap::open(file)->table().slots[1].reserved, 9U);
  EXPECT_FALSE(contains(contents(file), "the old record"));
}

TEST(Luks1GapTest, RefusesWhatDoesNotFitBeforeItWrites) {
  const HeaderFile file = make_volume();
  save(file, 0, "kept");
  const Bytes before = contents(file);
  const std::uint64_t gap = Luks1Gap::open(file)->gap().size_bytes;
  try {
    save(file, 1, std::string(gap - 8191, 'x'));
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNoSpace);
  }
  EXPECT_EQ(contents(file), before);
  save(file, 1, std::string(gap - 8192, 'x'));
}

TEST(Luks1GapTest, NoticesWhoElseChangedTheTable) {
  const HeaderFile file = make_volume();
  auto mine = Luks1Gap::open(file);
  save(file, 0, "other");
  try {
    mine->save({.slot = 1, .type = kType, .data = as_byte_view("mine")});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kConflict);
  }
  EXPECT_EQ(load(file, 0), "other");
}

TEST(Luks1GapTest, FindsDamagedData) {
  const HeaderFile file = make_volume();
  save(file, 0, "sound");
  const auto gap = Luks1Gap::open(file);
  Bytes bytes = contents(file);
  bytes.at(gap->gap().offset_bytes + 4096) ^= std::byte{1};
  const HeaderFile damaged = reopen(std::move(bytes));
  EXPECT_THROW(static_cast<void>(Luks1Gap::open(damaged)->load(0)), Error);
}

TEST(Luks1GapTest, NoPowerCutLosesARecordOrAnotherOne) {
  const HeaderFile file = make_volume();
  save(file, 0, "bystander");
  save(file, 1, "old");
  save(file, 2, "helper");
  const Bytes start = contents(file);
  struct Row {
    const char* name;
    std::function<void(Luks1Gap&)> change;
    std::vector<std::pair<std::string, std::string>> allowed;  // what slots 1 and 2 hold
  };
  const std::vector<Row> rows = {
      {"save",
       [](Luks1Gap& gap) { gap.save({.slot = 1, .type = kType, .data = as_byte_view("new")}); },
       {{"old", "helper"}, {"new", "helper"}}},
      {"move", [](Luks1Gap& gap) { gap.move(2, 1, 0); }, {{"old", "helper"}, {"helper", ""}}},
      {"mark", [](Luks1Gap& gap) { gap.mark(1, 3); }, {{"old", "helper"}}},
      {"wipe", [](Luks1Gap& gap) { gap.wipe(1); }, {{"old", "helper"}, {"", "helper"}}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const testing::Change change = [&](const std::shared_ptr<Device>& device) {
      std::optional<Luks1Gap> gap = Luks1Gap::open(HeaderFile::open(device));
      row.change(*gap);
    };
    const testing::CrashRun whole = testing::run_undisturbed(start, change);
    EXPECT_GE(whole.operations, 2U);
    testing::cut_power_everywhere(
        start, change, {.operations = whole.operations, .rounds = 8}, [&](const Bytes& medium) {
          const HeaderFile after = reopen(medium);
          const std::pair found{load(after, 1), load(after, 2)};
          EXPECT_NE(std::ranges::find(row.allowed, found), row.allowed.end())
              << found.first << ", " << found.second;
          EXPECT_EQ(load(after, 0), "bystander");
          EXPECT_TRUE(testing::opens(after, testing::kFirstPassphrase));
        });
  }
}

TEST(Luks1GapTest, BackupsHaveTheRecordsAndBringThemBack) {
  const HeaderFile file = make_volume();
  const Bytes plain = backup_header(file);
  save(file, 3, "record");
  const Bytes backup = backup_header(file);
  EXPECT_EQ(backup.size(), plain.size() + 2 * kLuksmetaBlockBytes);
  EXPECT_EQ(load(reopen(backup), 3), "record");
  Luks1Gap::open(file)->wipe(3);
  const auto source = std::make_shared<storage::MemoryDevice>(backup);
  restore_header(plan_restore(source, file.device()), *file.device());
  EXPECT_EQ(load(file, 3), "record");
  // And one without records leaves those that are there.
  const auto old = std::make_shared<storage::MemoryDevice>(plain);
  const RestorePlan plan = plan_restore(old, file.device());
  EXPECT_EQ(plan.notes.size(), 1U);
  restore_header(plan, *file.device());
  EXPECT_EQ(load(file, 3), "record");
}

TEST(Luks1GapTest, ADetachedHeaderTakesItsRecordsAlong) {
  const HeaderFile file = make_volume();
  save(file, 3, "record");
  remove_header(file, backup_header(file));
  EXPECT_FALSE(contains(contents(file), "record"));
}

TEST(Luks1GapTest, ConversionRefusesRecords) {
  const HeaderFile file = make_volume();
  EXPECT_TRUE(conversion_obstacles(file, Version::kLuks2).empty());
  save(file, 3, "record");
  EXPECT_EQ(conversion_obstacles(file, Version::kLuks2).size(), 1U);
  Luks1Gap::open(file)->wipe(3);
  EXPECT_TRUE(conversion_obstacles(file, Version::kLuks2).empty());
}

}  // namespace
}  // namespace lukskeep::luks
