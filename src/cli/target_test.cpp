#include "cli/target.h"

#include <string>

#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/test_files.h"

namespace lukskeep::cli {
namespace {

using storage::error_of;
using storage::file_bytes;
using storage::put_file;
using storage::TemporaryDirectory;

const Bytes kPrecious(3, std::byte{7});

TEST(Target, WhatAppearsBeforeItIsMadeIsNotReplaced) {
  const TemporaryDirectory folder;
  const std::string path = folder.path("x");
  put_file(path, kPrecious);
  const Error error = error_of([&] { Target(path, PathKind::kAbsent, 512); });
  EXPECT_EQ(error.code(), Code::kExists);
  EXPECT_EQ(error.message(), "'" + path + "' was made by somebody else meanwhile");
  EXPECT_EQ(file_bytes(path), kPrecious);
}

TEST(Target, WhatAppearsWhileItIsWrittenIsNotReplaced) {
  const TemporaryDirectory folder;
  const std::string path = folder.path("x");
  Target target(path, PathKind::kAbsent, 512);
  put_file(path, kPrecious);
  EXPECT_EQ(error_of([&] { target.commit(); }).code(), Code::kExists);
  EXPECT_EQ(file_bytes(path), kPrecious);
}

TEST(Target, AFileInPlaceOfADeviceIsNotReplaced) {
  const TemporaryDirectory folder;
  const std::string path = folder.path("x");
  put_file(path, kPrecious);
  EXPECT_EQ(error_of([&] { Target(path, PathKind::kDevice, 512); }).code(), Code::kConflict);
  EXPECT_EQ(file_bytes(path), kPrecious);
}

TEST(Target, WhatWasSettledIsReplaced) {
  const TemporaryDirectory folder;
  const std::string path = folder.path("x");
  put_file(path, kPrecious);
  Target(path, PathKind::kFile, 512).commit();
  EXPECT_EQ(file_bytes(path), Bytes(512));
  // It went away by itself.
  ASSERT_EQ(unlink(path.c_str()), 0);
  Target(path, PathKind::kFile, 1024).commit();
  EXPECT_EQ(file_bytes(path), Bytes(1024));
}

}  // namespace
}  // namespace lukskeep::cli
