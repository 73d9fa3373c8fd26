#include "archive/store.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "archive/manifest_text.h"
#include "luks/test_volume.h"
#include "storage/database.h"
#include "storage/test_files.h"

namespace lukskeep::archive {
namespace {

namespace fs = std::filesystem;
using luks::HeaderFile;
using luks::Version;
using luks::testing::cheap_keyslot;
using luks::testing::cheap_options;
using luks::testing::kFirstPassphrase;
using luks::testing::make_volume;
using luks::testing::must_unlock;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// An archive, the key that opens it, and a volume.
class StoreTest : public ::testing::Test {
 protected:
  StoreTest() { Store::create(place("store"), {&recipient_, 1}); }

  std::string place(const std::string& name) const { return folder_.path(name); }
  Store open() const { return Store(place("store")); }
  std::span<const AgeIdentity> keys() const { return {&identity_, 1}; }

  Added add(Store& store, const HeaderFile& file, const std::string& path = "/dev/live",
            const std::string& reason = "manual", const std::string& command = "") {
    return store.add(file, {.path = path, .reason = reason, .command = command});
  }
  HeaderFile with_second_key() {
    HeaderFile file = make_volume(cheap_options(Version::kLuks2));
    luks::add_keyslot(file, must_unlock(file, kFirstPassphrase), as_byte_view("x"),
                      cheap_keyslot());
    return file;
  }
  // A header that is the same now, and stays so when the volume changes.
  static HeaderFile copy_of(const HeaderFile& file) {
    Bytes bytes(file.device()->size_bytes());
    file.device()->read(0, bytes);
    return HeaderFile::open(std::make_shared<storage::MemoryDevice>(std::move(bytes)));
  }
  static void remove_key(HeaderFile& file, int keyslot) {
    luks::remove_keyslot(file, keyslot, true);
  }
  static void set_label(HeaderFile& file, const std::string& label) {
    luks::HeaderChange change{.header = file.header()};
    change.header.label = label;
    file.commit(std::move(change));
  }

  // A snapshot file of `file` as anybody can make one who knows the public key.
  Bytes forge(const HeaderFile& file, const std::function<void(Manifest&)>& change = {}) const {
    Capture capture = archive::capture(file, "/dev/live");
    capture.manifest.reason = "after";
    if (change) change(capture.manifest);
    return seal_snapshot(capture, {&recipient_, 1});
  }
  std::string file_of(const Entry& entry) const { return place("store/" + entry.file); }
  static Bytes read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    return {as_byte_view(text).begin(), as_byte_view(text).end()};
  }
  static void write(const std::string& path, ByteView bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << as_string_view(bytes);
  }
  static Entry must(std::optional<Entry> entry) {
    if (!entry) throw std::runtime_error("there is none");
    return std::move(*entry);
  }
  static Code code_of(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.code();
    }
    return Code::kInternal;
  }

  const  // Another user gets there as well, whatever TMPDIR is.
      storage::TemporaryDirectory folder_{"/tmp"};
  const AgeIdentity identity_ = make_age_identity();
  const AgeRecipient recipient_ = recipient_of(identity_);
};

// ---- which snapshot a volume is measured by

TEST_F(StoreTest, AnOlderCopyElsewhereSaysNothingOfTheVolume) {
  Store store = open();
  HeaderFile live = with_second_key();
  const HeaderFile old = copy_of(live);
  remove_key(live, 1);
  const std::string newest = add(store, live).id;
  for (const char* reason : {"manual", "scan", "import"}) {
    const std::string other = add(store, old, std::string("/backup/") + reason, reason).id;
    EXPECT_TRUE(store.find(newest).reference) << reason;
    EXPECT_FALSE(store.find(newest).revoked) << reason;
    // What was imported is no volume's present state, and holds a key that no volume has any more …
    EXPECT_EQ(store.find(other).reference, std::string(reason) != "import") << reason;
  }
  // … as long as the clones do not have it either.
  for (const Entry& entry : store.list()) {
    EXPECT_FALSE(entry.revoked) << entry.device_path;
    if (entry.trust == Trust::kOwn && entry.id != newest) store.remove(entry);
  }
  EXPECT_EQ(store.list().size(), 2U);
  for (const Entry& entry : store.list()) EXPECT_EQ(entry.revoked, entry.id != newest);
}

