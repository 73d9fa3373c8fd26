// Every change of a header, with the power cut at each of its writes and flushes: one table.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "crypto/random.h"
#include "luks/convert.h"
#include "luks/crash_test_tools.h"
#include "luks/crypt_device.h"
#include "luks/header_backup.h"
#include "luks/luks1_codec.h"
#include "luks/luks2_codec.h"
#include "luks/test_volume.h"
#include "storage/window_device.h"

namespace lukskeep::luks {
namespace {

using testing::Change;
using testing::cheap_keyslot;
using testing::CrashRun;
using testing::cut_power_everywhere;
using testing::kFirstPassphrase;
using testing::kPayloadBytes;
using testing::kSecondPassphrase;
using testing::must_unlock;
using testing::run_undisturbed;

constexpr std::string_view kThirdPassphrase = "third";
constexpr std::uint64_t kRounds = 4;
// Over all of the table, in one run.
constexpr std::uint64_t kPointsMin = 2000;
// The record of LUKS1's keyslot 6 is the only one that two sectors share: torn, it names material
// that opens with nothing (LUKS1 §2.1).
constexpr int kTornLuks1Keyslot = 6;

// ---- where an operation starts ---------------------------------------------------------------

struct Setting {
  Version version = Version::kLuks2;
  bool detached = false;
  bool roomy = false;  // room for eight keyslots and for metadata that grows
  int first_keyslot = 0;
  int second_keyslot = 1;
};

struct Scene {
  Bytes medium;
  Bytes backup;  // taken when both passphrases opened the volume
  std::shared_ptr<const Unlocked> key;
};

Bytes contents(const Device& device) {
  Bytes bytes(device.size_bytes());
  device.read(0, bytes);
  return bytes;
}

std::shared_ptr<Device> memory(Bytes bytes) {
  return std::make_shared<storage::MemoryDevice>(std::move(bytes));
}

HeaderFile reopen(Bytes bytes) { return HeaderFile::open(memory(std::move(bytes))); }

// Small keys: what a keyslot costs here is its material.
CreateOptions options_of(const Setting& setting) {
  constexpr std::uint32_t kKeyBytes = 32;
  CreateOptions options = testing::cheap_options(setting.version);
  options.key_size_bytes = kKeyBytes;
  options.detached = setting.detached;
  if (setting.version == Version::kLuks2) {
    options.keyslots_size_bytes = (setting.roomy ? 12 : 4) * keyslot_area_bytes(kKeyBytes);
  }
  return options;
}

// A header with two keyslots; behind an attached one a payload that nothing may touch.
Scene make_scene(const Setting& setting) {
  const NewHeader fresh = make_header(options_of(setting));
  const std::uint64_t header_bytes = header_device_bytes(fresh.header);
  Bytes blank(header_bytes + (setting.detached ? 0 : kPayloadBytes));
  std::fill(blank.begin() + static_cast<std::ptrdiff_t>(header_bytes), blank.end(),
            std::byte{0x61});
  HeaderFile file = create_volume(memory(std::move(blank)), fresh, as_byte_view(kFirstPassphrase),
                                  cheap_keyslot(setting.first_keyslot));
  auto key = std::make_shared<Unlocked>(must_unlock(file, kFirstPassphrase));
  add_keyslot(file, *key, as_byte_view(kSecondPassphrase), cheap_keyslot(setting.second_keyslot));
  return {.medium = contents(*file.device()), .backup = backup_header(file), .key = std::move(key)};
}

// Changes where the scene starts, with the program's own means.
void in_advance(Scene& scene, const std::function<void(HeaderFile&)>& change) {
  HeaderFile file = reopen(scene.medium);
  change(file);
  scene.medium = contents(*file.device());
}

void overwrite(Bytes& medium, const AreaRange& range) {
  std::ranges::copy(crypto::random_bytes(range.size_bytes),
                    medium.begin() + static_cast<std::ptrdiff_t>(range.offset_bytes));
}

AreaRange area_of(const Bytes& medium, int keyslot) {
  const HeaderFile file = reopen(medium);
  const KeyslotArea& area = file.header().keyslots.at(keyslot).area;
  return {.offset_bytes = area.offset_bytes, .size_bytes = area.size_bytes};
}

// ---- what is promised of it ------------------------------------------------------------------

struct Operation {
  std::string name;
  std::set<Version> versions;
  std::function<void(Scene&)> prepare = [](Scene&) {};
  std::function<void(const std::shared_ptr<Device>&, const Scene&)> run;

