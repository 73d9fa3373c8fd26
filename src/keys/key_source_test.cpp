#include "keys/key_source.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <lukskeep/error.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/test_files.h"

namespace lukskeep::keys {
namespace {

using ::testing::HasSubstr;

Error error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  return Error(Code::kInternal, "nothing was thrown");
}

std::string text_of(const SecretBytes& bytes) { return std::string(as_string_view(bytes.span())); }

class KeyFile : public ::testing::Test {
 protected:
  std::string write(const std::string& name, std::string_view contents) const {
    const std::string path = directory_.path(name);
    std::ofstream(path, std::ios::binary) << contents;
    return path;
  }
  static std::string read(const std::string& uri) {
    return text_of(read_key(parse_key_source(uri), {}, {}));
  }

  storage::TemporaryDirectory directory_;
};

struct GoodUri {
  std::string_view uri;
  KeySource source;
};

TEST(KeySourceUri, ParsesAndSpellsBack) {
  using Kind = KeySource::Kind;
  const std::array cases = {
      GoodUri{"prompt:", {.kind = Kind::kPrompt}},
      GoodUri{"fd:0", {.kind = Kind::kFd, .fd = 0}},
      GoodUri{"fd:7", {.kind = Kind::kFd, .fd = 7}},
      GoodUri{"file:k", {.kind = Kind::kFile, .path = "k"}},
      GoodUri{"file:-", {.kind = Kind::kFile, .path = "-"}},
      GoodUri{"file:a:b=c", {.kind = Kind::kFile, .path = "a:b=c"}},
      GoodUri{"file:a%2Cb%25", {.kind = Kind::kFile, .path = "a,b%"}},
      GoodUri{"file:k,offset=5", {.kind = Kind::kFile, .path = "k", .offset_bytes = 5}},
      GoodUri{"file:k,offset=5,size=6",
              {.kind = Kind::kFile, .path = "k", .offset_bytes = 5, .size_bytes = 6}},
      GoodUri{"volume-key:/vk,size=64",
              {.kind = Kind::kVolumeKey, .path = "/vk", .size_bytes = 64}},
  };
  for (const GoodUri& good : cases) {
    EXPECT_EQ(parse_key_source(good.uri), good.source) << good.uri;
    EXPECT_EQ(to_string(good.source), good.uri);
  }
  EXPECT_EQ(parse_key_source("file:k,size=6,offset=5"), parse_key_source("file:k,offset=5,size=6"));
}

struct BadUri {
  std::string_view uri;
  Code code;
  std::string_view message_part;
};

TEST(KeySourceUri, RefusesNamingThePart) {
  const std::array cases = {
      BadUri{"", Code::kUsage, "has no scheme"},
      BadUri{"k.bin", Code::kUsage, "'k.bin' has no scheme"},
      BadUri{"http:x", Code::kUsage, "unknown scheme 'http'"},
      BadUri{"FILE:x", Code::kUsage, "unknown scheme 'FILE'"},
      BadUri{"file:", Code::kUsage, "names no file"},
      BadUri{"file:,size=1", Code::kUsage, "names no file"},
      BadUri{"file:k,", Code::kUsage, "'' is neither"},
      BadUri{"file:k,length=3", Code::kUsage, "'length=3' is neither"},
      BadUri{"file:k,size", Code::kUsage, "'size' is neither"},
      BadUri{"file:k,size=", Code::kUsage, "'' is not a number"},
      BadUri{"file:k,size=-1", Code::kUsage, "'-1' is not a number"},
      BadUri{"file:k,size=1k", Code::kUsage, "'1k' is not a number"},
      BadUri{"file:k,size=0", Code::kUsage, "leaves no key"},
      BadUri{"file:k,size=1,size=1", Code::kUsage, "size is given twice"},
      BadUri{"file:k,offset=0,offset=0", Code::kUsage, "offset is given twice"},
      BadUri{"file:k,size=18446744073709551616", Code::kUsage, "is not a number"},
      BadUri{"file:a%2", Code::kUsage, "two hex digits"},
      BadUri{"file:a%zz", Code::kUsage, "two hex digits"},
      BadUri{"file:a%00", Code::kUsage, "zero byte"},
      BadUri{"fd:", Code::kUsage, "'' is not a descriptor"},
      BadUri{"fd:-1", Code::kUsage, "'-1' is not a descriptor"},
      BadUri{"fd:3,size=4", Code::kUsage, "is not a descriptor"},
      BadUri{"fd:99999999999", Code::kUsage, "is not a descriptor"},
      BadUri{"prompt:text", Code::kUsage, "nothing may follow"},
      BadUri{"manager:", Code::kUsage, "names nothing"},
      BadUri{"keyring:", Code::kUsage, "names nothing"},
      BadUri{"binding:1", Code::kUsage, "nothing may follow"},
  };
  for (const BadUri& bad : cases) {
    const Error error = error_of([&] { parse_key_source(bad.uri); });
    EXPECT_EQ(error.code(), bad.code) << bad.uri;
    EXPECT_THAT(error.message(), HasSubstr(bad.message_part)) << bad.uri;
    EXPECT_FALSE(error.hint().empty()) << bad.uri;
  }
}

TEST_F(KeyFile, EveryByteBelongsToThePassphrase) {
  const std::string bytes("line\n\0\xff end\n", 12);
  EXPECT_EQ(read("file:" + write("k", bytes)), bytes);
  const std::string with_comma = write("a,b%", "x");
  EXPECT_EQ(read(to_string({.kind = KeySource::Kind::kFile, .path = with_comma})), "x");
}

TEST_F(KeyFile, OffsetAndSizeCutAPiece) {
  const std::string path = write("k", "0123456789");
  EXPECT_EQ(read("file:" + path + ",offset=3"), "3456789");
  EXPECT_EQ(read("file:" + path + ",size=4"), "0123");
  EXPECT_EQ(read("volume-key:" + path + ",offset=8,size=2"), "89");
}

TEST_F(KeyFile, RefusesWhatIsEmptyShortOrLarge) {
  const std::string path = write("k", "0123456789");
  const std::string empty = write("empty", "");
  const std::string large = write("large", std::string(limits::kPassphraseBytesMax + 1, 'x'));
  const std::array<std::pair<std::string, std::string_view>, 7> cases = {{
      {"file:" + empty, "is empty"},
      {"file:" + path + ",offset=10", "ends before its offset"},
      {"file:" + path + ",offset=99999999999999", "ends before its offset"},
      {"file:" + path + ",size=11", "has 10 bytes, 11 are wanted"},
      {"file:" + path + ",offset=9,size=2", "has 1 bytes, 2 are wanted"},
      {"file:" + large, "larger than"},
      {"file:" + path + ",size=99999999999", "too large"},
  }};
  for (const auto& [uri, part] : cases) {
    const Error error = error_of([&] { read(uri); });
    EXPECT_EQ(error.code(), Code::kInvalidArgument) << uri;
    EXPECT_THAT(error.message(), HasSubstr(part)) << uri;
  }
  const std::string largest = write("largest", std::string(limits::kPassphraseBytesMax, 'x'));
  EXPECT_EQ(read("file:" + largest).size(), limits::kPassphraseBytesMax);
}

TEST_F(KeyFile, NamesWhatCannotBeOpened) {
  EXPECT_EQ(error_of([&] { read("file:" + directory_.path("none")); }).code(), Code::kNotFound);
  EXPECT_EQ(error_of([&] { read("file:" + directory_.path("")); }).code(), Code::kUnsupported);
  EXPECT_EQ(error_of([&] { read("fd:987"); }).code(), Code::kIo);
}

TEST(KeyDescriptor, APipeIsReadToItsEndFromTheOffset) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  // More than a pipe holds, so that the writer and the reader take turns.
  const std::string bytes(300'000, 'p');
  std::jthread writer([&] {
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t wrote = ::write(ends[1], bytes.data() + done, bytes.size() - done);
      if (wrote <= 0) break;
      done += static_cast<std::size_t>(wrote);
    }
    close(ends[1]);
  });
  const KeySource source{.kind = KeySource::Kind::kFd, .fd = ends[0], .offset_bytes = 100'000};
  EXPECT_EQ(text_of(read_key(source, {}, {})), bytes.substr(100'000));
  EXPECT_EQ(fcntl(ends[0], F_GETFD), 0) << "a descriptor that was given stays open";
  close(ends[0]);
}

TEST(KeyDescriptor, WaitingForAPipeCanBeCancelled) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  CancelToken cancel;
  std::jthread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    cancel.cancel();
  });
  const KeySource source{.kind = KeySource::Kind::kFd, .fd = ends[0]};
  EXPECT_EQ(error_of([&] { read_key(source, {}, {}, &cancel); }).code(), Code::kInterrupted);
  close(ends[0]);
  close(ends[1]);
}

TEST(KeyPrompt, AsksThePrompterAndRefusesNothing) {
  PromptRequest seen;
  const Prompter prompter = [&](const PromptRequest& request) {
    seen = request;
    return SecretBytes(as_byte_view("typed"));
  };
  const PromptRequest request{.text = "passphrase for 'x'", .confirm = true};
  EXPECT_EQ(text_of(read_key(KeySource{}, request, prompter)), "typed");
  EXPECT_EQ(seen.text, request.text);
  EXPECT_TRUE(seen.confirm);

  const Prompter empty = [](const PromptRequest&) { return SecretBytes(); };
  EXPECT_EQ(error_of([&] { read_key(KeySource{}, request, empty); }).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(error_of([&] { read_key(KeySource{}, request, {}); }).code(), Code::kUsage);
}

}  // namespace
}  // namespace lukskeep::keys
