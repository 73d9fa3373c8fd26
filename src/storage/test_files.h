// Helpers of the tests that need real files.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lukskeep/error.h>

#include "base/bytes.h"

namespace lukskeep::storage {

// A directory of its own, removed with all it holds.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& parent = testing::TempDir()) {
    std::string pattern = parent + "/lukskeep-test-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no directory in " + parent);
    path_ = pattern;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string path(const std::string& name) const { return path_ + "/" + name; }
  std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

 private:
  std::string path_;
};

// Repeatable: a test that fails prints the seed.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t seed() { return engine_(); }
  std::size_t below(std::size_t bound) { return engine_() % bound; }
  Bytes bytes(std::size_t size) {
    Bytes bytes(size);
    for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
      const std::uint64_t value = engine_();
      std::memcpy(bytes.data() + at, &value, std::min(sizeof(value), size - at));
    }
    return bytes;
  }

 private:
  std::mt19937_64 engine_;
};

inline Bytes random_bytes(std::size_t size, std::uint64_t seed) { return Random(seed).bytes(size); }

inline Bytes file_bytes(const std::string& path) {
  Bytes bytes(std::filesystem::file_size(path));
  std::ifstream stream(path, std::ios::binary);
  stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!stream) throw std::runtime_error("cannot read " + path);
  return bytes;
}

inline void put_file(const std::string& path, ByteView contents) {
  std::ofstream stream(path, std::ios::binary);
  const std::string_view text = as_string_view(contents);
  stream.write(text.data(), static_cast<std::streamsize>(text.size()));
}

inline std::uint64_t allocated_bytes(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return 0;
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

// The Error that `call` throws; fails the test if it throws none.
inline Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(Code::kInternal, "nothing was thrown");
}

inline Code code_of(const std::function<void()>& call) { return error_of(call).code(); }

// Runs `body` in a process of its own (for limits, identities and mounts) and returns what it
// returns, 99 if it threw.
inline int in_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    int status = 99;
    try {
      status = body();
    } catch (const std::exception& error) {
      const std::string line = std::string("in the child: ") + error.what() + "\n";
      static_cast<void>(!write(STDERR_FILENO, line.data(), line.size()));
    }
    _exit(status);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// In a child only: a mount namespace of its own. False where the system does not allow it.
inline bool enter_mount_namespace() {
  return unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
}

inline constexpr int kChildSkipped = 77;

}  // namespace lukskeep::storage
