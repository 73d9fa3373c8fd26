#include "keys/file_key_manager.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <lukskeep/error.h>

#include "storage/database.h"
#include "storage/test_files.h"

namespace lukskeep::keys {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

SecretBytes bytes_of(std::string_view text) { return SecretBytes(as_byte_view(text)); }

constexpr std::string_view kKey = "0123456789abcdef0123456789abcdef";
const crypto::KdfCost kCheapCost{.type = crypto::KdfType::kArgon2id,
                                 .hash = {},
                                 .iterations = 1,
                                 .memory_kib = 32,
                                 .parallel = 1};

Code failure(const std::function<void()>& call, std::string_view expected = "") {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr(std::string(expected)));
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return Code::kInternal;
}

class FileKeyManagerTest : public ::testing::Test {
 protected:
  FileKeyManagerTest() : path_(folder_.path("keystore")) {}

  void create(std::string_view key = kKey) {
    FileKeyManager::create(path_, {.source = "file:/k", .bytes = bytes_of(key)}, nullptr);
  }
  FileKeyManager open(std::string_view key = kKey) {
    return {path_, [key](const WrappingInfo&) { return bytes_of(key); }, nullptr};
  }
  std::string bytes_on_disk() const {
    std::string all;
    for (const auto& entry : fs::directory_iterator(fs::path(path_).parent_path())) {
      std::ifstream file(entry.path(), std::ios::binary);
      all.append(std::istreambuf_iterator<char>(file), {});
    }
    return all;
  }
  void tamper(const std::string& sql) { storage::Database(path_, "test").run(sql); }

  storage::TemporaryDirectory folder_;
  std::string path_;
};

SecretInfo named(std::string name, SecretType type = SecretType::kPassphrase) {
  SecretInfo info{.id = {}, .name = std::move(name), .type = type};
  return info;
}

