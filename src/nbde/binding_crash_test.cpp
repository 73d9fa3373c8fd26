// Power cuts at every write and flush of bind, unbind and rebind, in both versions.
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "luks/crash_test_tools.h"
#include "luks/luks1_gap.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"
#include "nbde/binding.h"
#include "nbde/binding_change.h"
#include "nbde/binding_marks.h"
#include "nbde/binding_test_tools.h"

namespace lukskeep::nbde {
namespace {

using luks::HeaderFile;
using luks::Version;
using luks::testing::Change;
using luks::testing::CrashRun;
using luks::testing::kFirstPassphrase;
using luks::testing::must_unlock;
using testing::open_null;
using testing::seal_null;

class BindingCrashTest : public ::testing::TestWithParam<Version> {
 protected:
  // Small keys: what a keyslot costs here is its material.
  static Bytes start(int bindings) {
    constexpr std::uint32_t kKeyBytes = 32;
    luks::CreateOptions options = luks::testing::cheap_options(GetParam());
    options.key_size_bytes = kKeyBytes;
    if (GetParam() == Version::kLuks2) {
      options.keyslots_size_bytes = 5 * luks::keyslot_area_bytes(kKeyBytes);
    }
    HeaderFile file = luks::testing::make_volume(options);
    for (int i = 0; i < bindings; ++i) bind(file);
    return luks::testing::contents(file);
  }

  static void bind(HeaderFile& file) {
    const luks::Unlocked key = must_unlock(file, kFirstPassphrase);
    add_binding(file, key, seal_null, {});
  }

  static void rebind_one(HeaderFile& file, int keyslot) {
    const luks::Unlocked key = must_unlock(file, kFirstPassphrase);
    rebind(file, key, keyslot, seal_null, open_null, {});
  }

  // How many bindings open the volume by themselves, with the keyslot that they name.
  static int count_opening(const HeaderFile& file) {
    const std::vector<Binding> bindings = list_bindings(file);
    return static_cast<int>(std::ranges::count_if(bindings, [&](const Binding& binding) {
      if (binding.orphan || !binding.jwe) return false;
      const SecretBytes passphrase = open_null(*binding.jwe);
      return luks::unlock(file, passphrase.span(), {.keyslot = binding.keyslot}).has_value();
    }));
  }

  static void cut(const Bytes& start, const Change& change,
                  const std::function<void(HeaderFile&)>& judge) {
    const CrashRun whole = luks::testing::run_undisturbed(start, change);
    const auto points = luks::testing::cut_power_everywhere(
        start, change, {.operations = whole.operations, .rounds = 4}, [&](const Bytes& medium) {
          HeaderFile file = luks::testing::reopen(medium);
          EXPECT_TRUE(luks::testing::opens(file, kFirstPassphrase));
          judge(file);
        });
    EXPECT_GT(points, 8U);
  }

