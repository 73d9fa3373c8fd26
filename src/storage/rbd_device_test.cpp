#include "storage/rbd_device.h"

#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

TEST(RbdName, Parts) {
  struct Row {
    const char* location;
    RbdName parsed;
  };
  const Row rows[] = {
      {"rbd:p/i", {.pool = "p", .image = "i", .timeout_seconds = 60}},
      {"rbd:p/i@s", {.pool = "p", .image = "i", .snapshot = "s", .timeout_seconds = 60}},
      {"rbd:p/n/i", {.pool = "p", .name_space = "n", .image = "i", .timeout_seconds = 60}},
      {"rbd:p/i?id=u&conf=/etc/c.conf&timeout=5",
       {.pool = "p", .image = "i", .conf = "/etc/c.conf", .id = "u", .timeout_seconds = 5}},
      {"rbd:p/i@s?conf=a@b/c",
       {.pool = "p", .image = "i", .snapshot = "s", .conf = "a@b/c", .timeout_seconds = 60}},
  };
  for (const Row& row : rows) {
    RbdName expected = row.parsed;
    expected.name = row.location;
    EXPECT_EQ(parse_rbd_name(row.location), expected) << row.location;
  }
}

TEST(RbdName, WhatIsNone) {
  for (const std::string location :
       {"rbd:", "rbd:i", "rbd:/i", "rbd:p/", "rbd:p/i@", "rbd:p/a/b/c", "rbd:p/i?x=1",
        "rbd:p/i?id=", "rbd:p/i?timeout=0", "rbd:p/i?timeout=1x", "rbd:p/i?timeout=99999999999",
        "rbd:p/i?conf"}) {
    EXPECT_EQ(error_of([&] { static_cast<void>(parse_rbd_name(location)); }).code(), Code::kUsage)
        << location;
  }
  EXPECT_EQ(
      error_of([&] { static_cast<void>(parse_rbd_name("rbd:p/" + std::string(300, 'x'))); }).code(),
      Code::kUsage);
}

TEST(RbdName, ASnapshotIsNotWritten) {
  const OpenOptions writing{.access = Access::kReadWrite};
  EXPECT_EQ(error_of([&] { static_cast<void>(open_rbd("rbd:p/i@s", writing)); }).code(),
            Code::kReadOnly);
  EXPECT_EQ(error_of([&] { static_cast<void>(create_rbd("rbd:p/i@s", {})); }).code(), Code::kUsage);
}

}  // namespace
}  // namespace lukskeep::storage