TEST_F(StoreTest, AnOlderStateAtTheSamePathDoesNotRevokeTheNewer) {
  Store store = open();
  HeaderFile live = make_volume(cheap_options(Version::kLuks2));
  const HeaderFile old = copy_of(live);
  luks::add_keyslot(live, must_unlock(live, kFirstPassphrase), as_byte_view("x"), cheap_keyslot());
  const std::string newest = add(store, live).id;
  const std::string clone = add(store, old).id;
  EXPECT_TRUE(store.find(newest).reference);
  EXPECT_FALSE(store.find(newest).revoked);
  EXPECT_TRUE(store.find(clone).reference);
  // It is what is there now, all the same.
  EXPECT_EQ(must(store.newest(live.header().uuid, "/dev/live")).id, clone);
}

TEST_F(StoreTest, AHeaderThatWasPutBackIsTheReference) {
  Store store = open();
  HeaderFile live = with_second_key();
  const HeaderFile old = copy_of(live);
  const std::string first = add(store, live, "/dev/live", "before").id;
  for (int i = 0; i < 3; ++i) set_label(live, std::to_string(i));
  remove_key(live, 0);
  const std::string replaced = add(store, live, "/dev/live", "before").id;
  EXPECT_TRUE(store.find(first).revoked);
  HeaderFile restored = copy_of(old);
  add(store, restored, "/dev/live", "after", "header restore");
  EXPECT_FALSE(store.find(first).revoked);
  EXPECT_FALSE(store.find(replaced).reference);
  // From here on it goes by what was put back, although its sequence ids are lower.
  remove_key(restored, 1);
  add(store, restored, "/dev/live", "after", "key remove");
  EXPECT_TRUE(store.find(first).revoked);
  EXPECT_TRUE(store.find(replaced).revoked);
}