  static Change on_file(std::function<void(HeaderFile&)> change) {
    return [change = std::move(change)](const std::shared_ptr<Device>& device) {
      HeaderFile file = HeaderFile::open(device);
      change(file);
    };
  }
};

TEST_P(BindingCrashTest, BindKeepsTheOthersAndCanBeDoneAgain) {
  cut(start(1), on_file(bind), [](HeaderFile& file) {
    EXPECT_GE(count_opening(file), 1);
    const int before = count_opening(file);
    bind(file);
    EXPECT_EQ(count_opening(file), before + 1);
    const std::vector<Binding> bindings = list_bindings(file);
    EXPECT_TRUE(std::ranges::none_of(bindings, &Binding::orphan));
  });
}

TEST_P(BindingCrashTest, UnbindKeepsTheOthersAndCanBeDoneAgain) {
  cut(start(2), on_file([](HeaderFile& file) { remove_binding(file, 1, false); }),
      [](HeaderFile& file) {
        EXPECT_GE(count_opening(file), 1);
        const std::vector<Binding> bindings = list_bindings(file);
        if (bindings.size() == 2) remove_binding(file, 1, false);
        EXPECT_EQ(list_bindings(file).size(), 1U);
        EXPECT_EQ(file.header().keyslots.size(), 2U);
        EXPECT_EQ(count_opening(file), 1);
      });
}

TEST_P(BindingCrashTest, RebindKeepsAWayToOpenAndGoesOnWhereItWasCut) {
  cut(start(1), on_file([](HeaderFile& file) { rebind_one(file, 1); }), [](HeaderFile& file) {
    EXPECT_GE(count_opening(file), 1);
    rebind_one(file, 1);
    const std::vector<Binding> bindings = list_bindings(file);
    ASSERT_EQ(bindings.size(), 1U);
    EXPECT_EQ(bindings[0].keyslot, 1);
    EXPECT_FALSE(bindings[0].replaces);
    EXPECT_FALSE(bindings[0].leftover);
    EXPECT_EQ(count_opening(file), 1);
    EXPECT_EQ(file.header().keyslots.size(), 2U);
  });
}

// Somebody else's key in keyslot 1, beside what says that it is bound: so does cryptsetup leave it
// where it knows nothing of records and tokens.
void take_keyslot_one(HeaderFile& file, std::string_view passphrase) {
  const luks::Unlocked key = must_unlock(file, kFirstPassphrase);
  if (file.header().keyslots.contains(1)) luks::remove_keyslot(file, 1, false);
  luks::add_keyslot(file, key, as_byte_view(passphrase), luks::testing::cheap_keyslot(1));
  luks::HeaderChange change{.header = file.header()};
  for (auto& [id, token] : change.header.tokens) {
    if (token.keyslots.empty()) luks::set_token_keyslots(token, {1});
  }
  file.commit(std::move(change));
}

// Whoever takes the keyslot, the one that the cut has freed or another key's, keeps it.
TEST_P(BindingCrashTest, ACutRebindTakesNoKeyAwayThatCameAfterIt) {
  const Bytes first = start(1);
  const Change change = on_file([](HeaderFile& file) { rebind_one(file, 1); });
  const CrashRun whole = luks::testing::run_undisturbed(first, change);
  int added = 0;
  for (std::uint64_t at = 0; at < whole.operations; ++at) {
    HeaderFile file = luks::testing::reopen(luks::testing::run_until_cut(first, change, at, at));
    const std::vector<Binding> bindings = list_bindings(file);
    const auto is_cut = [](const Binding& one) { return one.replaces == 1 && !one.orphan; };
    if (std::ranges::none_of(bindings, is_cut)) continue;
    constexpr std::string_view kOther = "of somebody else";
    take_keyslot_one(file, kOther);
    ++added;
    try {
      rebind_one(file, 1);
      ADD_FAILURE() << "at " << at;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kConflict);
    }
    EXPECT_TRUE(luks::testing::opens(file, kOther));
  }
  EXPECT_GT(added, 0);
}

// So does whoever takes the number of the keyslot that was to come: the record is there before it,
// and says that the keyslot of that number may go.
TEST_P(BindingCrashTest, ACutRebindTakesNoKeyAwayWhereItsOwnWasToBe) {
  const Bytes first = start(1);
  const Change change = on_file([](HeaderFile& file) { rebind_one(file, 1); });
  const CrashRun whole = luks::testing::run_undisturbed(first, change);
  const auto unbind = [](HeaderFile& file, int keyslot) { remove_binding(file, keyslot, false); };
  const std::vector<std::function<void(HeaderFile&, int)>> next = {
      [](HeaderFile& file, int) { rebind_one(file, 1); }, unbind,
      [](HeaderFile& file, int) { remove_orphan_bindings(file); }};
  int added = 0;
  for (std::uint64_t at = 0; at < whole.operations * next.size(); ++at) {
    const std::uint64_t point = at / next.size();
    HeaderFile file =
        luks::testing::reopen(luks::testing::run_until_cut(first, change, point, point));
    const std::vector<Binding> bindings = list_bindings(file);
    const auto helper = std::ranges::find(bindings, std::optional<int>(1), &Binding::replaces);
    if (helper == bindings.end() || !file.header().keyslots.contains(1)) continue;
    constexpr std::string_view kOther = "of somebody else";
    const luks::Unlocked key = must_unlock(file, kFirstPassphrase);
    const auto gap = luks::Luks1Gap::open(file);
    const auto slot = static_cast<std::size_t>(helper->keyslot);
    do {  // salts are random, and the print is one byte
      if (file.header().keyslots.contains(helper->keyslot)) {
        luks::remove_keyslot(file, helper->keyslot, false);
      }
      luks::add_keyslot(file, key, as_byte_view(kOther),
                        luks::testing::cheap_keyslot(helper->keyslot));
    } while (gap && short_print(file.header().keyslots.at(helper->keyslot)) ==
                        marked_prints(gap->table().slots.at(slot).reserved).own);
    ++added;
    try {
      next.at(at % next.size())(file, helper->keyslot);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kNotFound) << error.message();  // LUKS2: no token names it
    }
    EXPECT_TRUE(luks::testing::opens(file, kOther)) << "at " << at;
  }
  EXPECT_GT(added, 0);
}

