#include "storage/partial_file.h"

#include <filesystem>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lukskeep/error.h>

#include "storage/test_files.h"

namespace lukskeep::storage {
namespace {

void put(PartialFile& file, std::string_view text) {
  file.device()->resize(text.size());
  file.device()->write(0, as_byte_view(text));
}

std::string text_of(const PartialFile& file) {
  Bytes bytes(file.device()->size_bytes());
  file.device()->read(0, bytes);
  return std::string(as_string_view(bytes));
}

TEST(PartialFile, IsGoneUnlessItIsKeptOrCommitted) {
  const TemporaryDirectory folder;
  {
    PartialFile(folder.path("a"), "t1").device()->resize(10);
  }
  EXPECT_TRUE(folder.entries().empty());
}

TEST(PartialFile, NextRunGoesOn) {
  const TemporaryDirectory folder;
  {
    PartialFile file(folder.path("a"), "t1");
    put(file, "half");
    file.keep();
  }
  EXPECT_EQ(folder.entries(), std::vector<std::string>{"a.t1.part"});
  struct stat status{};
  ASSERT_EQ(stat(folder.path("a.t1.part").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  {
    PartialFile file(folder.path("a"), "t1");
    EXPECT_EQ(text_of(file), "half");
    put(file, "half whole");
    file.commit();
  }
  EXPECT_EQ(folder.entries(), std::vector<std::string>{"a"});
}

TEST(PartialFile, TellsWhetherItHasItsName) {
  const TemporaryDirectory folder;
  PartialFile file(folder.path("a"), "t1");
  put(file, "whole");
  PartialFile other(folder.path("a"), "t2");
  file.keep();
  EXPECT_FALSE(file.named());
  other.commit();
  EXPECT_TRUE(other.named());
  EXPECT_EQ(code_of([&] { file.commit(); }), Code::kExists);
  EXPECT_FALSE(file.named());
}

TEST(PartialFile, AnotherTagIsAnotherTransfer) {
  const TemporaryDirectory folder;
  PartialFile one(folder.path("a"), "t1");
  PartialFile two(folder.path("a"), "t2");
  put(one, "x");
  EXPECT_EQ(two.device()->size_bytes(), 0U);
  // Of two programs that go on with one part, one has it.
  EXPECT_EQ(code_of([&] { PartialFile(folder.path("a"), "t1"); }), Code::kBusy);
  EXPECT_TRUE(std::filesystem::exists(folder.path("a.t1.part")));
}

TEST(PartialFile, ReplacesNothing) {
  const TemporaryDirectory folder;
  PartialFile file(folder.path("a"), "t1");
  put(file, "new");
  std::ofstream(folder.path("a")) << "old";
  EXPECT_EQ(code_of([&] { file.commit(); }), Code::kExists);
  EXPECT_EQ(code_of([&] { PartialFile(folder.path("a"), "t2"); }), Code::kExists);
  EXPECT_EQ(std::filesystem::file_size(folder.path("a")), 3U);
}

TEST(PartialFile, FillsNothingThatSomebodyElsePutThere) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path("victim")) << "keep";
  std::filesystem::create_symlink(folder.path("victim"), folder.path("a.link.part"));
  std::filesystem::create_hard_link(folder.path("victim"), folder.path("a.hard.part"));
  std::ofstream(folder.path("a.open.part")) << "x";
  chmod(folder.path("a.open.part").c_str(), 0666);
  ASSERT_EQ(mkfifo(folder.path("a.fifo.part").c_str(), 0600), 0);
  for (const char* tag : {"link", "hard", "open", "fifo"}) {
    EXPECT_NE(code_of([&] { PartialFile(folder.path("a"), tag); }), Code::kInternal) << tag;
    EXPECT_TRUE(std::filesystem::exists(folder.path(std::string("a.") + tag + ".part"))) << tag;
  }
  EXPECT_EQ(std::filesystem::file_size(folder.path("victim")), 4U);
}

TEST(PartialFile, NamesThatLeaveTheFolderAreRefused) {
  const TemporaryDirectory folder;
  for (const char* tag : {"", "../x", "a/b", "a.b", "a b"}) {
    EXPECT_EQ(code_of([&] { PartialFile(folder.path("a"), tag); }), Code::kInvalidArgument) << tag;
  }
  EXPECT_EQ(code_of([&] { PartialFile(folder.path(".."), "t"); }), Code::kInvalidArgument);
}

}  // namespace
}  // namespace lukskeep::storage
