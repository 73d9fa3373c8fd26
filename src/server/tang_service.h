// What a Tang server answers: the protocol of Tang's README, byte for byte, and beside it /metrics
// and /healthz. No sockets: it is the handler of a net::HttpServer.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include <lukskeep/progress.h>

#include "net/http_conversation.h"
#include "server/access_log.h"
#include "server/tang_access.h"
#include "server/tang_keys.h"
#include "server/tang_usage.h"

namespace lukskeep::server {

struct TangServiceOptions {
  std::string key_folder;
  std::string endpoint;                    // in front of /adv and /rec: "/prefix", or empty
  std::optional<std::string> access_file;  // TangAccess
  std::optional<std::string> usage_file;
  // Without its record it does not serve; else it warns, and serves.
  bool usage_required = false;
  std::optional<std::string> access_log;
  std::uint32_t rate_per_second = 0;  // of one client; 0: no limit
  // How often watch() looks at everything, told of changes or not: network file systems tell
  // nothing of those of other hosts, and Kubernetes exchanges links.
  std::uint32_t look_anyway_ms = 10'000;
  // Told, from any thread, of what does not end the service: keys that cannot be read, for example.
  std::function<void(const std::string&)> warn;
};

class TangService {
 public:
  // Reads everything. Throws Error.
  explicit TangService(TangServiceOptions options);

  // Thread-safe.
  net::HttpReply handle(const net::HttpServerRequest& request);

  // Follows changes of the key folder and of the access file until `cancel`. In a thread of its
  // own.
  void watch(const CancelToken& cancel);

  std::shared_ptr<const TangKeys> keys() const { return keys_.load(); }

 private:
  enum class Kind : std::uint8_t { kAdvertise, kRecover, kHealth, kMetrics, kOther };
  struct Route {
    Kind kind = Kind::kOther;
    std::string_view thumbprint;
  };
  struct Counter {
    std::atomic<std::uint64_t> by_class[6]{};  // NOLINT: statuses 1xx to 5xx
  };

  Route route(std::string_view target) const;
  net::HttpReply answer(const net::HttpServerRequest& request, const Route& route);
  net::HttpReply advertise(const net::HttpServerRequest& request, std::string_view thumbprint);
  net::HttpReply recover(const net::HttpServerRequest& request, std::string_view thumbprint);
  net::HttpReply health() const;
  net::HttpReply metrics() const;
  void note_use(const TangKeyFile& key, const net::HttpPeer& peer);
  void open_usage();
  void tell_usage_problem();
  void reload_keys();
  void reload_access();
  void warn(const std::string& message) const;

  TangServiceOptions options_;
  TangKeyFolder folder_;
  std::atomic<std::shared_ptr<const TangKeys>> keys_;
  std::atomic<std::shared_ptr<const TangAccess>> access_;
  TangRateLimit rate_;
  std::unique_ptr<TangUsageRecorder> usage_;
  std::string usage_problem_;  // that was told
  std::unique_ptr<AccessLog> log_;
  std::array<Counter, 5> requests_;
  std::atomic<std::uint64_t> denied_{0};
  std::atomic<std::uint64_t> limited_{0};
  std::atomic<std::uint64_t> reloads_{0};
  mutable std::mutex used_lock_;
  std::map<std::string, std::uint64_t, std::less<>> used_;  // by thumbprint, since the start
};

}  // namespace lukskeep::server