// Whatever is unbound then, something opens: none of the two keyslots is taken for another way in.
TEST_P(BindingCrashTest, ACutRebindIsNotUnboundByHalf) {
  const Bytes first = start(1);
  const Change change = on_file([](HeaderFile& file) { rebind_one(file, 1); });
  const CrashRun whole = luks::testing::run_undisturbed(first, change);
  for (std::uint64_t at = 0; at < whole.operations; ++at) {
    HeaderFile file = luks::testing::reopen(luks::testing::run_until_cut(first, change, at, at));
    luks::remove_keyslot(file, 0, false);
    for (const Binding& binding : list_bindings(file)) {
      try {
        remove_binding(file, binding.keyslot, false);
      } catch (const Error& error) {
        EXPECT_TRUE(error.code() == Code::kConflict || error.code() == Code::kLastKeyslot)
            << error.message();
      }
      EXPECT_GE(count_opening(file), 1) << "at " << at;
    }
  }
}

// Whoever cannot complete it, because its servers are gone, is told of both keyslots.
TEST_P(BindingCrashTest, ACutRebindNamesTheWayOut) {
  if (GetParam() == Version::kLuks2) return;  // one commit: the old one stays until it is done
  const Bytes first = start(1);
  const Change change = on_file([](HeaderFile& file) { rebind_one(file, 1); });
  const CrashRun whole = luks::testing::run_undisturbed(first, change);
  const auto gone = [](const Jwe&) -> SecretBytes { throw Error(Code::kRemote, "it is down"); };
  int told = 0;
  for (std::uint64_t at = 0; at < whole.operations; ++at) {
    HeaderFile file = luks::testing::reopen(luks::testing::run_until_cut(first, change, at, at));
    const std::vector<Binding> bindings = list_bindings(file);
    // The old record has gone, and its keyslot has not.
    if (bindings.size() != 1 || !bindings[0].replaces || !file.header().keyslots.contains(1)) {
      continue;
    }
    ++told;
    const luks::Unlocked key = must_unlock(file, kFirstPassphrase);
    const std::vector<std::function<void()>> all = {
        [&] { rebind(file, key, 1, seal_null, gone, {}); }, [&] { remove_binding(file, 1, false); },
        [&] { remove_binding(file, bindings[0].keyslot, false); }};
    for (const auto& one : all) {
      try {
        one();
        ADD_FAILURE() << "at " << at;
      } catch (const Error& error) {
        EXPECT_NE(error.hint().find("key remove --slot 1;"), std::string::npos) << error.hint();
        EXPECT_NE(error.hint().find("key remove --slot 2;"), std::string::npos) << error.hint();
      }
    }
  }
  EXPECT_GT(told, 0);
}

// The copy of the proven keyslot is what counts in the end: it is looked at before the proven one
// goes, also where both were written before the cut.
TEST_P(BindingCrashTest, ACopyThatReadsBackDifferentlyTakesNoKeyslotAway) {
  if (GetParam() == Version::kLuks2) return;  // nothing is copied
  const Bytes first = start(1);
  const Change change = on_file([](HeaderFile& file) { rebind_one(file, 1); });
  const CrashRun whole = luks::testing::run_undisturbed(first, change);
  int looked_at = 0;
  for (std::uint64_t at = 0; at < whole.operations; ++at) {
    HeaderFile file = luks::testing::reopen(luks::testing::run_until_cut(first, change, at, at));
    const std::vector<Binding> bindings = list_bindings(file);
    const auto left = std::ranges::find_if(
        bindings, [](const Binding& one) { return one.keyslot == 1 && one.leftover.has_value(); });
    if (left == bindings.end()) continue;
    const Binding binding = *left;
    const int leftover = binding.leftover.value_or(-1);
    if (!binding.jwe || !file.header().keyslots.contains(leftover)) continue;
    ++looked_at;
    Bytes sector(512);
    const std::uint64_t offset = file.header().keyslots.at(1).area.offset_bytes;
    file.device()->read(offset, sector);
    sector[17] ^= std::byte{1};
    file.device()->write(offset, sector);
    try {
      rebind_one(file, 1);
      ADD_FAILURE() << "at " << at;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kIo);
    }
    const SecretBytes passphrase = open_null(*binding.jwe);
    EXPECT_TRUE(luks::unlock(file, passphrase.span(), {.keyslot = leftover}));
  }
  EXPECT_GT(looked_at, 0);
}

// The same with power failing again while the first cut is mended.
TEST_P(BindingCrashTest, RebindOutlivesASecondCut) {
  const Bytes first = start(1);
  const Change change = on_file([](HeaderFile& file) { rebind_one(file, 1); });
  const CrashRun whole = luks::testing::run_undisturbed(first, change);
  for (std::uint64_t at = 0; at < whole.operations; at += 2) {
    const Bytes medium = luks::testing::run_until_cut(first, change, at, at);
    const CrashRun mending = luks::testing::run_undisturbed(medium, change);
    for (std::uint64_t again = 0; again < mending.operations; again += 3) {
      SCOPED_TRACE("cuts at " + std::to_string(at) + " and " + std::to_string(again));
      HeaderFile file =
          luks::testing::reopen(luks::testing::run_until_cut(medium, change, again, again));
      EXPECT_GE(count_opening(file), 1);
      rebind_one(file, 1);
      EXPECT_EQ(count_opening(file), 1);
      EXPECT_EQ(file.header().keyslots.size(), 2U);
    }
  }
}

