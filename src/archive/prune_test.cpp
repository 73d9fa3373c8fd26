#include "archive/prune.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace lukskeep::archive {
namespace {

constexpr std::int64_t kDayNs = std::int64_t{86'400} * 1'000'000'000;
constexpr std::int64_t kNow = 1000 * kDayNs;

// Taken `days` ago; all the rest is of no account.
Entry entry(std::string id, std::int64_t days, std::int64_t key_set = 1) {
  Entry made;
  made.id = std::move(id);
  made.uuid = "u";
  made.device_path = "/dev/a";
  made.taken_ns = kNow - days * kDayNs;
  made.key_set = key_set;
  return made;
}

Entry with(Entry made, Trust trust, bool revoked = false) {
  made.trust = trust;
  made.revoked = revoked;
  return made;
}

Entry reference(Entry made) {
  made.reference = true;
  return made;
}

std::string chosen(const std::vector<Entry>& entries, const PruneRules& rules) {
  std::string ids;
  for (const Entry& one : choose_to_prune(entries, rules, kNow)) ids += one.id;
  return ids;
}

TEST(Prune, ByNumberAndAge) {
  const std::vector<Entry> list = {reference(entry("a", 0)), entry("b", 1), entry("c", 2),
                                   entry("d", 3)};
  EXPECT_EQ(chosen(list, {.keep = 0}), "bcd");
  EXPECT_EQ(chosen(list, {.keep = 1}), "bcd");
  EXPECT_EQ(chosen(list, {.keep = 3}), "d");
  EXPECT_EQ(chosen(list, {.older_than_days = 2}), "cd");
  EXPECT_EQ(chosen(list, {.older_than_days = 0}), "bcd");
  EXPECT_EQ(chosen(list, {.keep = 3, .older_than_days = 2}), "d");
  EXPECT_EQ(chosen(list, {.keep = 1, .older_than_days = 3}), "d");
  EXPECT_EQ(chosen(list, {.revoked = true}), "");
  EXPECT_EQ(chosen(list, {}), "");
}

TEST(Prune, EachPlaceForItself) {
  Entry other_path = reference(entry("x", 0));
  other_path.device_path = "/backup/a";
  Entry other_volume = reference(entry("y", 0));
  other_volume.uuid = "v";
  const std::vector<Entry> list = {other_path, other_volume, reference(entry("a", 1)),
                                   entry("b", 2)};
  EXPECT_EQ(chosen(list, {.keep = 1}), "b");
  EXPECT_EQ(chosen(list, {.keep = 0, .revoked = true}), "b");
}

TEST(Prune, ReferencesStay) {
  Entry highest = reference(entry("b", 2));
  highest.revoked = true;
  EXPECT_EQ(chosen({reference(entry("a", 1)), highest, entry("c", 3)},
                   {.keep = 0, .older_than_days = 0, .revoked = true}),
            "c");
}

TEST(Prune, NeighboursWithTheSameKeys) {
  const std::vector<Entry> list = {reference(entry("a", 0, 1)),
                                   entry("b", 1, 1),
                                   entry("c", 2, 2),
                                   entry("d", 3, 2),
                                   entry("e", 4, 1),
                                   entry("f", 5, 1)};
  EXPECT_EQ(chosen(list, {.keep = 0, .keep_key_changes = true}), "bdf");
  EXPECT_EQ(chosen(list, {.older_than_days = 3, .keep_key_changes = true}), "df");
  std::vector<Entry> marked = list;
  for (Entry& one : marked) one.revoked = one.key_set == 2;
  EXPECT_EQ(chosen(marked, {.keep = 0, .keep_key_changes = true, .revoked = true}), "bcdf");
  EXPECT_EQ(chosen(marked, {.keep_key_changes = true, .revoked = true}), "cd");
}

TEST(Prune, WhatWasImportedDisplacesNothing) {
  const Entry forged = with(entry("x", 0, 9), Trust::kUnproven);
  const Entry imported = with(entry("i", 1, 8), Trust::kImported);
  const Entry older = with(entry("j", 5), Trust::kImported, true);
  EXPECT_EQ(chosen({forged, imported, reference(entry("a", 2)), entry("b", 3)}, {.keep = 2}), "");
  EXPECT_EQ(chosen({forged, imported, reference(entry("a", 2)), entry("b", 3)}, {.keep = 0}),
            "xib");
  EXPECT_EQ(chosen({forged, imported, reference(entry("a", 2)), older}, {.revoked = true}), "j");
  // Where it is all there is, the best of it stays.
  EXPECT_EQ(chosen({forged, imported, older}, {.keep = 0, .revoked = true}), "xj");
  EXPECT_EQ(chosen({forged}, {.keep = 0}), "");
}

}  // namespace
}  // namespace lukskeep::archive
