#include "server/tang_access.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <arpa/inet.h>

#include <fmt/format.h>

#include <lukskeep/error.h>

#include "base/limits.h"

namespace lukskeep::server {
namespace {

constexpr unsigned kMappedBits = 96;  // of an IPv4 address written as IPv6
constexpr std::size_t kDigestChars = 64;
constexpr std::int64_t kSecondMs = 1000;

[[noreturn]] void refuse(std::string_view what) {
  throw Error(Code::kInvalidArgument, fmt::format("'{}' names no client", printable(what)),
              "write an address, a network such as 192.0.2.0/24, or certificate SHA256");
}

// "192.0.2.1" or "2001:db8::1"; the number of bits in front of it, 96 or 0. Absent if it is none.
std::optional<unsigned> parse_address(const std::string& text, std::array<std::byte, 16>& address) {
  if (inet_pton(AF_INET6, text.c_str(), address.data()) == 1) return 0;
  address.fill(std::byte{0});
  address[10] = address[11] = std::byte{0xff};
  if (inet_pton(AF_INET, text.c_str(), &address[12]) == 1) return kMappedBits;
  return std::nullopt;
}

bool starts_alike(const std::array<std::byte, 16>& a, const std::array<std::byte, 16>& b,
                  unsigned bits) {
  const std::size_t whole = bits / 8;
  if (!std::equal(a.begin(), a.begin() + whole, b.begin())) return false;
  if (bits % 8 == 0) return true;
  const auto mask = static_cast<std::byte>(0xff << (8 - bits % 8));
  return (a[whole] & mask) == (b[whole] & mask);
}

std::string_view trim(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r");
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(" \t\r") - start + 1);
}

// Takes the first word off `text`.
std::string_view take_word(std::string_view& text) {
  const std::size_t end = std::min(text.find_first_of(" \t"), text.size());
  const std::string_view word = text.substr(0, end);
  text = trim(text.substr(end));
  return word;
}

}  // namespace

TangAccess TangAccess::parse(std::string_view text, std::string_view what) {
  TangAccess access;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line = trim(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const std::string_view verb = take_word(line);
    try {
      if (verb != "allow" && verb != "deny") refuse(verb);
      access.add(verb == "allow", line);
    } catch (const Error& error) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}, line {}: {}", what, number, error.message()),
                  "a line is 'allow WHAT' or 'deny WHAT'");
    }
  }
  return access;
}

void TangAccess::add(bool allow, std::string_view what) {
  if (size() == limits::kTangRulesMax) {
    throw Error(Code::kInvalidArgument,
                fmt::format("{} rules are the most", limits::kTangRulesMax));
  }
  std::string_view rest = what;
  if (take_word(rest) == "certificate") {
    const auto digest = from_hex(rest);
    if (!digest || rest.size() != kDigestChars) refuse(what);
    // Denied stays denied, in whatever order.
    auto [place, is_new] = certificates_.try_emplace(to_hex(*digest), allow);
    if (!is_new && !allow) place->second = false;
  } else {
    const std::size_t slash = what.find('/');
    Network network{.allow = allow};
    const auto before = parse_address(std::string(what.substr(0, slash)), network.address);
    if (!before) refuse(what);
    network.bits = 128;
    if (slash != std::string_view::npos) {
      const std::string_view bits = what.substr(slash + 1);
      unsigned value = 0;
      const auto [stop, error] = std::from_chars(bits.data(), bits.data() + bits.size(), value);
      if (error != std::errc() || stop != bits.data() + bits.size() || value > 128 - *before) {
        refuse(what);
      }
      network.bits = *before + value;
    }
    networks_.push_back(network);
  }
  has_allow_ = has_allow_ || allow;
}

bool TangAccess::allows(const net::HttpPeer& peer) const {
  bool allowed = !has_allow_;
  if (!peer.certificate_sha256.empty()) {
    const auto found = certificates_.find(peer.certificate_sha256);
    if (found != certificates_.end()) {
      if (!found->second) return false;
      allowed = true;
    }
  }
  for (const Network& network : networks_) {
    if (!starts_alike(peer.ip, network.address, network.bits)) continue;
    if (!network.allow) return false;
    allowed = true;
  }
  return allowed;
}

unsigned TangRateLimit::wait_seconds(const net::HttpPeer& peer, std::int64_t now_ms) {
  if (per_second_ == 0) return 0;
  static const auto mapped = [] {
    std::array<std::byte, 16> address{};
    address[10] = address[11] = std::byte{0xff};
    return address;
  }();
  const bool is_ipv4 = starts_alike(peer.ip, mapped, kMappedBits);
  const std::string key(as_string_view(ByteView(peer.ip).first(is_ipv4 ? 16 : 8)));
  const std::size_t shard = std::hash<std::string>()(key) % kShards;
  const std::lock_guard lock(locks_[shard]);
  auto& buckets = buckets_[shard];
  if (buckets.size() >= limits::kTangClientsMax / kShards) {
    std::erase_if(buckets, [&](const auto& each) { return each.second.full_at_ms <= now_ms; });
    // All of them busy: whoever is new starts afresh with a few others.
    if (buckets.size() >= limits::kTangClientsMax / kShards) buckets.clear();
  }
  // A bucket is told by when it will be full again: each request puts that off.
  Bucket& bucket = buckets[key];
  const std::int64_t burst_ms = 2 * kSecondMs;
  const std::int64_t cost_ms = std::max<std::int64_t>(1, kSecondMs / per_second_);
  bucket.full_at_ms = std::max(bucket.full_at_ms, now_ms);
  if (bucket.full_at_ms + cost_ms - now_ms <= burst_ms) {
    bucket.full_at_ms += cost_ms;
    return 0;
  }
  const std::int64_t wait_ms = bucket.full_at_ms + cost_ms - now_ms - burst_ms;
  return static_cast<unsigned>((wait_ms + kSecondMs - 1) / kSecondMs);
}

}  // namespace lukskeep::server
