#include "cli/options.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

namespace lukskeep::cli {
namespace {

using ::testing::HasSubstr;

// One of each kind.
struct Fixture {
  Fixture() {
    options.positional({.name = "VOLUME"}, volume);
    options.optional_positional({.name = "FILE"}, file);
    options.flag({.name = "--yes"}, yes);
    options.add({.name = "--key", .value = "SOURCE"}, key);
    options.add({.name = "--type", .value = "TYPE", .choices = {"luks1", "luks2"}}, type);
    options.add({.name = "--slot", .value = "N"}, slot);
    options.add_size({.name = "--size", .value = "SIZE"}, size);
  }

  std::string error_of(const std::vector<std::string>& arguments) const {
    try {
      options.parse(arguments);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUsage);
      return error.message();
    }
    return "nothing was thrown";
  }

  Options options;
  std::string volume;
  std::string file = "unset";
  std::string key = "unset";
  std::string type;
  bool yes = false;
  std::optional<int> slot;
  std::optional<std::uint64_t> size;
};

TEST(Options, SetsWhatIsGivenAndNothingElse) {
  Fixture f;
  f.options.parse(std::vector<std::string>{"--size", "1K", "v", "--type=luks1", "--yes"});
  EXPECT_EQ(f.volume, "v");
  EXPECT_EQ(f.file, "unset");
  EXPECT_EQ(f.key, "unset");
  EXPECT_EQ(f.type, "luks1");
  EXPECT_TRUE(f.yes);
  EXPECT_EQ(f.size, 1024U);
  EXPECT_FALSE(f.slot.has_value());
}

TEST(Options, TakesAnyNumberOfPositionals) {
  const std::vector<std::vector<std::string>> cases = {
      {}, {"a"}, {"a", "b", "c"}, {"a", "--yes", "b"}, {"--", "--yes", "-"}};
  for (const auto& arguments : cases) {
    Options options;
    std::vector<std::string> paths;
    bool yes = false;
    options.positionals({.name = "PATH"}, paths);
    options.flag({.name = "--yes"}, yes);
    options.parse(arguments);
    std::vector<std::string> expected = arguments;
    const bool has_end = !arguments.empty() && arguments.front() == "--";
    std::erase(expected, has_end ? "--" : "--yes");
    EXPECT_EQ(paths, expected);
  }
}

TEST(Options, ValuesMayLookLikeAnything) {
  Fixture f;
  f.options.parse(std::vector<std::string>{"-", "--key", "--yes", "--", "--type"});
  EXPECT_EQ(f.volume, "-");
  EXPECT_EQ(f.key, "--yes");
  EXPECT_EQ(f.file, "--type");
  EXPECT_FALSE(f.yes);
}

TEST(Options, EmptyTextIsAValue) {
  Fixture f;
  f.options.parse(std::vector<std::string>{"v", "--key", ""});
  EXPECT_EQ(f.key, "");
}

TEST(Options, BracketsAndCommasAreText) {
  Fixture f;
  f.options.parse(std::vector<std::string>{"[a,b]", "{x}", "--key", "[file:a,size=1]"});
  EXPECT_EQ(f.volume, "[a,b]");
  EXPECT_EQ(f.file, "{x}");
  EXPECT_EQ(f.key, "[file:a,size=1]");
}

TEST(Options, NamesWhatIsWrong) {
  const Fixture f;
  EXPECT_THAT(f.error_of({}), HasSubstr("VOLUME is missing"));
  EXPECT_THAT(f.error_of({"--yes"}), HasSubstr("VOLUME is missing"));
  EXPECT_THAT(f.error_of({"a", "b", "c"}), HasSubstr("unexpected argument 'c'"));
  EXPECT_THAT(f.error_of({"a", "--nothing"}), HasSubstr("unknown option '--nothing'"));
  EXPECT_THAT(f.error_of({"a", "--nothing=5"}), HasSubstr("unknown option '--nothing'"));
  EXPECT_THAT(f.error_of({"--nothing"}), HasSubstr("unknown option '--nothing'"));
  EXPECT_THAT(f.error_of({"a", "-y"}), HasSubstr("unknown option '-y'"));
  EXPECT_THAT(f.error_of({"a", "--ye"}), HasSubstr("unknown option '--ye'"));
  EXPECT_THAT(f.error_of({"a", "--key"}), HasSubstr("--key wants a value"));
  EXPECT_THAT(f.error_of({"a", "--key", "x", "--key", "y"}), HasSubstr("--key is given twice"));
  EXPECT_THAT(f.error_of({"a", "--type", "luks3"}), HasSubstr("'luks3' is none of luks1, luks2"));
  EXPECT_THAT(f.error_of({"a", "--slot", "x"}), HasSubstr("--slot: 'x' is not a whole number"));
  EXPECT_THAT(f.error_of({"a", "--size", "9Z"}), HasSubstr("--size: '9Z' is not a size"));
}

}  // namespace
}  // namespace lukskeep::cli
