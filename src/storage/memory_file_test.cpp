#include "storage/memory_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace lukskeep::storage {
namespace {

TEST(MemoryFile, IsReadFromItsStartAndClosedOnExec) {
  // More than a pipe takes at once.
  const Bytes contents(300'000, std::byte{7});
  const UniqueFd fd = memory_file(contents);
  EXPECT_NE(fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  Bytes found(contents.size() + 1);
  EXPECT_EQ(read(fd.get(), found.data(), found.size()), static_cast<ssize_t>(contents.size()));
  found.resize(contents.size());
  EXPECT_EQ(found, contents);
}

TEST(MemoryFile, MayBeEmpty) {
  const UniqueFd fd = memory_file({});
  std::byte one{};
  EXPECT_EQ(read(fd.get(), &one, 1), 0);
}

}  // namespace
}  // namespace lukskeep::storage