TEST_F(FileKeyManagerTest, KeepsWhatItIsGiven) {
  create();
  SecretInfo info = named("disk \"1\" \xc3\xa4", SecretType::kSymmetric);
  info.algorithm = "AES";
  info.bit_length = 256;
  info.mode = "xts";
  info.content_type = "text/plain";
  info.expires_s = 1'900'000'000;
  std::string payload("\x00\xff middle of payload \n", 21);
  std::string id;
  {
    FileKeyManager keys = open();
    id = keys.store(info, as_byte_view(payload), {{"luks-uuid", "u"}});
  }
  FileKeyManager keys = open();
  const Secret secret = keys.get(id);
  EXPECT_EQ(as_string_view(secret.payload.span()), payload);
  EXPECT_EQ(secret.info.id, id);
  EXPECT_EQ(secret.info.name, info.name);
  EXPECT_EQ(secret.info.type, info.type);
  EXPECT_EQ(secret.info.algorithm, "AES");
  EXPECT_EQ(secret.info.bit_length, 256U);
  EXPECT_EQ(secret.info.mode, "xts");
  EXPECT_EQ(secret.info.content_type, "text/plain");
  EXPECT_EQ(secret.info.expires_s, 1'900'000'000);
  EXPECT_GT(secret.info.created_s, 1'700'000'000);
  EXPECT_EQ(keys.metadata(id), (Metadata{{"luks-uuid", "u"}}));
  EXPECT_EQ(bytes_on_disk().find("middle of payload"), std::string::npos);
}

TEST_F(FileKeyManagerTest, ListsInOrderAndByName) {
  create();
  FileKeyManager keys = open();
  std::vector<std::string> ids;
  ids.reserve(5);
  for (int i = 0; i < 5; ++i) {
    ids.push_back(keys.store(named(i % 2 == 0 ? "even" : "odd"), as_byte_view("secret"), {}));
  }
  std::vector<std::string> listed;
  for (const SecretInfo& info : keys.list({})) listed.push_back(info.id);
  EXPECT_EQ(listed, ids);
  EXPECT_EQ(keys.list("odd").size(), 2U);
  EXPECT_THAT(keys.list("other"), IsEmpty());
  EXPECT_FALSE(keys.find("nothing").has_value());
  EXPECT_EQ(failure([&] { keys.get("nothing"); }, "has no secret 'nothing'"), Code::kNotFound);
}

TEST_F(FileKeyManagerTest, DoesNotRemoveWhatIsUsed) {
  create();
  FileKeyManager keys = open();
  const std::string id = keys.store(named("a"), as_byte_view("secret"), {});
  const Consumer image{"image", "image", "i/1"};
  const Consumer volume{"volume", "volumes", "v"};
  keys.add_consumer(id, volume);
  keys.add_consumer(id, image);
  keys.add_consumer(id, image);
  EXPECT_THAT(keys.consumers(id), ElementsAre(image, volume));
  EXPECT_EQ(failure([&] { keys.remove(id, false); }, "image/image/i/1"), Code::kUnsafe);
  keys.remove_consumer(id, image);
  keys.remove_consumer(id, image);
  EXPECT_EQ(failure([&] { keys.remove(id, false); }, "one consumer"), Code::kUnsafe);
  keys.remove(id, true);
  EXPECT_EQ(failure([&] { keys.consumers(id); }), Code::kNotFound);
  EXPECT_EQ(failure([&] { keys.remove(id, false); }), Code::kNotFound);
}

TEST_F(FileKeyManagerTest, MakesKeys) {
  create();
  FileKeyManager keys = open();
  const Secret secret = keys.get(keys.order({.name = "made", .bit_length = 512, .mode = "xts"}));
  EXPECT_EQ(secret.payload.size(), 64U);
  EXPECT_EQ(secret.info.type, SecretType::kSymmetric);
  for (const std::uint32_t bits : {0U, 7U, 4104U}) {
    EXPECT_EQ(failure([&] { keys.order({.name = "x", .bit_length = bits, .mode = ""}); }),
              Code::kInvalidArgument);
  }
}

TEST_F(FileKeyManagerTest, MetadataIsReplacedAndTheSecretStays) {
  create();
  FileKeyManager keys = open();
  const std::string id = keys.store(named("a"), as_byte_view("secret"), {{"one", "1"}});
  keys.set_metadata(id, {{"two", "2"}});
  EXPECT_EQ(open().metadata(id), (Metadata{{"two", "2"}}));
  EXPECT_EQ(as_string_view(open().get(id).payload.span()), "secret");
  for (const Metadata& bad : {Metadata{{"Upper", ""}}, Metadata{{"", ""}}, Metadata{{"a b", ""}},
                              Metadata{{"a", std::string(256, 'x')}}, Metadata{{"a", "\xff"}}}) {
    EXPECT_EQ(failure([&] { keys.set_metadata(id, bad); }), Code::kInvalidArgument);
  }
}

TEST_F(FileKeyManagerTest, RefusesWhatIsTooLargeOrEmpty) {
  create();
  FileKeyManager keys = open();
  const std::string large(64 * 1024 + 1, 'x');
  EXPECT_EQ(failure([&] { keys.store(named("a"), {}, {}); }), Code::kInvalidArgument);
  EXPECT_EQ(failure([&] { keys.store(named("a"), as_byte_view(large), {}); }),
            Code::kInvalidArgument);
  EXPECT_EQ(failure([&] { keys.store(named(std::string(256, 'n')), as_byte_view("s"), {}); }),
            Code::kInvalidArgument);
  EXPECT_THAT(keys.list({}), IsEmpty());
}

TEST_F(FileKeyManagerTest, OpensOnlyWithItsKey) {
  create();
  EXPECT_EQ(failure([&] { open("0123456789abcdef0123456789abcdeX"); }, path_),
            Code::kWrongPassphrase);
  EXPECT_EQ(failure([&] { create(); }), Code::kExists);
  EXPECT_EQ(failure([&] {
              FileKeyManager::create(folder_.path("short"),
                                     {.source = "", .bytes = bytes_of("15 bytes are no")}, nullptr);
            }),
            Code::kInvalidArgument);
  EXPECT_FALSE(fs::exists(folder_.path("short")));
}

TEST_F(FileKeyManagerTest, OpensWithAPassphrase) {
  FileKeyManager::create(
      path_, {.source = "prompt:", .bytes = bytes_of("pass"), .cost = kCheapCost}, nullptr);
  WrappingInfo asked;
  const FileKeyManager keys(
      path_,
      [&](const WrappingInfo& info) {
        asked = info;
        return bytes_of("pass");
      },
      nullptr);
  EXPECT_EQ(asked.source, "prompt:");
  EXPECT_TRUE(asked.passphrase);
  EXPECT_EQ(failure([&] { open("other"); }), Code::kWrongPassphrase);
}

TEST_F(FileKeyManagerTest, EveryChangeOfARecordIsNoticed) {
  const char* const changes[] = {
      "UPDATE secrets SET id = 'x' WHERE number = 1",
      R"(UPDATE secrets SET metadata = '{"luks-uuid":"other"}' WHERE number = 1)",
      "UPDATE secrets SET about = replace(about, 'first', 'other') WHERE number = 1",
      "UPDATE secrets SET payload = (SELECT payload FROM secrets WHERE number = 2) WHERE number=1",
      "UPDATE secrets SET payload = zeroblob(length(payload)) WHERE number = 1",
      "UPDATE secrets SET payload = x'00' WHERE number = 1",
      "UPDATE secrets SET name = 'other' WHERE number = 1",
  };
  for (const char* change : changes) {
    fs::remove(path_);
    create();
    open().store(named("first"), as_byte_view("secret 1"), {{"luks-uuid", "u"}});
    open().store(named("second"), as_byte_view("secret 2"), {});
    tamper(change);
    EXPECT_EQ(failure([&] { open().list({}); }), Code::kDamaged) << change;
  }
}

// The name is a column of its own, to be looked for, beside the sealed text that has it too.
TEST_F(FileKeyManagerTest, ASecretIsNotGivenUnderAnotherName) {
  create();
  const std::string id = open().store(named("mine"), as_byte_view("secret"), {});
  tamper("UPDATE secrets SET name = 'theirs'");
  EXPECT_EQ(failure([&] { open().get(id); }, "another name"), Code::kDamaged);
  EXPECT_EQ(failure([&] { open().find(id); }, "another name"), Code::kDamaged);
}

TEST_F(FileKeyManagerTest, EveryChangeOfTheWrappingIsNoticed) {
  const char* const changes[] = {
      "UPDATE wrapping SET source = 'file:/mine'", "UPDATE wrapping SET generation = 7",
      "UPDATE wrapping SET salt = zeroblob(32)", "UPDATE wrapping SET master = zeroblob(60)",
      "UPDATE wrapping SET master = x''"};
  for (const char* change : changes) {
    fs::remove(path_);
    create();
    tamper(change);
    EXPECT_EQ(failure([&] { open(); }), Code::kWrongPassphrase) << change;
  }
  fs::remove(path_);
  create();
  tamper("DELETE FROM wrapping");
  EXPECT_EQ(failure([&] { open(); }), Code::kDamaged);
  tamper("PRAGMA user_version = 2");
  EXPECT_EQ(failure([&] { open(); }), Code::kUnsupported);
}

TEST_F(FileKeyManagerTest, CostsOfAPassphraseAreBounded) {
  FileKeyManager::create(
      path_, {.source = "prompt:", .bytes = bytes_of("pass"), .cost = kCheapCost}, nullptr);
  tamper("UPDATE wrapping SET memory_kib = 2000000000");
  EXPECT_EQ(failure([&] { open("pass"); }), Code::kKdfLimit);
}

TEST_F(FileKeyManagerTest, FilesThatAreNoKeystore) {
  EXPECT_EQ(failure([&] { open(); }, "there is no keystore"), Code::kNotFound);
  for (const std::size_t size : {0U, 100U, 8192U}) {
    std::ofstream(path_, std::ios::trunc) << std::string(size, 'x');
    chmod(path_.c_str(), 0600);
    EXPECT_EQ(failure([&] { open(); }), Code::kDamaged) << size;
  }
  fs::remove(path_);
  fs::create_directory(path_);
  EXPECT_EQ(failure([&] { open(); }), Code::kUnsupported);
  fs::remove(path_);
  create();
  fs::rename(path_, path_ + "2");
  fs::create_symlink(path_ + "2", path_);
  EXPECT_EQ(failure([&] { open(); }), Code::kUnsupported);
}

TEST_F(FileKeyManagerTest, RefusesAFileThatOthersMayOpen) {
  create();
  struct stat status{};
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  chmod(path_.c_str(), 0640);
  EXPECT_EQ(failure([&] { open(); }), Code::kUnsafe);
}

TEST_F(FileKeyManagerTest, LeavesNothingBesideIt) {
  create();
  open().store(named("a"), as_byte_view("s"), {});
  EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(path_).parent_path()), {}), 1);
}

