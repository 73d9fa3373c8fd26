// Ends the connections of clients when the server is told to end.
#pragma once

#include <set>
#include <thread>

#include "storage/unique_fd.h"

namespace lukskeep::server {

// nbdkit (1.32) waits, after SIGTERM, for every client to go by itself: one that is idle keeps it
// for ever, and what it wrote is never flushed. While this object lives, the signals that end
// nbdkit also end the reading from clients: requests that are under way are carried out and
// answered, then the connection closes. Who does not take its answers for kPatience is cut off.
//
// One per process, made when nbdkit has set its own signal handlers (which are still called),
// before it accepts clients. Sockets that are connected by then are not touched.
class ClientEnd {
 public:
  // Throws Error{kIo}.
  ClientEnd();
  ~ClientEnd();
  ClientEnd(const ClientEnd&) = delete;
  ClientEnd& operator=(const ClientEnd&) = delete;

 private:
  void watch(const std::stop_token& stop) const;
  void end_clients(int how) const;

  storage::UniqueFd read_end_;
  storage::UniqueFd write_end_;
  std::set<int> inherited_;
  std::jthread watcher_;
};

}  // namespace lukskeep::server
