// Who may use a Tang server.
//
// Rules are lines of "allow WHAT" or "deny WHAT", where WHAT is an address, a network in CIDR form,
// or "certificate SHA256" in hex; '#' starts a comment. A client that a "deny" meets is refused. If
// there is any "allow", only clients that one meets are served.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "net/http_conversation.h"

namespace lukskeep::server {

class TangAccess {
 public:
  TangAccess() = default;

  // At most limits::kTangRulesMax rules. Throws Error{kInvalidArgument} naming `what` and the line.
  static TangAccess parse(std::string_view text, std::string_view what);
  // One rule, e.g. of the command line. Throws likewise.
  void add(bool allow, std::string_view what);

  bool allows(const net::HttpPeer& peer) const;
  std::size_t size() const noexcept { return networks_.size() + certificates_.size(); }

 private:
  struct Network {
    std::array<std::byte, 16> address{};
    unsigned bits = 0;
    bool allow = false;
  };

  std::vector<Network> networks_;
  std::unordered_map<std::string, bool> certificates_;  // whether allowed
  bool has_allow_ = false;
};

// Requests of one client per second, with bursts of twice that. Thread-safe; at most
// limits::kTangClientsMax clients are told apart, IPv6 clients by their network of 64 bits.
class TangRateLimit {
 public:
  explicit TangRateLimit(std::uint32_t per_second) : per_second_(per_second) {}

  // 0 if `peer` may go on, else the seconds after which it may.
  unsigned wait_seconds(const net::HttpPeer& peer, std::int64_t now_ms);

 private:
  struct Bucket {
    std::int64_t full_at_ms = 0;
  };

  static constexpr std::size_t kShards = 16;
  std::uint32_t per_second_;
  std::array<std::unordered_map<std::string, Bucket>, kShards> buckets_;
  std::array<std::mutex, kShards> locks_;
};

}  // namespace lukskeep::server