TEST_P(BindingCrashTest, RebindKeepsTheOldOneIfTheNewOneDoesNotOpen) {
  HeaderFile file = luks::testing::reopen(start(1));
  const Bytes before = luks::testing::contents(file);
  const luks::Unlocked key = must_unlock(file, kFirstPassphrase);
  const auto wrong = [](const Jwe&) { return SecretBytes(as_byte_view("wrong")); };
  EXPECT_THROW(rebind(file, key, 1, seal_null, wrong, {}), Error);
  EXPECT_EQ(count_opening(file), 1);
  EXPECT_EQ(list_bindings(file).size(), 1U);
  EXPECT_EQ(file.header().keyslots.size(), 2U);
}

TEST_P(BindingCrashTest, ReplacesInOneCommitWhereTwoTokensDoNotFit) {
  if (GetParam() == Version::kLuks1) return;  // records have places of their own
  // The key of the null pin is in the header: what is sealed may be large there.
  const auto seal = [](ByteView passphrase) {
    const std::string many = R"({"t":1,"pins":{"null":[{},{},{},{},{},{},{},{},{},{},{},{},{}]}})";
    return nbde::seal(parse_pin_policy(many), passphrase, PinContext{});
  };
  HeaderFile file = luks::testing::reopen(start(0));
  add_binding(file, must_unlock(file, kFirstPassphrase), seal, {});
  ASSERT_GT(file.header().tokens.at(0).json.size(), 6000U);
  const auto large_rebind = [&](HeaderFile& changing) {
    rebind(changing, must_unlock(changing, kFirstPassphrase), 1, seal, open_null, {});
  };
  const Jwe before = *find_binding(file, 1).jwe;
  cut(luks::testing::contents(file), on_file(large_rebind), [&](HeaderFile& after) {
    EXPECT_EQ(count_opening(after), 1);
    EXPECT_EQ(list_bindings(after).size(), 1U);
    large_rebind(after);
    EXPECT_NE(*find_binding(after, 1).jwe, before);
    EXPECT_EQ(count_opening(after), 1);
    EXPECT_EQ(after.header().keyslots.size(), 2U);
  });
}

TEST_P(BindingCrashTest, TopUpKeepsTheOtherKeyslotsOfAToken) {
  if (GetParam() == Version::kLuks1) return;
  HeaderFile file = luks::testing::reopen(start(1));
  luks::HeaderChange change{.header = file.header()};
  luks::set_token_keyslots(change.header.tokens.at(0), {0, 1});
  file.commit(std::move(change));
  replace_sealed(file, list_bindings(file).at(0), testing::null_jwe("another"));
  EXPECT_EQ(file.header().tokens.at(0).keyslots, (std::set<int>{0, 1}));
}

TEST_P(BindingCrashTest, RefusesBeforeServersAreAsked) {
  HeaderFile file = luks::testing::reopen(start(1));
  const luks::Unlocked key = must_unlock(file, kFirstPassphrase);
  const auto unasked = [](ByteView) -> Jwe { throw Error(Code::kInternal, "it was asked"); };
  for (const int taken : {0, 1, 32, -1}) {
    try {
      add_binding(file, key, unasked, {.keyslot = taken});
      ADD_FAILURE() << taken;
    } catch (const Error& error) {
      EXPECT_NE(error.code(), Code::kInternal) << taken;
    }
  }
}

TEST_P(BindingCrashTest, RefusesWhatDoesNotFitBeforeItWrites) {
  HeaderFile file = luks::testing::reopen(start(1));
  const luks::Unlocked key = must_unlock(file, kFirstPassphrase);
  const auto huge = [](ByteView) { return testing::null_jwe(std::string(1 << 21, 'x')); };
  const Bytes before = luks::testing::contents(file);
  try {
    add_binding(file, key, huge, {});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNoSpace);
    EXPECT_NE(error.hint(), "");
  }
  EXPECT_EQ(luks::testing::contents(file), before);
}

TEST_P(BindingCrashTest, TheLastWayToOpenIsNotRemoved) {
  HeaderFile file = luks::testing::reopen(start(1));
  luks::remove_keyslot(file, 0, false);
  EXPECT_THROW(remove_binding(file, 1, false), Error);
  EXPECT_EQ(count_opening(file), 1);
  EXPECT_THROW(remove_binding(file, 0, true), Error);
}

INSTANTIATE_TEST_SUITE_P(Both, BindingCrashTest,
                         ::testing::Values(Version::kLuks1, Version::kLuks2),
                         luks::testing::version_name);

}  // namespace
}  // namespace lukskeep::nbde