TEST_F(FileKeyManagerTest, AnotherWrappingKey) {
  create();
  FileKeyManager keys = open();
  FileKeyManager bystander = open();
  std::vector<std::string> ids;
  ids.reserve(20);
  for (int i = 0; i < 20; ++i) {
    ids.push_back(keys.store(named("n"), as_byte_view(fmt::format("secret {}", i)), {}));
  }
  const std::string other = "another key of 32 bytes or more..";
  EXPECT_EQ(keys.rewrap({.source = "keyring:k", .bytes = bytes_of(other)}), 20U);
  // What is sealed with the old key is not in the log any more, though others have it open.
  EXPECT_EQ(fs::file_size(path_ + "-wal"), 0U);
  EXPECT_EQ(failure([&] { open(); }), Code::kWrongPassphrase);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(as_string_view(open(other).get(ids[i]).payload.span()), fmt::format("secret {}", i));
  }
  // Who had it open neither reads nonsense nor writes what nobody can open.
  EXPECT_EQ(failure([&] { bystander.get(ids[0]); }), Code::kConflict);
  EXPECT_EQ(failure([&] { bystander.store(named("x"), as_byte_view("x"), {}); }), Code::kConflict);
  EXPECT_EQ(keys.list({}).size(), 20U);
}

// A process that is killed while it stores loses nothing that it reported.
TEST_F(FileKeyManagerTest, WhatWasStoredOutlivesAKill) {
  create();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    // Secrets do not outlive a fork: it opens the keystore by itself.
    FileKeyManager keys = open();
    for (;;) {
      const std::string id = keys.store(named("n"), as_byte_view("s"), {});
      if (write(ends[1], id.data(), id.size()) < 0) _exit(1);
    }
  }
  close(ends[1]);
  std::string reported(20UL * 36, ' ');
  std::size_t have = 0;
  while (have < reported.size()) {
    const ssize_t got = read(ends[0], reported.data() + have, reported.size() - have);
    ASSERT_GT(got, 0);
    have += static_cast<std::size_t>(got);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ends[0]);
  FileKeyManager keys = open();
  for (std::size_t at = 0; at < reported.size(); at += 36) {
    EXPECT_EQ(as_string_view(keys.get(reported.substr(at, 36)).payload.span()), "s");
  }
  EXPECT_GE(keys.list({}).size(), 20U);
}

TEST_F(FileKeyManagerTest, SeveralAtOnce) {
  create();
  std::vector<std::thread> writers;
  writers.reserve(4);
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([&] {
      FileKeyManager keys = open();
      for (int j = 0; j < 25; ++j) keys.store(named("n"), as_byte_view("s"), {});
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(open().list({}).size(), 100U);
}

TEST_F(FileKeyManagerTest, WaitingForAnotherProcessCanBeCancelled) {
  create();
  storage::Database other(path_, "test");
  const storage::Transaction held(other);
  CancelToken cancel;
  FileKeyManager keys(path_, [](const WrappingInfo&) { return bytes_of(kKey); }, &cancel);
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    cancel.cancel();
  });
  EXPECT_EQ(failure([&] { keys.store(named("n"), as_byte_view("s"), {}); }), Code::kInterrupted);
  canceller.join();
}

}  // namespace
}  // namespace lukskeep::keys
