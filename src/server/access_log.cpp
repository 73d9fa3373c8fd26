#include "server/access_log.h"

#include <cerrno>
#include <chrono>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "storage/request.h"

namespace lukskeep::server {
namespace {

constexpr std::chrono::milliseconds kWriteEvery{100};
constexpr mode_t kMode = 0640;

}  // namespace

AccessLog::AccessLog(const std::string& path) {
  if (path == "-") {
    fd_ = STDERR_FILENO;
  } else {
    fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, kMode);
    own_ = true;
    if (fd_ < 0) {
      storage::throw_errno(errno, fmt::format("cannot open the log '{}'", printable(path, 256)));
    }
  }
  thread_ = std::thread([this] { work(); });
}

AccessLog::~AccessLog() {
  {
    const std::lock_guard lock(lock_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  if (own_) close(fd_);
}

void AccessLog::write(std::string_view line) {
  const std::lock_guard lock(lock_);
  if (waiting_.size() + line.size() > limits::kTangLogBytesMax) {
    ++dropped_;
    return;
  }
  waiting_ += line;
  waiting_ += '\n';
}

void AccessLog::work() {
  while (true) {
    std::string text;
    bool last = false;
    {
      std::unique_lock lock(lock_);
      last = wake_.wait_for(lock, kWriteEvery, [this] { return stopping_; });
      text.swap(waiting_);
      if (dropped_ > 0) text += fmt::format("{} lines were dropped\n", std::exchange(dropped_, 0));
    }
    put(text);
    if (last) return;
  }
}

void AccessLog::put(std::string_view text) const {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd_, text.data(), text.size());
    if (wrote < 0 && errno != EINTR) return;  // nowhere to say so
    if (wrote > 0) text.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

}  // namespace lukskeep::server
