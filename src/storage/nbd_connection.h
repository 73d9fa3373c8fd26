// One connection to an NBD server, and the thread that moves its bytes. Internal to storage.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include <lukskeep/error.h>
#include <lukskeep/progress.h>

#include "storage/nbd_library.h"
#include "storage/unique_fd.h"

namespace lukskeep::storage {

// An NBD URI as users write it. What it may say is in lukskeep(1); `timeout` is ours, the rest is
// libnbd's (nbd_connect_uri(3)).
struct NbdUri {
  std::string name;  // for messages
  std::string uri;   // for libnbd
  std::chrono::seconds timeout{};
};

// Throws Error{kUsage}.
NbdUri parse_nbd_uri(const std::string& location);

// What the server says of its export.
struct NbdExport {
  std::uint64_t size_bytes = 0;
  bool read_only = false;
  bool can_flush = false;
  bool can_zero = false;
  bool can_multi_conn = false;
  bool has_extents = false;
  std::uint32_t block_bytes_min = 1;  // every request is a multiple of it; a power of two
  std::uint32_t request_bytes_max = 0;

  bool operator==(const NbdExport&) const = default;
};

// All functions may be called by several threads. Errors of the connection itself are final: they
// end every request that is under way, and all later ones.
class NbdConnection {
 public:
  // Connects and negotiates. Throws Error: kUsage (the URI), kNotFound (no such export), kRemote,
  // kTimeout, kInterrupted.
  NbdConnection(const NbdUri& uri, const CancelToken* cancel);
  // Takes leave of the server.
  ~NbdConnection();
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  const NbdExport& exported() const noexcept { return export_; }
  bool broken() const;
  std::size_t requests_under_way() const;

  class Request {
   public:
    Request() = default;
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

   private:
    friend class NbdConnection;
    NbdConnection* connection_ = nullptr;
    bool done_ = false;
    int error_ = 0;
    std::chrono::steady_clock::time_point since_;
  };

  // One of libnbd's nbd_aio_ calls, given the handle and what to call when it is done; -1 fails.
  using Issue = std::function<std::int64_t(nbd_handle*, nbd_completion_callback)>;

  // `request`, and the memory that `issue` names, must live until wait() returned or threw.
  void start(Request& request, const Issue& issue);
  // 0, or the errno that the server answered with. Throws kTimeout if the server answered nothing
  // at all for the timeout of its URI, kInterrupted, or kRemote if the connection broke; nothing
  // touches the memory then any more.
  int wait(Request& request, const CancelToken* cancel);

 private:
  using Clock = std::chrono::steady_clock;

  void connect(const CancelToken* cancel);
  void read_export();
  [[noreturn]] void refuse(const std::string& why, int error) const;
  void move_bytes(int timeout_ms);
  void serve() noexcept;
  void take_leave();
  void fail(Code code, const std::string& why);
  void close_handle();
  void wake() const;
  static int on_done(void* request, int* error);

  const NbdLibrary& nbd_;
  NbdUri uri_;
  NbdExport export_;
  UniqueFd wake_fd_;

  std::mutex handle_mutex_;  // before requests_mutex_
  nbd_handle* handle_ = nullptr;

  mutable std::mutex requests_mutex_;
  std::condition_variable request_done_;
  std::set<Request*> under_way_;
  Clock::time_point last_answer_;
  std::optional<Error> failure_;
  bool stop_ = false;

  std::thread thread_;
};

}  // namespace lukskeep::storage