  // Passphrases that open the volume at every point, of which one does, and that never do.
  std::vector<std::string_view> always;
  std::vector<std::string_view> one_of;
  std::vector<std::string_view> never;
  // The header is at every point the one before or the one after, but for its sequence id.
  bool exact = false;
  // It may be that no header can be read, where none could before; doing it again mends that.
  bool may_be_gone = false;
  // The header moves to the second half of the medium: one of both is whole at every point.
  bool moves = false;
  // A keyslot whose material is replaced where it is.
  int overwritten_keyslot = -1;
  std::function<void(const HeaderFile&)> done = [](const HeaderFile&) {};
  Setting setting = {};
};

using Run = decltype(Operation::run);

const std::set<Version> kBoth = {Version::kLuks1, Version::kLuks2};
const std::set<Version> kOnly1 = {Version::kLuks1};
const std::set<Version> kOnly2 = {Version::kLuks2};
const std::vector<std::string_view> kBothPassphrases = {kFirstPassphrase, kSecondPassphrase};
const std::vector<std::string_view> kFirstOnly = {kFirstPassphrase};

// An operation on the header, once that is read.
Run on_header(std::function<void(HeaderFile&, const Scene&)> change) {
  return [change = std::move(change)](const std::shared_ptr<Device>& device, const Scene& scene) {
    HeaderFile file = HeaderFile::open(device);
    change(file, scene);
  };
}

// One commit that changes the model only.
Run on_model(const std::function<void(Header&)>& change) {
  return on_header([change](HeaderFile& file, const Scene&) {
    Header header = file.header();
    change(header);
    file.commit({.header = std::move(header), .new_areas = {}, .obsolete = {}});
  });
}

std::function<void(Scene&)> without_second(int keyslot = 1) {
  return [keyslot](Scene& scene) {
    in_advance(scene, [&](HeaderFile& file) { remove_keyslot(file, keyslot, false); });
  };
}

auto expect_passphrase(std::string_view passphrase, bool opens) {
  return [=](const HeaderFile& file) { EXPECT_EQ(testing::opens(file, passphrase), opens); };
}

// The analyzer does not see that lists destroy the functions in them.
// NOLINTBEGIN(clang-analyzer-cplusplus.NewDeleteLeaks)
std::vector<Operation> keyslot_operations() {
  const auto add = [](int keyslot) {
    return on_header([keyslot](HeaderFile& file, const Scene& scene) {
      add_keyslot(file, *scene.key, as_byte_view(kThirdPassphrase), cheap_keyslot(keyslot));
    });
  };
  const Run change = on_header([](HeaderFile& file, const Scene& scene) {
    change_keyslot(file, *scene.key, as_byte_view(kThirdPassphrase), cheap_keyslot());
  });
  const auto third_opens = expect_passphrase(kThirdPassphrase, true);
  return {
      {.name = "Add",
       .versions = kBoth,
       .run = add(2),
       .always = kBothPassphrases,
       .done = third_opens},
      {.name = "AddAcrossSectors",
       .versions = kBoth,
       .run = add(kTornLuks1Keyslot),
       .always = kBothPassphrases,
       .done = third_opens},
      {.name = "Remove",
       .versions = kBoth,
       .run = on_header([](HeaderFile& file, const Scene&) { remove_keyslot(file, 1, false); }),
       .always = kFirstOnly,
       .exact = true,
       .done = expect_passphrase(kSecondPassphrase, false)},
      {.name = "Change",
       .versions = kBoth,
       .run = change,
       .always = {kSecondPassphrase},
       .one_of = {kFirstPassphrase, kThirdPassphrase},
       .done = third_opens},
      {.name = "ChangeTheOnlyOne",
       .versions = kBoth,
       .prepare = without_second(),
       .run = change,
       .one_of = {kFirstPassphrase, kThirdPassphrase},
       .never = {kSecondPassphrase},
       .done = third_opens},
      {.name = "ChangeTheOnlyOneAcrossSectors",
       .versions = kOnly1,
       .prepare = without_second(),
       .run = change,
       .one_of = {kFirstPassphrase, kThirdPassphrase},
       .never = {kSecondPassphrase},
       .done = third_opens,
       .setting = {.first_keyslot = kTornLuks1Keyslot}},
      {.name = "Erase",
       .versions = kBoth,
       .run = on_header([](HeaderFile& file, const Scene&) { erase_keyslots(file); }),
       .exact = true,
       .done = [](const HeaderFile& file) { EXPECT_TRUE(file.header().keyslots.empty()); }},
      {.name = "WipeUnused",
       .versions = kBoth,
       // As a removal leaves it that was cut before it wiped.
       .prepare =
           [](Scene& scene) {
             const Bytes before = scene.medium;
             const AreaRange area = area_of(before, 1);
             without_second()(scene);
             std::copy_n(before.begin() + static_cast<std::ptrdiff_t>(area.offset_bytes),
                         area.size_bytes,
                         scene.medium.begin() + static_cast<std::ptrdiff_t>(area.offset_bytes));
           },
       .run = on_header([](HeaderFile& file, const Scene&) { wipe_unused_areas(file); }),
       .always = kFirstOnly,
       .never = {kSecondPassphrase},
       .exact = true},
  };
}

// Metadata of many sectors, so that it can be torn anywhere.
void store_long_token(Header& header) {
  header.tokens[0] = parse_token(
      R"({"type":"long","keyslots":[],"x":")" + std::string(6000, 'x') + R"("})", "token");
}

std::vector<Operation> model_operations() {
  const auto token = [](std::string_view json) {
    return [json](Header& header) { header.tokens[0] = parse_token(json, "token"); };
  };
  const auto has_tokens = [](std::size_t count) {
    return [count](const HeaderFile& file) { EXPECT_EQ(file.header().tokens.size(), count); };
  };
  const auto with_token = [](Scene& scene) {
    in_advance(scene, [&](HeaderFile& file) {
      Header header = file.header();
      store_long_token(header);
      file.commit({.header = std::move(header), .new_areas = {}, .obsolete = {}});
    });
  };
  const auto configure = [](Header& header) {
    header.label = "label";
    header.subsystem = "subsystem";
    header.config.flags = {"allow-discards"};
    header.keyslots.at(1).priority = Priority::kPrefer;
  };
  return {
      {.name = "WriteTheSame",
       .versions = kBoth,
       .run = on_model([](Header&) {}),
       .always = kBothPassphrases,
       .exact = true},
      {.name = "TokenImport",
       .versions = kOnly2,
       .run = on_model(store_long_token),
       .always = kBothPassphrases,
       .exact = true,
       .done = has_tokens(1)},
      {.name = "TokenReplace",
       .versions = kOnly2,
       .prepare = with_token,
       .run = on_model(token(R"({"type":"other","keyslots":[],"y":"two"})")),
       .always = kBothPassphrases,
       .exact = true,
       .done = has_tokens(1)},
      {.name = "TokenRemove",
       .versions = kOnly2,
       .prepare = with_token,
       .run = on_model([](Header& header) { header.tokens.clear(); }),
       .always = kBothPassphrases,
       .exact = true,
       .done = has_tokens(0)},
      {.name = "Config",
       .versions = kOnly2,
       .run = on_model(configure),
       .always = kBothPassphrases,
       .exact = true,
       .done = [](const HeaderFile& file) { EXPECT_EQ(file.header().label, "label"); }},
  };
}

// One of the two copies of LUKS2 is no good.
std::vector<std::pair<std::string, std::function<void(Scene&, std::uint64_t)>>> damages() {
  return {
      {"PrimaryGone",
       [](Scene& scene, std::uint64_t size) {
         std::fill_n(scene.medium.begin(), size, std::byte{0});
       }},
      {"PrimaryDamaged", [](Scene& scene, std::uint64_t) { scene.medium[4100] ^= std::byte{1}; }},
      {"PrimaryOverwritten",
       [](Scene& scene, std::uint64_t size) { overwrite(scene.medium, {0, size}); }},
      {"SecondaryDamaged",
       [](Scene& scene, std::uint64_t size) { scene.medium[size + 4100] ^= std::byte{1}; }},
      {"PrimaryStale",
       [](Scene& scene, std::uint64_t size) {
         const Bytes before = scene.medium;
         in_advance(scene, [](HeaderFile& file) {
           file.commit({.header = file.header(), .new_areas = {}, .obsolete = {}});
         });
         std::copy_n(before.begin(), size, scene.medium.begin());
       }},
  };
}

std::vector<Operation> repair_operations() {
  const Run repair = on_header([](HeaderFile& file, const Scene&) {
    file.commit(
        {.header = file.header(), .new_areas = {}, .obsolete = {}, .overwrite_foreign = true});
  });
  const Run change = on_header([](HeaderFile& file, const Scene&) {
    HeaderChange longer{.header = file.header(), .overwrite_foreign = true};
    store_long_token(longer.header);
    file.commit(std::move(longer));
  });
  const auto kinds = damages();
  std::vector<Operation> operations;
  operations.reserve(2 * kinds.size());
  for (const auto& [name, damage] : kinds) {
    const auto prepare = [damage = damage](Scene& scene) {
      damage(scene, reopen(scene.medium).header().metadata_size_bytes);
      EXPECT_EQ(reopen(scene.medium).report().problems.size(), 1U);
    };
    operations.push_back({.name = "Repair" + name,
                          .versions = kOnly2,
                          .prepare = prepare,
                          .run = repair,
                          .always = kBothPassphrases,
                          .exact = true});
    operations.push_back({.name = "ChangeWith" + name,
                          .versions = kOnly2,
                          .prepare = prepare,
                          .run = change,
                          .always = kBothPassphrases,
                          .exact = true});
  }
  return operations;
}

// Both copies, or the one of LUKS1, and the material of the second keyslot.
void wreck(Scene& scene) {
  const HeaderFile file = reopen(scene.medium);
  overwrite(scene.medium, area_of(scene.medium, 1));
  if (file.header().version == Version::kLuks1) {
    constexpr std::size_t kStripesOfKeyslot0 = 208 + 44;
    scene.medium[kStripesOfKeyslot0] ^= std::byte{1};
  } else {
    scene.medium[4100] ^= std::byte{1};
    scene.medium[file.header().metadata_size_bytes + 4100] ^= std::byte{1};
  }
  EXPECT_THROW(reopen(scene.medium), Error);
}

std::vector<Operation> restore_operations() {
  const auto restore = [](bool kill_revived) -> Run {
    return [=](const std::shared_ptr<Device>& device, const Scene& scene) {
      RestorePlan plan = plan_restore(memory(scene.backup), device);
      if (kill_revived) leave_out_keyslots(plan, plan.revived);
      restore_header(plan, *device);
    };
  };
  const auto both_open = [](const HeaderFile& file) {
    expect_passphrase(kFirstPassphrase, true)(file);
    expect_passphrase(kSecondPassphrase, true)(file);
  };
  const auto change_second = [](Scene& scene) {
    in_advance(scene, [](HeaderFile& file) {
      change_keyslot(file, must_unlock(file, kSecondPassphrase), as_byte_view(kThirdPassphrase),
                     cheap_keyslot());
    });
  };
  const auto zero = [](Scene& scene) {
    std::fill_n(scene.medium.begin(), scene.backup.size(), std::byte{0});
  };
  return {
      {.name = "RestoreOlder",
       .versions = kBoth,
       .prepare = without_second(),
       .run = restore(false),
       .always = kFirstOnly,
       .done = both_open},
      {.name = "RestoreChanged",
       .versions = kBoth,
       .prepare = change_second,
       .run = restore(false),
       .always = kFirstOnly,
       .overwritten_keyslot = 1,
       .done = both_open},
      {.name = "RestoreKillingRevived",
       .versions = kBoth,
       .prepare = without_second(),
       .run = restore(true),
       .always = kFirstOnly,
       .never = {kSecondPassphrase}},
      {.name = "RestoreOntoZeroes",
       .versions = kBoth,
       .prepare = zero,
       .run = restore(false),
       .always = kBothPassphrases,
       .may_be_gone = true,
       .done = both_open},
      {.name = "RestoreOntoDamage",
       .versions = kBoth,
       .prepare = wreck,
       .run = restore(false),
       .always = kBothPassphrases,
       .may_be_gone = true,
       .done = both_open},
  };
}

// ---- a header that goes elsewhere, or gets another shape -------------------------------------

// The two halves of a medium: one power supply for two devices.
std::pair<std::shared_ptr<Device>, std::shared_ptr<Device>> halves(
    const std::shared_ptr<Device>& device) {
  const std::uint64_t half = device->size_bytes() / 2;
  return {storage::make_window(device, {.offset_bytes = 0, .size_bytes = half}),
          storage::make_window(device, {.offset_bytes = half, .size_bytes = half})};
}

void detach(const std::shared_ptr<Device>& device, const Scene&) {
  const auto [volume, other] = halves(device);
  const HeaderFile file = HeaderFile::open(volume);
  const Bytes copy = backup_header(file);
  other->write(0, copy);
  other->flush();
  remove_header(file, copy);
}

Run resize_to(std::uint64_t metadata_bytes) {
  return on_header([metadata_bytes](HeaderFile& file, const Scene&) {
    resize_header(file, {.metadata_size_bytes = metadata_bytes, .keyslots_size_bytes = {}});
  });
}

auto expect_version(Version version) {
  return [version](const HeaderFile& file) { EXPECT_EQ(file.header().version, version); };
}

std::vector<Operation> shape_operations() {
  const auto double_medium = [](Scene& scene) { scene.medium.resize(2 * scene.medium.size()); };
  const auto enlarge = [](Scene& scene) {
    in_advance(scene, [](HeaderFile& file) {
      resize_header(file, {.metadata_size_bytes = 0x10000, .keyslots_size_bytes = {}});
    });
  };
  const auto convert_to = [](Version version) {
    return on_header([version](HeaderFile& file, const Scene&) { convert_header(file, version); });
  };
  const auto has_metadata = [](std::uint64_t size) {
    return [size](const HeaderFile& file) { EXPECT_EQ(file.header().metadata_size_bytes, size); };
  };
  std::vector<Operation> all = {
      {.name = "ToLuks2",
       .versions = kOnly1,
       .run = convert_to(Version::kLuks2),
       .always = kBothPassphrases,
       .done = expect_version(Version::kLuks2)},
      {.name = "ToLuks1",
       .versions = kOnly2,
       .run = convert_to(Version::kLuks1),
       .always = kBothPassphrases,
       .done = expect_version(Version::kLuks1),
       .setting = {.roomy = true}},
      {.name = "Grow",
       .versions = kOnly2,
       .run = resize_to(0x10000),
       .always = kBothPassphrases,
       .done = has_metadata(0x10000),
       .setting = {.roomy = true}},
      {.name = "Shrink",
       .versions = kOnly2,
       .prepare = enlarge,
       .run = resize_to(0x4000),
       .always = kBothPassphrases,
       .done = has_metadata(0x4000),
       .setting = {.roomy = true}},
      // The last keyslot of LUKS1 is in the header's second sector.
      {.name = "Detach",
       .versions = kBoth,
       .prepare = double_medium,
       .run = detach,
       .always = kBothPassphrases,
       .moves = true,
       .setting = {.second_keyslot = 7}},
  };
  // Metadata that goes elsewhere may go over the only good copy of what was there.
  for (const auto& [name, damage] : damages()) {
    if (name != "PrimaryDamaged" && name != "SecondaryDamaged") continue;
    const auto hurt = [damage](Scene& scene) {
      damage(scene, reopen(scene.medium).header().metadata_size_bytes);
    };
    all.push_back({.name = "ToLuks1" + name,
                   .versions = kOnly2,
                   .prepare = hurt,
                   .run = convert_to(Version::kLuks1),
                   .always = kBothPassphrases,
                   .done = expect_version(Version::kLuks1),
                   .setting = {.roomy = true}});
    all.push_back({.name = "Shrink" + name,
                   .versions = kOnly2,
                   .prepare =
                       [enlarge, hurt](Scene& scene) {
                         enlarge(scene);
                         hurt(scene);
                       },
                   .run = resize_to(0x4000),
                   .always = kBothPassphrases,
                   .done = has_metadata(0x4000),
                   .setting = {.roomy = true}});
  }
  return all;
}

// NOLINTEND(clang-analyzer-cplusplus.NewDeleteLeaks)

std::vector<Operation> all_operations() {
  std::vector<Operation> all;
  for (const auto& part : {keyslot_operations(), model_operations(), repair_operations(),
                           restore_operations(), shape_operations()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

// ---- judging ---------------------------------------------------------------------------------

// The passphrases that open `file`. A keyslot that is named but opens with none is half a keyslot.
std::set<std::string_view> passphrases_of(const HeaderFile& file, const Operation& operation) {
  std::set<std::string_view> found;
  for (const auto& [id, keyslot] : file.header().keyslots) {
    bool opened = false;
    for (const std::string_view passphrase :
         {kFirstPassphrase, kSecondPassphrase, kThirdPassphrase}) {
      if (opened || !testing::opens(file, passphrase, id)) continue;
      opened = true;
      found.insert(passphrase);
    }
    const bool may_be_torn =
        (file.header().version == Version::kLuks1 && id == kTornLuks1Keyslot) ||
        id == operation.overwritten_keyslot;
    EXPECT_TRUE(opened || may_be_torn) << "keyslot " << id << " opens with no passphrase";
  }
  return found;
}

void expect_promised(const HeaderFile& file, const Operation& operation) {
  const std::set<std::string_view> found = passphrases_of(file, operation);
  const auto opens = [&](std::string_view passphrase) { return found.contains(passphrase); };
  for (const std::string_view passphrase : operation.always) {
    EXPECT_TRUE(opens(passphrase)) << passphrase;
  }
  EXPECT_TRUE(operation.one_of.empty() || std::ranges::any_of(operation.one_of, opens));
  EXPECT_TRUE(std::ranges::none_of(operation.never, opens));
}

Header without_sequence(Header header) {
  header.sequence_id = 0;
  return header;
}

// One case of the table: an operation in a setting.
class Case {
 public:
  Case(Operation operation, const Setting& setting)
      : operation_(std::move(operation)), scene_(make_scene(setting)) {
    operation_.prepare(scene_);
    if (!setting.detached) payload_at_ = payload_offset_bytes(reopen(scene_.backup).header());
    run_ = run_undisturbed(scene_.medium, change());
  }

  Change change() const {
    return [this](const std::shared_ptr<Device>& device) { operation_.run(device, scene_); };
  }
  const Scene& scene() const { return scene_; }
  std::uint64_t operations() const { return run_.operations; }

  // What the operation is for.
  void judge_whole() const {
    expect_payload(run_.medium);
    if (operation_.moves) {
      EXPECT_THROW(HeaderFile::open(halves(memory(run_.medium)).first), Error);
      expect_promised(HeaderFile::open(halves(memory(run_.medium)).second), operation_);
      return;
    }
    const HeaderFile after = reopen(run_.medium);
    EXPECT_TRUE(after.report().problems.empty());
    expect_promised(after, operation_);
    operation_.done(after);
  }

  void judge(const Bytes& medium) const {
    expect_payload(medium);
    if (operation_.moves) return judge_moved(memory(medium));
    try {
      HeaderFile after = reopen(medium);
      expect_promised(after, operation_);
      if (operation_.exact) expect_old_or_new(after);
      // It can be mended, and changed further.
      after.commit(
          {.header = after.header(), .new_areas = {}, .obsolete = {}, .overwrite_foreign = true});
      EXPECT_TRUE(after.report().problems.empty());
    } catch (const Error& error) {
      EXPECT_TRUE(operation_.may_be_gone) << error.message();
    }
    if (operation_.may_be_gone) judge_again(memory(medium));
  }

 private:
  void expect_payload(const Bytes& medium) const {
    if (!payload_at_) return;
    const std::uint64_t size =
        (operation_.moves ? medium.size() / 2 : medium.size()) - *payload_at_;
    EXPECT_TRUE(std::ranges::equal(ByteView(medium).subspan(*payload_at_, size),
                                   ByteView(scene_.medium).subspan(*payload_at_, size)));
  }

  void expect_old_or_new(const HeaderFile& found) const {
    const Header now = without_sequence(found.header());
    EXPECT_TRUE(now == without_sequence(reopen(scene_.medium).header()) ||
                now == without_sequence(reopen(run_.medium).header()));
  }

  // The volume's own header is whole or gone; while it is not whole, the other one is.
  void judge_moved(const std::shared_ptr<Device>& device) const {
    const auto [volume, other] = halves(device);
    try {
      expect_promised(HeaderFile::open(volume), operation_);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == Code::kNotLuks || error.code() == Code::kDamaged)
          << error.message();
      expect_promised(HeaderFile::open(other), operation_);
    }
  }

  // Whatever a cut has left, the same again completes it.
  void judge_again(const std::shared_ptr<Device>& device) const {
    operation_.run(device, scene_);
    const HeaderFile after = HeaderFile::open(device);
    EXPECT_TRUE(after.report().problems.empty());
    expect_promised(after, operation_);
  }

  Operation operation_;
  Scene scene_;
  std::optional<std::uint64_t> payload_at_;
  CrashRun run_;
};

struct Row {
  std::string operation;
  Setting setting;
};

std::vector<Row> rows() {
  std::vector<Row> rows;
  for (const Operation& operation : all_operations()) {
    for (const Version version : operation.versions) {
      for (const bool detached : {false, true}) {
        Row row{.operation = operation.name, .setting = operation.setting};
        row.setting.version = version;
        row.setting.detached = detached;
        rows.push_back(std::move(row));
      }
    }
  }
  return rows;
}

// So that no two rows lose the same of their writes.
std::uint64_t salt_of(const Row& row) {
  std::uint64_t salt = 2 * static_cast<std::uint64_t>(row.setting.version) + row.setting.detached;
  for (const char letter : row.operation) salt = 31 * salt + static_cast<unsigned char>(letter);
  return salt;
}

Case make_case(const Row& row) {
  std::vector<Operation> operations = all_operations();
  return {*std::ranges::find(operations, row.operation, &Operation::name), row.setting};
}

class Crashes : public ::testing::TestWithParam<Row> {};

TEST_P(Crashes, LoseNothing) {
  const Case tried = make_case(GetParam());
  tried.judge_whole();
  const std::uint64_t points = cut_power_everywhere(
      tried.scene().medium, tried.change(),
      {.operations = tried.operations(), .rounds = kRounds, .salt = salt_of(GetParam())},
      [&](const Bytes& medium) { tried.judge(medium); });
  RecordProperty("power_cuts", static_cast<int>(points));
  // A commit is at least a write and a flush.
  EXPECT_GE(points, 2 * kRounds);
}

std::string row_name(const ::testing::TestParamInfo<Row>& tested) {
  const Setting& setting = tested.param.setting;
  return tested.param.operation + (setting.version == Version::kLuks1 ? "_Luks1" : "_Luks2") +
         (setting.detached ? "_Detached" : "");
}

INSTANTIATE_TEST_SUITE_P(All, Crashes, ::testing::ValuesIn(rows()), row_name);

// The tests above run in several processes, none of which sees the sum.
TEST(CrashTable, HasTwoThousandPowerCuts) {
  std::uint64_t points = 0;
  for (const Row& row : rows()) points += kRounds * make_case(row).operations();
  EXPECT_GE(points, kPointsMin);
}

}  // namespace
}  // namespace lukskeep::luks