TEST_F(StoreTest, TheLastOneTakenIsTheNewestWhateverTheClockSays) {
  Store store = open();
  HeaderFile live = make_volume(cheap_options(Version::kLuks1));
  Capture early = capture(live, "/dev/live");
  early.manifest.taken_ns += std::int64_t{3'600} * 1'000'000'000;
  const Origin origin{.path = "/dev/live", .reason = "manual", .command = ""};
  const std::string first = store.add(std::move(early), origin).id;
  luks::add_keyslot(live, must_unlock(live, kFirstPassphrase), as_byte_view("x"), cheap_keyslot());
  const std::string second = store.add(live, origin).id;
  EXPECT_EQ(must(store.newest(live.header().uuid, "/dev/live")).id, second);
  EXPECT_EQ(store.find(second).taken_ns, store.find(first).taken_ns + 1);
}

// ---- files that are not what the catalogue says

TEST_F(StoreTest, AnUnchangedHeaderIsArchivedAgainIfItsSnapshotIsLost) {
  Store store = open();
  const HeaderFile live = make_volume(cheap_options(Version::kLuks2));
  const std::string first = add(store, live).id;
  EXPECT_FALSE(add(store, live).is_new);
  const Bytes whole = read(file_of(store.find(first)));
  Bytes changed = whole;
  changed[60] ^= std::byte{1};
  const std::vector<Bytes> damages = {changed, {}, Bytes(whole.begin(), whole.end() - 1)};
  for (const Bytes& damage : damages) {
    write(file_of(must(store.newest(live.header().uuid, "/dev/live"))), damage);
    EXPECT_TRUE(add(store, live).is_new);
    EXPECT_FALSE(add(store, live).is_new);
  }
  fs::remove(file_of(must(store.newest(live.header().uuid, "/dev/live"))));
  EXPECT_TRUE(add(store, live).is_new);
  EXPECT_NO_THROW(store.open(must(store.newest(live.header().uuid, "/dev/live")), keys()));
}

TEST_F(StoreTest, AnotherSnapshotUnderItsNameIsNotOpened) {
  Store store = open();
  HeaderFile live = make_volume(cheap_options(Version::kLuks2));
  const Entry first = store.find(add(store, live).id);
  set_label(live, "x");
  const Entry second = store.find(add(store, live).id);
  fs::copy_file(file_of(first), file_of(second), fs::copy_options::overwrite_existing);
  EXPECT_EQ(code_of([&] { store.open(second, keys()); }), Code::kDamaged);
  EXPECT_EQ(code_of([&] { store.manifest(second); }), Code::kDamaged);
  EXPECT_EQ(code_of([&] { store.file_of(second); }), Code::kDamaged);
  EXPECT_NO_THROW(store.open(first, keys()));
  // Of the same size, too.
  Store again = open();
  again.rebuild();
  EXPECT_EQ(
      code_of([&] {
        again.open(
            {.id = second.id, .file = second.file, .file_bytes = fs::file_size(file_of(second))},
            keys());
      }),
      Code::kDamaged);
}

TEST_F(StoreTest, WhatCannotBeRemovedStaysInTheCatalogue) {
  Store store = open();
  const Entry entry = store.find(add(store, make_volume(cheap_options(Version::kLuks2))).id);
  // In its place is what cannot be removed as a file.
  fs::remove(file_of(entry));
  fs::create_directories(file_of(entry) + "/x");
  EXPECT_EQ(code_of([&] { store.remove(entry); }), Code::kIo);
  EXPECT_EQ(store.find(entry.id).id, entry.id);
  fs::remove_all(file_of(entry));
  store.remove(entry);
  EXPECT_TRUE(store.list().empty());
}

// ---- snapshots from elsewhere

TEST_F(StoreTest, WhatAForgedSnapshotSaysIsNotBelieved) {
  Store store = open();
  HeaderFile live = with_second_key();
  const std::string real = add(store, live).id;
  const std::string uuid = live.header().uuid;
  const auto no_keys = [](Manifest& manifest) {
    manifest.keyslots.clear();
    manifest.sequence_id += 10;
  };
  const Bytes forged = forge(live, no_keys);
  EXPECT_EQ(code_of([&] { store.import_file(forged, "x", keys()); }), Code::kDamaged);
  const Added added = store.import_file(forged, "x", {});
  EXPECT_TRUE(added.is_new && !added.proven);
  const auto check = [&](Store& checked) {
    EXPECT_EQ(checked.find(added.id).trust, Trust::kUnproven);
    EXPECT_FALSE(checked.find(added.id).reference);
    EXPECT_EQ(must(checked.newest(uuid, "/dev/live")).id, real);
    EXPECT_EQ(must(checked.newest_at("/dev/live")).id, real);
    EXPECT_FALSE(checked.find(real).revoked);
    EXPECT_TRUE(checked.find(real).reference);
  };
  check(store);
  store.rebuild();  // from the files alone
  check(store);
  // The next change is archived, with the forgery there.
  set_label(live, "x");
  EXPECT_TRUE(add(store, live, "/dev/live", "before").is_new);
}

TEST_F(StoreTest, WhatIsChecked) {
  Store store = open();
  const HeaderFile live = with_second_key();
  const std::vector<std::pair<const char*, std::function<void(Manifest&)>>> lies = {
      {"uuid", [](Manifest& m) { m.uuid = "other"; }},
      {"sequence id", [](Manifest& m) { ++m.sequence_id; }},
      {"version", [](Manifest& m) { m.version = 1; }},
      {"content", [](Manifest& m) { m.content_id = std::string(64, '0'); }},
      {"keyslots", [](Manifest& m) { m.keyslots.pop_back(); }},
      {"payload", [](Manifest& m) { ++m.payload_offset_bytes; }},
  };
  for (const auto& [name, lie] : lies) {
    const Bytes forged = forge(live, lie);
    EXPECT_EQ(code_of([&] { store.import_file(forged, "x", keys()); }), Code::kDamaged) << name;
  }
  for (const std::int64_t late :
       {std::numeric_limits<std::int64_t>::max(),
        capture(live, "x").manifest.taken_ns + std::int64_t{2} * 86'400 * 1'000'000'000}) {
    const Bytes forged = forge(live, [&](Manifest& m) { m.taken_ns = late; });
    EXPECT_EQ(code_of([&] { store.import_file(forged, "x", {}); }), Code::kInvalidArgument);
  }
  EXPECT_TRUE(store.list().empty());
  const Added honest = store.import_file(forge(live), "x", keys());
  EXPECT_TRUE(honest.proven);
  EXPECT_EQ(store.find(honest.id).trust, Trust::kImported);
  EXPECT_FALSE(store.newest_at("/dev/live"));
}

TEST_F(StoreTest, AnImportIsProvenLater) {
  Store store = open();
  const Bytes file = forge(with_second_key());
  const std::string id = store.import_file(file, "x", {}).id;
  const std::string name = store.find(id).file;
  const Added again = store.import_file(file, "x", keys());
  EXPECT_TRUE(again.proven && !again.is_new && !again.mended);
  EXPECT_EQ(store.find(id).trust, Trust::kImported);
  EXPECT_FALSE(fs::exists(place("store/" + name)));
  store.rebuild();
  EXPECT_EQ(store.find(id).trust, Trust::kImported);
  EXPECT_EQ(read(file_of(store.find(id))), file);
}

TEST_F(StoreTest, AnImportMendsWhatIsLostOrDamaged) {
  Store store = open();
  const HeaderFile live = with_second_key();
  const Entry entry = store.find(add(store, live).id);
  const Bytes whole = read(file_of(entry));
  Bytes flipped = whole;
  flipped[whole.size() - 5] ^= std::byte{1};
  Bytes other = whole;
  other[60] ^= std::byte{1};
  const Bytes cut(whole.begin(), whole.end() - 100);
  for (const Bytes& damage : {flipped, other, cut, Bytes()}) {
    write(file_of(entry), damage);
    const Added added = store.import_file(whole, "x", keys());
    EXPECT_TRUE(added.mended && !added.is_new);
    EXPECT_EQ(read(file_of(entry)), whole);
    EXPECT_EQ(store.find(entry.id).trust, Trust::kOwn);
    EXPECT_FALSE(store.import_file(whole, "x", keys()).mended);
  }
  fs::remove(file_of(entry));
  EXPECT_TRUE(store.import_file(whole, "x", {}).mended);  // nothing to lose
  EXPECT_EQ(read(file_of(entry)), whole);
  // A damaged one takes nobody's place.
  EXPECT_EQ(code_of([&] { store.import_file(cut, "x", keys()); }), Code::kDamaged);
  EXPECT_EQ(code_of([&] { store.import_file(cut, "x", {}); }), Code::kUnsafe);
  EXPECT_EQ(read(file_of(entry)), whole);
  // Without a key nothing tells which of two is sound.
  write(file_of(entry), cut);
  EXPECT_EQ(code_of([&] { store.import_file(whole, "x", {}); }), Code::kUnsafe);
}

TEST_F(StoreTest, AnImportFindsAFileThatTheCatalogueHasLost) {
  Store store = open();
  const Entry entry = store.find(add(store, with_second_key()).id);
  const Bytes whole = read(file_of(entry));
  storage::Database(place("store/catalogue.sqlite"), "catalogue").run("DELETE FROM snapshots");
  for (int i = 0; i < 2; ++i) {
    const Added added = store.import_file(whole, "x", {});
    EXPECT_FALSE(added.is_new || added.mended);
    EXPECT_EQ(store.find(entry.id).file, entry.file);
    EXPECT_EQ(store.find(entry.id).trust, Trust::kOwn);
  }
}

// ---- the catalogue

TEST_F(StoreTest, DamageAnywhereInTheCatalogueIsMended) {
  std::vector<std::string> ids;
  {
    Store store = open();
    HeaderFile live = with_second_key();
    for (int i = 0; i < 30; ++i) {
      set_label(live, std::to_string(i));
      ids.push_back(add(store, live).id);
    }
  }
  const std::string catalogue = place("store/catalogue.sqlite");
  const std::size_t pages = read(catalogue).size() / 4096;
  ASSERT_GT(pages, 8U);
  for (std::size_t page = 0; page < pages; ++page) {
    Bytes damaged = read(catalogue);
    std::fill_n(damaged.begin() + static_cast<std::ptrdiff_t>(page * 4096), 4096, std::byte{0xff});
    write(catalogue, damaged);
    Store store = open();
    // Each by itself may be the first to meet the damage.
    if (page % 2 == 0) {
      EXPECT_EQ(store.list().size(), ids.size()) << page;
    }
    for (const std::string& id : ids) EXPECT_EQ(store.find(id).id, id) << page;
    EXPECT_TRUE(store.newest_at("/dev/live")) << page;
    store.remove(store.find(ids.front()));
    ids.erase(ids.begin());
    ids.push_back(store.import_file(forge(with_second_key()), "x", {}).id);
    EXPECT_EQ(store.list().size(), ids.size()) << page;
    store.rebuild();
    EXPECT_EQ(store.list().size(), ids.size()) << page;
  }
  write(catalogue, ByteView(read(catalogue)).first(pages / 2 * 4096));
  EXPECT_EQ(open().list().size(), ids.size());
}

TEST_F(StoreTest, ARebuildLeavesOthersTheirCatalogue) {
  Store other = open();
  HeaderFile live = with_second_key();
  const std::string first = add(other, live).id;
  Store store = open();
  EXPECT_TRUE(store.rebuild().empty());
  // Written by who had it open before.
  set_label(live, "x");
  const std::string second = add(other, live).id;
  EXPECT_EQ(open().list().size(), 2U);
  EXPECT_EQ(store.find(second).id, second);
  EXPECT_EQ(other.find(first).id, first);
}

TEST_F(StoreTest, OnlyWhatIsNoSnapshotIsPassedOver) {
  Store store = open();
  const Entry entry = store.find(add(store, with_second_key()).id);
  write(file_of(entry) + "-bad.snapshot", as_byte_view("nonsense"));
  fs::remove(place("store/catalogue.sqlite"));
  {
    Store again = open();
    EXPECT_EQ(again.list().size(), 1U);
    EXPECT_THAT(again.problems(), ElementsAre(HasSubstr("is no snapshot")));
    EXPECT_TRUE(open().problems().empty());
  }
  // Root may read everything.
  constexpr uid_t kNobody = 65534;
  const bool root = geteuid() == 0;
  fs::permissions(file_of(entry), fs::perms::none);
  fs::remove(place("store/catalogue.sqlite"));
  if (root) {
    for (const auto& below : fs::recursive_directory_iterator(place("."))) {
      ASSERT_EQ(chown(below.path().c_str(), kNobody, kNobody), 0);
    }
    ASSERT_EQ(chmod(place(".").c_str(), 0711), 0);
    ASSERT_EQ(seteuid(kNobody), 0);
  }
  const Code code = code_of([&] { open(); });
  if (root && seteuid(0) != 0) std::abort();
  EXPECT_EQ(code, Code::kPermissionDenied);
}

TEST_F(StoreTest, ASymbolicLinkAboveItIsNoObstacle) {
  fs::create_directory_symlink(place("store"), place("link"));
  Store store(place("link"));
  EXPECT_TRUE(add(store, with_second_key()).is_new);
  EXPECT_EQ(open().list().size(), 1U);
}

TEST_F(StoreTest, NamesThatAreNoText) {
  Store store = open();
  const HeaderFile live = with_second_key();
  const std::string path = "/dev/\xff\xef\xbf\xbd";
  EXPECT_TRUE(add(store, live, path).is_new);
  EXPECT_FALSE(add(store, live, path).is_new);
  EXPECT_TRUE(add(store, live, "/dev/\xfe\xef\xbf\xbd").is_new);
  EXPECT_TRUE(store.newest(live.header().uuid, path));
  EXPECT_EQ(manifest_bytes(must(store.newest_at(path)).device_path), path);
  store.rebuild();
  EXPECT_FALSE(add(store, live, path).is_new);
}

TEST_F(StoreTest, SetsOfKeysAreToldApart) {
  Store store = open();
  HeaderFile live = with_second_key();
  const Entry two = store.find(add(store, live).id);
  set_label(live, "x");
  EXPECT_EQ(store.find(add(store, live).id).key_set, two.key_set);
  remove_key(live, 1);
  EXPECT_NE(store.find(add(store, live).id).key_set, two.key_set);
}

}  // namespace
}  // namespace lukskeep::archive
