// One line for each request, written by a thread of its own so that no answer waits for a disk.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace lukskeep::server {

class AccessLog {
 public:
  // Appends to `path`; "-" is standard error. Throws Error.
  explicit AccessLog(const std::string& path);
  // Writes what is left.
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  // Thread-safe. `line` without its newline. More than limits::kTangLogBytesMax waiting are
  // dropped, and how many is said.
  void write(std::string_view line);

 private:
  void work();
  void put(std::string_view text) const;

  int fd_ = -1;
  bool own_ = false;
  std::mutex lock_;
  std::condition_variable wake_;
  std::string waiting_;
  std::uint64_t dropped_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace lukskeep::server
