#include "storage/location.h"

#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

TEST(Location, SchemesAreToldByHowTheyStart) {
  struct Row {
    const char* location;
    Scheme scheme;
  };
  const Row rows[] = {
      {"disk", Scheme::kFile},
      {"/dev/sda", Scheme::kFile},
      {"./nbd://x", Scheme::kFile},
      {"nbd", Scheme::kFile},
      {"NBD://x", Scheme::kFile},
      {"nbd://host/x", Scheme::kNbd},
      {"nbds://host", Scheme::kNbd},
      {"nbd+unix:///?socket=s", Scheme::kNbd},
      {"nbds+unix:///?socket=s", Scheme::kNbd},
      {"nbd:unix:/x", Scheme::kNbd},
      {"rbd:pool/image", Scheme::kRbd},
      {"qcow2:disk", Scheme::kQcow2},
  };
  for (const Row& row : rows) EXPECT_EQ(scheme_of(row.location), row.scheme) << row.location;
}

TEST(Location, OnlyWhatIsHereHasALocalPath) {
  EXPECT_EQ(local_path("a/b"), "a/b");
  EXPECT_EQ(local_path("qcow2:a/b"), "a/b");
  EXPECT_FALSE(local_path("nbd://host"));
  EXPECT_FALSE(local_path("rbd:a/b"));
}

TEST(Location, AbsoluteNames) {
  const TemporaryDirectory folder;
  put_file(folder.path("x"), Bytes(1));
  const std::string path = std::filesystem::canonical(folder.path("x")).string();
  ASSERT_EQ(symlink(path.c_str(), folder.path("link").c_str()), 0);
  EXPECT_EQ(absolute_location(folder.path("link")), path);
  EXPECT_EQ(absolute_location("qcow2:" + folder.path("link")), "qcow2:" + path);
  EXPECT_EQ(absolute_location("nbd+unix:///?socket=s"), "nbd+unix:///?socket=s");
}

TEST(Location, TheSamePlaceUnderTwoNames) {
  const TemporaryDirectory folder;
  const std::string path = folder.path("x");
  put_file(path, Bytes(1));
  ASSERT_EQ(symlink(path.c_str(), folder.path("link").c_str()), 0);
  EXPECT_TRUE(same_place(path, folder.path("link")));
  EXPECT_TRUE(same_place("qcow2:" + path, folder.path("link")));
  EXPECT_TRUE(same_place(folder.path("new"), folder.path("./new")));
  EXPECT_FALSE(same_place(path, folder.path("new")));
  EXPECT_TRUE(same_place("nbd://a", "nbd://a"));
  EXPECT_FALSE(same_place("nbd://a", "nbd://b"));
  EXPECT_FALSE(same_place("nbd://a", path));
}

TEST(Location, WhatIsThere) {
  const TemporaryDirectory folder;
  EXPECT_EQ(kind_of(folder.path("x")), PathKind::kAbsent);
  put_file(folder.path("x"), Bytes(1));
  EXPECT_EQ(kind_of(folder.path("x")), PathKind::kFile);
  EXPECT_EQ(error_of([&] { static_cast<void>(kind_of(folder.path("."))); }).code(),
            Code::kUnsupported);
}

}  // namespace
}  // namespace lukskeep::storage
